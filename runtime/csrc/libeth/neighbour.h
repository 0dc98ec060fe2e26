/* ARP (RFC 826) and neighbour discovery (RFC 4861), in own-address mode: what others ask of us. We ask nobody where somebody is:
 * every answer goes back to where the question came from. */
#ifndef SANDSTORM_NEIGHBOUR_H
#define SANDSTORM_NEIGHBOUR_H

#include "eth.h"
#include "wire/packet.h"

/* A frame for which eth_input said ETH_ARP. */
void arp_input(struct eth *eth, uint8_t *frame, uint32_t len_bytes);
/* A neighbour solicitation or advertisement whose ICMPv6 checksum has been verified. */
void nd_input(struct eth *eth, const struct packet *packet);

#endif
