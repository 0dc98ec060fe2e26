/* Multicast listener discovery, version 2 (RFC 3810): switches that snoop give a group's frames only to ports from which somebody
 * has said that he listens. In own-address mode we listen to the solicited-node groups of our IPv6 addresses (RFC 4291 section
 * 2.7.1): without that, nobody behind such a switch would find us. */
#ifndef SANDSTORM_MLD_H
#define SANDSTORM_MLD_H

#include <stdint.h>

struct stack;
struct packet;

struct mld {
    uint64_t next_us; /* of the next report; UINT64_MAX: none is due */
    uint64_t sent_us; /* of the last */
    uint32_t joins_left; /* reports that say that we have begun to listen; then they are answers */
};

/* Before the first claim_run. */
void mld_init(struct stack *stack);
/* Sends what is due. */
void mld_run(struct stack *stack);
/* A query whose ICMPv6 checksum has been verified. */
void mld_input(struct stack *stack, const struct packet *packet);

#endif
