/* Multicast listener discovery, version 2 (RFC 3810): switches that snoop give a group's frames only to ports from which somebody
 * has said that he listens. In own-address mode we listen to the solicited-node groups of our IPv6 addresses (RFC 4291 section
 * 2.7.1): without that, nobody behind such a switch would find us. */
#ifndef SANDSTORM_MLD_H
#define SANDSTORM_MLD_H

#include "eth.h"
#include "wire/packet.h"

/* Before the first acd_run. */
void mld_init(struct eth *eth);
/* Sends what is due. */
void mld_run(struct eth *eth);
/* A query whose ICMPv6 checksum has been verified. */
void mld_input(struct eth *eth, const struct packet *packet);

#endif
