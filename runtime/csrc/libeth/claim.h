/* Claiming our addresses on the link, in own-address mode: ask whether somebody has one before it is used (IPv4 address
 * conflict detection, RFC 5227; IPv6 duplicate address detection, RFC 4862 section 5.4), announce it, and watch for
 * others who use it all the same. */
#ifndef SANDSTORM_CLAIM_H
#define SANDSTORM_CLAIM_H

#include <stdbool.h>
#include <stdint.h>

struct stack;
struct wire_arp;

enum claim_step { CLAIM_BEGIN, CLAIM_PROBE, CLAIM_ANNOUNCE, CLAIM_REST };

/* Of one address. */
struct claim {
    uint32_t state; /* STACK_ADDRESS_*; other threads read this and the next two */
    uint32_t conflicts; /* frames that said the address is another's */
    uint64_t other_mac; /* who sent the last of them: its bytes in memory order */
    uint64_t next_us; /* when the step goes on; UINT64_MAX: never */
    uint64_t defend_us; /* no defence before this */
    enum claim_step step;
    uint32_t sent; /* frames of this step */
};

/* All as config.claim says; nothing is sent before the first claim_run. */
void claim_init(struct stack *stack);
/* Sends what is due and sets stack->claim_next_us. What tx has no room for is tried again a little later. */
void claim_run(struct stack *stack);
/* Those that are ours are announced again, as after they were claimed: the MAC is another, or the link has been down. Only by
 * the stack that announced them before. */
void claim_announce(struct stack *stack);
/* Takes in a well-formed ARP packet of another host. True: it contested one of our addresses, and that is all it is
 * good for. */
bool claim_arp(struct stack *stack, const struct wire_arp *arp);
/* The same of an advertisement for one of our addresses, or of a solicitation for it that has no source: the sender, mac,
 * is asking whether it may have the address itself. */
bool claim_neighbour(struct stack *stack, uint32_t index, bool advertisement, const uint8_t *mac);

#endif
