/* IPv4 (RFC 791) and IPv6 (RFC 8200): what comes in. */
#ifndef SANDSTORM_IP_H
#define SANDSTORM_IP_H

#include "state.h"

/* What a received packet holds. */
enum ip_verdict { IP_DROPPED, IP_TCP, IP_ICMP, IP_FRAGMENT };

/* Checks a frame that eth_input has let through, and fills *packet. What is not for us is counted and dropped. */
enum ip_verdict ip_input(struct tcpip *tcpip, const struct nmio_rx *frame, struct packet *packet);
/* Keeps a fragment. True: it was the last one missing, and *whole is the packet's frame, as if it had come in one piece. */
bool ip_reassemble(struct tcpip *tcpip, const struct packet *packet, struct nmio_rx *whole);

#endif
