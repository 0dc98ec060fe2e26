/* A TCP segment from the packet to its connection, or to none. */
#ifndef SANDSTORM_INPUT_H
#define SANDSTORM_INPUT_H

#include "state.h"

void tcp_input(struct tcpip *tcpip, const struct packet *packet);

#endif
