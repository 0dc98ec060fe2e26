/* Path MTU discovery: what ICMP says (RFC 1191, RFC 8201, validated as RFC 5927 asks), remembered for a while, and a
 * guess when nobody says anything (RFC 2923's black holes). */
#ifndef SANDSTORM_PMTU_H
#define SANDSTORM_PMTU_H

#include <stdint.h>

struct stack;
struct tcb;
struct packet;
struct tcp_flow;

#define PMTU_MIN_IPV4 576 /* below it fewer hosts than forgers are found; Linux's least is 552 */
#define PMTU_MIN_IPV6 1280 /* RFC 8200 section 5 */
#define PMTU_PATHS 1024 /* peers remembered */

/* A path narrower than our interface. */
struct pmtu_path {
    uint64_t peer_hash; /* 64 bits that stand for the peer's address */
    uint64_t expires_us;
    uint32_t mtu_bytes; /* 0: unused */
};

/* MTU towards a flow's peer: the interface's, or what has been learned. */
uint32_t pmtu_of(const struct stack *stack, const struct tcp_flow *flow);
/* Fragmentation needed, or packet too big: an ICMP message whose checksum has been verified. */
void pmtu_input(struct stack *stack, const struct packet *packet);
/* The interface's MTU is smaller now: so are the segments of all connections. */
void pmtu_interface(struct stack *stack);
/* Several timeouts in a row: perhaps large segments vanish without a word. Tries smaller ones. */
void pmtu_black_hole(struct stack *stack, struct tcb *tcb);

#endif
