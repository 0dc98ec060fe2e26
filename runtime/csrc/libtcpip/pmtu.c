#include "pmtu.h"

#include "tcp.h"
#include "wire/seq.h"
#include "wire/siphash.h"

#define PMTU_LIFETIME_US 600000000ull /* RFC 1191 section 6.3, RFC 8201 section 4: ten minutes */
#define BLACK_HOLE_FIRST 2 /* timeouts in a row until an MTU of 1280 is tried, as Linux's tcp_mtu_probing */
#define BLACK_HOLE_SECOND 4 /* and of 576, IPv4 */

/* Our packet, as far as an ICMP error quotes it. */
struct quoted {
    struct tcp_flow flow;
    uint32_t seq;
    uint32_t mtu_bytes; /* that the message tells */
};

static uint64_t peer_hash(const struct stack *stack, const struct tcp_flow *flow)
{
    struct {
        uint8_t peer[16];
        uint64_t family;
    } key = {.family = flow->family};
    memcpy(key.peer, flow->peer, sizeof(key.peer));
    return siphash(stack->config.secret, &key, sizeof(key));
}

static uint32_t least_mtu(uint8_t family)
{
    return family == SSI_FAMILY_IPV4 ? PMTU_MIN_IPV4 : PMTU_MIN_IPV6;
}

uint32_t pmtu_of(const struct stack *stack, const struct tcp_flow *flow)
{
    if (stack->paths_until_us <= stack->now_us)
        return stack->config.mtu_bytes;
    uint64_t hash = peer_hash(stack, flow);
    const struct pmtu_path *path = &stack->paths[hash % PMTU_PATHS];
    bool known = path->mtu_bytes != 0 && path->mtu_bytes < stack->config.mtu_bytes && path->peer_hash == hash &&
                 path->expires_us > stack->now_us;
    return known ? path->mtu_bytes : stack->config.mtu_bytes;
}

/* A forgetful table: one place for a hash, the newest wins. */
static void remember(struct stack *stack, const struct tcp_flow *flow, uint32_t mtu_bytes)
{
    uint64_t hash = peer_hash(stack, flow);
    stack->paths_until_us = stack->now_us + PMTU_LIFETIME_US;
    stack->paths[hash % PMTU_PATHS] = (struct pmtu_path){hash, stack->paths_until_us, mtu_bytes};
}

/* Smaller segments from now on; what is in flight from a position on may have been too large and is sent again. The
 * window stays: it was not congestion (RFC 1191 section 6.5). */
static bool shrink(struct stack *stack, struct tcb *tcb, uint32_t mtu_bytes, uint64_t from)
{
    uint32_t mss =
        mtu_bytes - tcb->ip_bytes - (uint32_t)sizeof(struct wire_tcp) - (tcb->timestamps ? TCP_TIMESTAMPS_BYTES : 0);
    if (mss >= tcb->mss)
        return false;
    tcb->mss = (uint16_t)mss;
    tcp_snd_mss_set(tcb);
    scoreboard_lose(stack, tcb, (uint32_t)from, (uint32_t)tcb->snd_nxt);
    tcb->dupacks = 0; /* they were for what is now taken for lost: none of it counts as in flight */
    tcb->rtt_end = 0;
    tcpip_ready(stack, tcb);
    return true;
}

/* Reads the quoted headers: 8 bytes of TCP are always there, RFC 792. The packet must have been ours. */
static bool read_quoted(const struct stack *stack, const struct packet *packet, struct quoted *quoted)
{
    const struct wire_icmp *icmp = (const struct wire_icmp *)packet->payload;
    const uint8_t *at = packet->payload + sizeof(*icmp);
    uint32_t left = packet->payload_bytes - (uint32_t)sizeof(*icmp);
    const struct wire_tcp *tcp;
    *quoted = (struct quoted){.flow = {.local = packet->local, .family = packet->family}};
    int local;
    if (packet->family == SSI_FAMILY_IPV4) {
        const struct wire_ipv4 *ip = (const struct wire_ipv4 *)at;
        uint32_t header_bytes = left >= sizeof(*ip) ? (ip->version_ihl & 15u) * 4 : 0;
        if (header_bytes < sizeof(*ip) || left < header_bytes + 8 || ip->protocol != IP_PROTOCOL_TCP)
            return false;
        local = stack_address_find(stack, SSI_FAMILY_IPV4, ip->source);
        memcpy(quoted->flow.peer, ip->destination, 4);
        tcp = (const struct wire_tcp *)(at + header_bytes);
        quoted->mtu_bytes = be32(icmp->rest) & 0xffff;
    } else {
        const struct wire_ipv6 *ip = (const struct wire_ipv6 *)at;
        if (left < sizeof(*ip) + 8 || ip->next_header != IP_PROTOCOL_TCP)
            return false;
        local = stack_address_find(stack, SSI_FAMILY_IPV6, ip->source);
        memcpy(quoted->flow.peer, ip->destination, 16);
        tcp = (const struct wire_tcp *)(ip + 1);
        quoted->mtu_bytes = be32(icmp->rest);
    }
    quoted->flow.peer_port = tcp->destination_port;
    quoted->seq = be32(tcp->seq);
    return local == packet->local && be16(tcp->source_port) == stack->config.tcp_port;
}

void pmtu_input(struct stack *stack, const struct packet *packet)
{
    struct quoted quoted;
    if (!read_quoted(stack, packet, &quoted)) {
        COUNT(stack, pmtu_drop_not_ours);
        return;
    }
    struct tcb *tcb = tcb_find(stack, &quoted.flow, tcb_hash(stack, &quoted.flow));
    uint64_t position = tcb != NULL ? seq_unwrap(quoted.seq, tcb->snd_una) : 0;
    /* Who has not seen our packets does not know what is in flight, RFC 5927 section 4.1. */
    if (tcb == NULL || position < tcb->snd_una || position >= tcb->snd_nxt) {
        COUNT(stack, pmtu_drop_not_in_flight);
        return;
    }
    uint32_t least = least_mtu(quoted.flow.family);
    uint32_t mtu_bytes = quoted.mtu_bytes > least ? quoted.mtu_bytes : least;
    /* Another connection to the peer may have learned it before: then it is news to this one alone. */
    bool less = mtu_bytes < pmtu_of(stack, &quoted.flow);
    if (less)
        remember(stack, &quoted.flow, mtu_bytes);
    if (shrink(stack, tcb, mtu_bytes, position) || less)
        COUNT(stack, pmtu_learned);
    else
        COUNT(stack, pmtu_drop_no_less);
}

void pmtu_interface(struct stack *stack)
{
    for (uint32_t i = 0; i < stack->config.max_connections; i++) {
        struct tcb *tcb = &stack->tcbs[i];
        if (tcb->state != 0)
            shrink(stack, tcb, stack->config.mtu_bytes, tcb->snd_una);
    }
}

void pmtu_black_hole(struct stack *stack, struct tcb *tcb)
{
    uint32_t mtu_bytes = PMTU_MIN_IPV6;
    if (tcb->retries < BLACK_HOLE_FIRST)
        return;
    if (tcb->retries >= BLACK_HOLE_SECOND)
        mtu_bytes = least_mtu(tcb->flow.family);
    if (shrink(stack, tcb, mtu_bytes, tcb->snd_una))
        COUNT(stack, pmtu_black_holes);
}
