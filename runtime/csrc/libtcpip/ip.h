/* IPv4 (RFC 791) and IPv6 (RFC 8200): what comes in. */
#ifndef SANDSTORM_IP_H
#define SANDSTORM_IP_H

#include "state.h"

/* What a received packet holds. */
enum ip_verdict { IP_DROPPED, IP_TCP, IP_ICMP };

/* Checks a frame that eth_input has let through, and fills *packet. Of fragments the last one gives the whole packet. What is
 * not for us, or not whole, is counted and dropped (or kept, of fragments). */
enum ip_verdict ip_input(struct tcpip *tcpip, const struct nmio_rx *frame, struct packet *packet);

#endif
