/* A TCP segment from the packet to its connection, or to none. */
#include "tcp.h"
#include "wire/checksum.h"
#include "wire/seq.h"

/* Reads one option of len bytes (kind and length included). Those of a wrong length are ignored, RFC 9293 section 3.1. */
static void parse_option(struct tcp_options *options, const uint8_t *at, uint8_t len)
{
    switch (at[0]) {
    case TCP_OPTION_MSS:
        if (len == 4)
            options->mss = load_be16(at + 2);
        break;
    case TCP_OPTION_WINDOW_SCALE:
        if (len == 3)
            options->wscale = at[2] > TCP_WINDOW_SCALE_MAX ? TCP_WINDOW_SCALE_MAX : at[2];
        break;
    case TCP_OPTION_SACK_PERMITTED:
        options->sack_permitted = len == 2;
        break;
    case TCP_OPTION_SACK:
        for (uint32_t i = 0; i < 4 && len >= 2 + 8 * (i + 1); i++) {
            options->sacks[i][0] = load_be32(at + 2 + 8 * i);
            options->sacks[i][1] = load_be32(at + 6 + 8 * i);
            options->sack_count = i + 1;
        }
        break;
    case TCP_OPTION_TIMESTAMPS:
        if (len == 10) {
            options->timestamps = true;
            options->ts_value = load_be32(at + 2);
            options->ts_echo = load_be32(at + 6);
        }
        break;
    default:
        break;
    }
}

static void parse_options(struct tcp_options *options, const uint8_t *at, uint32_t bytes)
{
    *options = (struct tcp_options){.wscale = COOKIE_NO_WSCALE};
    if (bytes == TCP_TIMESTAMPS_BYTES && load_be32(at) == TCP_TIMESTAMPS_ALIGNED) {
        options->timestamps = true;
        options->ts_value = load_be32(at + 4);
        options->ts_echo = load_be32(at + 8);
        return;
    }
    const uint8_t *end = at + bytes;
    while (at < end && *at != TCP_OPTION_END) {
        if (*at == TCP_OPTION_NOP) {
            at++;
            continue;
        }
        if (end - at < 2 || at[1] < 2 || at[1] > end - at)
            return;
        parse_option(options, at, at[1]);
        at += at[1];
    }
}

/* It is whole (RFC 9293 section 3.1), the port vouches for it, or it is as a local sender leaves it for its NIC. */
bool tcp_checksum_good(const struct packet *packet)
{
    if ((packet->rx_flags & NMIO_RX_CHECKSUM_OK) != 0)
        return true;
    uint64_t sum = ip_pseudo_sum(packet, IP_PROTOCOL_TCP, packet->payload_bytes);
    uint16_t field = ((const struct wire_tcp *)packet->payload)->checksum;
    return checksum_fold(sum + checksum_sum(packet->payload, packet->payload_bytes)) == 0xffff ||
           ((packet->rx_flags & NMIO_RX_CHECKSUM_MAY_BE_PARTIAL) != 0 && field == checksum_fold(sum));
}

static bool parse_segment(struct stack *stack, const struct packet *packet, struct tcp_segment *segment)
{
    const struct wire_tcp *tcp = (const struct wire_tcp *)packet->payload;
    uint32_t header_bytes = packet->payload_bytes >= sizeof(*tcp) ? (tcp->offset >> 4) * 4u : 0;
    if (header_bytes < sizeof(*tcp) || header_bytes > packet->payload_bytes) {
        COUNT(stack, tcp_drop_short);
        return false;
    }
    if (!tcp_checksum_good(packet)) {
        COUNT(stack, tcp_drop_checksum);
        return false;
    }
    segment->seq = be32(tcp->seq);
    segment->ack = be32(tcp->ack);
    segment->window = be16(tcp->window);
    segment->flags = tcp->flags;
    segment->data = packet->payload + header_bytes;
    segment->data_bytes = packet->payload_bytes - header_bytes;
    parse_options(&segment->options, packet->payload + sizeof(*tcp), header_bytes - (uint32_t)sizeof(*tcp));
    return true;
}

/* Put together in registers, as it is read again at once in whole words: a load would have to wait for what several smaller
 * stores have left behind. */
static struct tcp_flow flow_of(const struct packet *packet)
{
    uint16_t port = ((const struct wire_tcp *)packet->payload)->source_port;
    uint64_t words[TCP_FLOW_WORDS] = {
        0, 0, in_word(port, 2, 0) | in_word(packet->local, 1, 2) | in_word(packet->family, 1, 3)};
    struct tcp_flow flow;
    if (packet->family == SSI_FAMILY_IPV4) {
        uint32_t source;
        memcpy(&source, ((const struct wire_ipv4 *)packet->ip)->source, sizeof(source));
        words[0] = in_word(source, sizeof(source), 0);
    } else {
        const uint8_t *source = ((const struct wire_ipv6 *)packet->ip)->source;
        words[0] = load64(source);
        words[1] = load64(source + 8);
    }
    memcpy(&flow, words, sizeof(flow));
    return flow;
}

#define QUIET_MS 500 /* as Linux's sysctl tcp_invalid_ratelimit */

/* A SYN that can't be the old connection's, by its sequence number or its timestamp, RFC 6191 section 2; after a reset any but
 * its own. The entry stays until the handshake is done, as anybody can send a SYN in another's name. */
static bool begins_another(const struct tcp_segment *segment, const struct time_wait *wait)
{
    if (wait->ended == ENDED_BY_RESET)
        return segment->seq != wait->irs;
    bool timestamps = wait->timestamps && segment->options.timestamps;
    if (timestamps && segment->options.ts_value != wait->ts_recent)
        return seq_lt(wait->ts_recent, segment->options.ts_value);
    return seq_lt(wait->rcv_nxt, segment->seq);
}

/* A segment in TIME-WAIT, as Linux has it: what is not exactly the peer's last ACK again is answered, and the wait begins
 * again. Of bare segments one in QUIET_MS is, or two stacks could answer each other for ever. */
static void time_wait_input(struct stack *stack, const struct packet *packet, const struct tcp_segment *segment,
                            struct time_wait *wait)
{
    uint32_t now_ms = (uint32_t)(stack->now_us / 1000);
    bool bare = tcp_is_bare(segment);
    if ((segment->flags & TCP_ACK) != 0)
        time_wait_restart(stack, wait);
    if (bare && (segment->seq == wait->rcv_nxt || seq_lt(now_ms, wait->quiet_until_ms)))
        return;
    if (bare)
        wait->quiet_until_ms = now_ms + QUIET_MS;
    tcp_reply_time_wait(stack, packet, wait);
}

/* What comes of a connection that has ended. */
static void ended_input(struct stack *stack, const struct packet *packet, const struct tcp_segment *segment,
                        struct time_wait *wait)
{
    COUNT(stack, tcp_rx_late);
    if (wait->ended == ENDED_BY_US)
        time_wait_input(stack, packet, segment, wait);
    else if (wait->ended == ENDED_BY_RESET)
        tcp_reply_rst(stack, packet, segment);
    else if (!tcp_is_bare(segment))
        tcp_reply_time_wait(stack, packet, wait);
}

/* Does a segment without SYN belong to the connection that has ended? It does if its good cookie is that one's, as no other
 * begins with the same sequence number, or an earlier one's; one that has overtaken the first of another lies elsewhere. */
static bool is_late(const struct tcp_segment *segment, const struct time_wait *wait, enum cookie_verdict verdict)
{
    uint32_t there = segment->seq - wait->irs, had = wait->rcv_nxt - wait->irs;
    if (verdict == COOKIE_GOOD)
        return there == 1 || !begins_another(segment, wait);
    return verdict == COOKIE_BAD || there <= had + TCB_REQUEST_BYTES;
}

/* RFC 9293 section 3.10.7.4: a reset ends TIME-WAIT, if it is exact as RFC 5961 asks. RFC 1337 would have it ignored; but
 * so says a client that knows nothing of the connection and wants the port for another, and else it were kept out. */
static void time_wait_reset(struct stack *stack, uint64_t hash, const struct tcp_segment *segment)
{
    struct time_wait *wait = time_wait_find(stack, hash);
    if (wait != NULL && segment->seq == wait->rcv_nxt)
        wait->ended = ENDED_BY_RESET; /* and still remembered: a reset can be repeated too */
}

static struct tcb *open_connection(struct stack *stack, const struct packet *packet, const struct tcp_flow *flow,
                                   uint64_t hash, const struct tcp_segment *segment, const struct cookie *cookie)
{
    if (stack->tcb_free_count == 0)
        tcp_evict_idle(stack);
    struct tcb *tcb = tcb_create(stack, flow, hash);
    if (tcb == NULL) {
        /* Dropped, not refused: the peer sends again, and the cookie is still good when there is room. */
        COUNT(stack, tcp_drop_pool_full);
        return NULL;
    }
    tcb->timestamps = cookie->timestamps;
    tcb->sack = cookie->sack;
    tcb->ecn = cookie->ecn;
    if (tcb->ecn)
        COUNT(stack, tcp_ecn_opened);
    tcb->snd_wscale = cookie->wscale == COOKIE_NO_WSCALE ? 0 : cookie->wscale;
    tcb->ts_offset = cookie->ts_offset;
    tcb->ts_recent = segment->options.ts_value;
    /* Positions start far above zero, so that none below them can be negative. */
    tcb->snd_una = (1ull << 32) + segment->ack;
    tcb->irs = segment->seq - 1;
    tcb->opened_s = (uint32_t)(stack->now_us / 1000000);
    tcb->rcv_nxt = segment->seq;
    tcp_connection_start(stack, tcb, packet, cookie->mss, segment);
    if (tcb->timestamps) /* the cookie's timestamp is up to 63 ms old */
        recovery_rtt_guess(tcb, 1000ull * (tcp_ts_clock(stack, tcb->ts_offset) - segment->options.ts_echo + 1));
    return tcb;
}

static void syn_input(struct stack *stack, const struct packet *packet, const struct tcp_flow *flow,
                      struct tcp_segment *segment)
{
    const uint8_t setup = TCP_ECE | TCP_CWR;
    COUNT(stack, tcp_rx_syn);
    /* Only the timestamp has room to remember it by. */
    segment->options.ecn = segment->options.timestamps && (segment->flags & setup) == setup;
    if (stack->draining)
        COUNT(stack, tcp_drop_draining);
    else
        tcp_reply_syn_ack(stack, packet, flow, segment);
}

/* A segment for which there is no TCB. */
static void stateless_input(struct stack *stack, const struct packet *packet, const struct tcp_flow *flow,
                            uint64_t hash, struct tcp_segment *segment)
{
    if ((segment->flags & TCP_RST) != 0)
        time_wait_reset(stack, hash, segment);
    if ((segment->flags & TCP_RST) != 0 || (segment->flags & (TCP_SYN | TCP_ACK)) == 0) {
        COUNT(stack, tcp_drop_no_connection);
        return;
    }
    struct time_wait *wait = time_wait_find(stack, hash);
    if ((segment->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN) {
        if (wait != NULL && !begins_another(segment, wait))
            ended_input(stack, packet, segment, wait);
        else
            syn_input(stack, packet, flow, segment);
        return;
    }
    struct cookie cookie;
    bool syn = (segment->flags & TCP_SYN) != 0;
    enum cookie_verdict verdict = syn ? COOKIE_BAD : cookie_check(stack, flow, segment, &cookie);
    if (wait != NULL && is_late(segment, wait, verdict)) {
        ended_input(stack, packet, segment, wait);
        return;
    }
    if (verdict == COOKIE_EARLY) {
        COUNT(stack, tcp_drop_cookie_early);
        return;
    }
    if (verdict == COOKIE_BAD) {
        COUNT(stack, tcp_drop_cookie);
        tcp_reply_rst(stack, packet, segment);
        return;
    }
    struct tcb *tcb = open_connection(stack, packet, flow, hash, segment, &cookie);
    if (tcb == NULL)
        return;
    if (wait != NULL)
        wait->expires_us = 0; /* or what follows would be taken for the old one's */
    tcpip_fsm(stack, tcb, packet, segment);
}

struct stack_ahead tcp_prefetch_entry(const struct stack *stack, const struct nmio_rx *rx)
{
    struct stack_ahead ahead = {0, NULL, 0, 0};
    struct packet packet = {.ip = rx->data + sizeof(struct wire_eth)};
    if (rx->len_bytes < sizeof(struct wire_eth) + sizeof(struct wire_ipv6) + sizeof(struct wire_tcp))
        return ahead;
    const struct wire_eth *eth = (const struct wire_eth *)rx->data;
    const struct wire_ipv4 *v4 = (const struct wire_ipv4 *)packet.ip;
    const struct wire_ipv6 *v6 = (const struct wire_ipv6 *)packet.ip;
    bool is_v4 = eth->type == be16(ETH_TYPE_IPV4) && v4->version_ihl == 0x45;
    if (!is_v4 && eth->type != be16(ETH_TYPE_IPV6))
        return ahead;
    packet.family = is_v4 ? SSI_FAMILY_IPV4 : SSI_FAMILY_IPV6;
    packet.payload = packet.ip + (is_v4 ? sizeof(*v4) : sizeof(*v6));
    int local = stack_address_find(stack, packet.family, is_v4 ? v4->destination : v6->destination);
    packet.local = (uint8_t)local;
    struct tcp_flow flow = flow_of(&packet);
    ahead.flow_hash = tcb_hash(stack, &flow);
    __builtin_prefetch(&stack->table[ahead.flow_hash & stack->table_mask]);
    ahead.data = packet.payload + (((const struct wire_tcp *)packet.payload)->offset >> 4) * 4;
    const uint8_t *end = rx->data + rx->len_bytes; /* padding may be in front of it */
    ahead.data_bytes = ahead.data < end ? (uint32_t)(end - ahead.data) : 0;
    return ahead;
}

void tcp_prefetch_tcb(const struct stack *stack, uint64_t hash)
{
    const struct tcb_entry *entry = &stack->table[hash & stack->table_mask];
    if (entry->index != TCB_NONE && entry->hash == (uint32_t)hash)
        tcb_prefetch(&stack->tcbs[entry->index]);
}

void tcp_input(struct stack *stack, const struct packet *packet)
{
    struct tcp_segment segment;
    COUNT(stack, tcp_rx_segments);
    if (!parse_segment(stack, packet, &segment))
        return;
    const struct wire_tcp *tcp = (const struct wire_tcp *)packet->payload;
    if (be16(tcp->destination_port) != stack->config.tcp_port) {
        COUNT(stack, tcp_drop_port);
        if (stack->config.own_address && (segment.flags & TCP_RST) == 0)
            tcp_reply_rst(stack, packet, &segment);
        return;
    }
    uint8_t both = TCP_SYN | TCP_FIN;
    if ((segment.flags & both) == both) {
        COUNT(stack, tcp_drop_flags);
        return;
    }
    struct tcp_flow flow = flow_of(packet);
    uint64_t hash = tcb_hash(stack, &flow);
    struct tcb *tcb = tcb_find(stack, &flow, hash);
    if (tcb != NULL)
        tcpip_fsm(stack, tcb, packet, &segment);
    else
        stateless_input(stack, packet, &flow, hash, &segment);
}
