/* ICMP (RFC 792) and ICMPv6 (RFC 4443): echo is answered; what else is of interest is told apart. */
#ifndef SANDSTORM_ICMP_H
#define SANDSTORM_ICMP_H

#include "state.h"

/* What a message is, if somebody else must hear of it. Its checksum has been verified then. */
enum icmp_verdict {
    ICMP_DONE, /* answered, or counted and dropped */
    ICMP_TOO_BIG, /* for path_mtu_input */
    ICMP_NEIGHBOUR, /* for libeth's nd_input */
    ICMP_LISTENER_QUERY, /* for libeth's mld_input */
};
enum icmp_verdict icmp_input(struct tcpip *tcpip, const struct packet *packet);

#endif
