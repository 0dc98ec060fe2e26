/* A segment arrives: a connection's state machine, RFC 9293 section 3.10.7.4, from ESTABLISHED on. */
#ifndef SANDSTORM_FSM_H
#define SANDSTORM_FSM_H

#include "state.h"

/* A segment of a connection whose checksum is good. */
void segment_arrives(struct tcpip *tcpip, struct tcb *tcb, const struct packet *packet, struct tcp_segment *segment);

#endif
