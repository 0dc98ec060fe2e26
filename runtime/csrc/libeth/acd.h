/* Address conflict detection, in own-address mode: we ask whether somebody has one of our addresses before it is used (RFC 5227;
 * for IPv6 duplicate address detection, RFC 4862 section 5.4), announce it, and notice others who use it all the same. */
#ifndef SANDSTORM_ACD_H
#define SANDSTORM_ACD_H

#include "eth.h"

/* All as config.acd says; nothing is sent before the first acd_run. */
void acd_init(struct eth *eth);
/* Sends what is due and sets eth->due_us. What tx has no room for is tried again a little later. */
void acd_run(struct eth *eth);
/* Those that are ours are announced again, as after the link was asked: the MAC is another, or the link has been down. Only by
 * the one of us that announced them before. */
void acd_announce(struct eth *eth);
/* Takes in a well-formed ARP packet of another host. True: it contested one of our addresses, and that is all it is
 * good for. */
bool acd_arp(struct eth *eth, const struct wire_arp *arp);
/* The same of an advertisement for one of our addresses, or of a solicitation for it that has no source: the sender, mac,
 * is asking whether it may have the address itself. */
bool acd_neighbour(struct eth *eth, uint32_t index, bool advertisement, const uint8_t *mac);
/* With ETH_ACD_FOLLOW: those addresses that nobody has contested here either are ours from now on. */
void acd_confirmed(struct eth *eth);

/* Of address index: ETH_ADDRESS_*. From any thread. */
uint32_t acd_state(const struct eth *eth, uint32_t index);
/* How many frames said that the address is another's; mac (6 bytes): who sent the last. From any thread. */
uint32_t acd_conflicts(const struct eth *eth, uint32_t index, uint8_t *mac);

#endif
