/* Frames of ARP and neighbour discovery, for answers and for conflict detection. */
#ifndef SANDSTORM_NEIGHBOUR_FRAME_H
#define SANDSTORM_NEIGHBOUR_FRAME_H

#include "eth.h"

/* Addresses are in network order. */
struct arp_message {
    uint16_t operation; /* ARP_* */
    const uint8_t *to_mac; /* of the frame */
    const uint8_t *sender_ip;
    const uint8_t *target_mac, *target_ip;
};

struct nd_message {
    uint8_t type; /* ICMPV6_NEIGHBOUR_*; an advertisement carries our MAC, a solicitation does not */
    uint32_t flags; /* ND_FLAG_* */
    const uint8_t *to_mac; /* of the frame */
    const uint8_t *source, *destination, *target;
};

/* ff02::1, and what its solicited-node siblings begin with: an address's last three bytes follow (RFC 4291 section
 * 2.7.1). */
extern const uint8_t nd_all_nodes[16];
extern const uint8_t nd_solicited_node_prefix[13];

/* The Ethernet address of an IPv6 multicast group, RFC 2464 section 7; mac: 6 bytes. */
void nd_group_mac(const uint8_t *group, uint8_t *mac);

/* Append a frame to tx; false (and counted) if there is no room. */
bool arp_output(struct eth *eth, const struct arp_message *message);
bool nd_output(struct eth *eth, const struct nd_message *message);

#endif
