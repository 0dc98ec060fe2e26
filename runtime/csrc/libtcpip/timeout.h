/* What becomes of a connection whose timer is due. */
#ifndef SANDSTORM_TIMEOUT_H
#define SANDSTORM_TIMEOUT_H

#include "state.h"

void tcp_timeout(struct tcpip *tcpip, struct tcb *tcb);

#endif
