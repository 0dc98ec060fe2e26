/* Segments that belong to no connection: SYN-ACK with a cookie, RST, and the ACK of TIME-WAIT. */
#ifndef SANDSTORM_TCP_REPLY_H
#define SANDSTORM_TCP_REPLY_H

#include "state.h"

/* RFC 9293 section 3.10.7.1: what answers a segment for which there is no connection. */
void tcp_reply_rst(struct tcpip *tcpip, const struct packet *packet, const struct tcp_segment *segment);
void tcp_reply_syn_ack(struct tcpip *tcpip, const struct packet *packet, const struct tcp_flow *flow,
                       const struct tcp_segment *segment);
void tcp_reply_time_wait(struct tcpip *tcpip, const struct packet *packet, const struct time_wait *wait);

#endif
