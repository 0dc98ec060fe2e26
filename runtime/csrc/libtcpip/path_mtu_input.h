/* What ICMP says of a path's MTU (RFC 1191, RFC 8201), validated as RFC 5927 asks. */
#ifndef SANDSTORM_PATH_MTU_INPUT_H
#define SANDSTORM_PATH_MTU_INPUT_H

#include "state.h"

/* Fragmentation needed, or packet too big: an ICMP message whose checksum has been verified. */
void path_mtu_input(struct tcpip *tcpip, const struct packet *packet);

#endif
