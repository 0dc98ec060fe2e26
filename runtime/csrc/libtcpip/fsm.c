/* The connection's state machine, RFC 9293 section 3.10.7.4, from ESTABLISHED on. */
#include "tcp.h"
#include "wire/checksum.h"
#include "wire/probe.h"
#include "wire/seq.h"

#define CHALLENGE_INTERVAL_US 500000 /* of one connection, as Linux: two stacks must not answer each other for ever */

/* Ethernet, IP and ports as all segments of the connection begin, and the sums of what never changes in them. */
static void header_template(const struct stack *stack, struct tcb *tcb, const struct packet *packet)
{
    struct wire_tcp ports = {.source_port = be16(stack->config.tcp_port), .destination_port = tcb->flow.peer_port};
    uint8_t *tcp = ip_reply_headers((struct stack *)(uintptr_t)stack, packet, tcb->header, IP_PROTOCOL_TCP, 0);
    memcpy(tcp, &ports, 4);
    tcb->ip_bytes = (uint8_t)(tcp - tcb->header - (ptrdiff_t)sizeof(struct wire_eth));
    if (packet->family == SSI_FAMILY_IPV4) {
        struct wire_ipv4 *ip = (struct wire_ipv4 *)(tcb->header + sizeof(struct wire_eth));
        ip->total_bytes = 0;
        ip->checksum = 0;
        tcb->ip_sum = checksum_sum(ip, sizeof(*ip));
    }
    tcb->pseudo_sum = ip_pseudo_sum(packet, IP_PROTOCOL_TCP, 0);
}

void tcp_connection_start(struct stack *stack, struct tcb *tcb, const struct packet *packet, uint16_t mss,
                          const struct tcp_segment *segment)
{
    header_template(stack, tcb, packet);
    uint32_t path_mss = pmtu_of(stack, &tcb->flow) - tcb->ip_bytes - (uint32_t)sizeof(struct wire_tcp);
    uint32_t options = tcb->timestamps ? TCP_TIMESTAMPS_BYTES : 0;
    uint32_t largest = (mss < path_mss ? mss : path_mss) - options;
    uint32_t segment_bytes = stack->image->header->segment_bytes;
    tcb->mss = (uint16_t)(largest < segment_bytes ? largest : segment_bytes);
    tcp_state_set(tcb, TCP_ESTABLISHED);
    tcb->snd_nxt = tcb->snd_end = tcb->snd_una;
    tcb->rack_fack = tcb->rack.end = (uint32_t)tcb->snd_una;
    tcb->recover = tcb->snd_una;
    tcb->snd_wnd = tcb->snd_wnd_max = segment->window << tcb->snd_wscale;
    tcp_snd_mss_set(tcb);
    tcb->snd_wl1 = segment->seq;
    tcb->snd_wl2 = segment->ack;
    tcb->last_ack_sent = tcb->rcv_nxt;
    tcb->rto_us = TCP_RTO_INITIAL_US;
    tcb->last_sent_us = stack->now_us;
    congestion_init(stack, tcb);
    PROBE(tcp_connection_start, tcb, tcb->mss);
    tcb->request_begun = true;
    tcb->progress_us = stack->now_us;
    tcb->idle_deadline_us = stack->now_us + stack->config.request_ms * 1000ull;
    timer_update(stack, tcb);
}

void tcpip_ready(struct stack *stack, struct tcb *tcb)
{
    if (tcb->ready)
        return;
    uint32_t index = (uint32_t)(tcb - stack->tcbs);
    tcb->ready = true;
    tcb->turn_bytes = TCB_TURN_BYTES;
    tcb->ready_next = TCB_NONE;
    if (stack->ready_first == TCB_NONE)
        stack->ready_first = index;
    else
        stack->tcbs[stack->ready_last].ready_next = index;
    stack->ready_last = index;
}

void tcp_abort(struct stack *stack, struct tcb *tcb)
{
    tcp_send_rst(stack, tcb);
    time_wait_add(stack, tcb, ENDED_BY_RESET);
    tcb_destroy(stack, tcb);
}

#define EVICTION_LOOKED_AT 64 /* connections, so that pressure costs no more than this */

/* Which connection had better go: less is better. 0: it must not. */
static uint64_t worth(const struct tcb *tcb)
{
    bool idle = tcb->state == TCP_FIN_WAIT_2 ||
                (tcb->state == TCP_ESTABLISHED && tcb->snd_una == tcb->snd_end && !tcb->fin_queued);
    if (!idle)
        return 0;
    return tcb->progress_us + (tcb->request != TCB_NONE ? 1ull << 62 : 1); /* half requests after all the others */
}

void tcp_evict_idle(struct stack *stack)
{
    struct tcb *victim = NULL;
    uint64_t least = UINT64_MAX;
    for (uint32_t i = 0; i < EVICTION_LOOKED_AT && i < stack->config.max_connections; i++) {
        struct tcb *tcb = &stack->tcbs[stack->tcb_hand];
        stack->tcb_hand = (stack->tcb_hand + 1) % stack->config.max_connections;
        uint64_t its = tcb->state != 0 ? worth(tcb) : 0;
        if (its != 0 && its < least) {
            victim = tcb;
            least = its;
        }
    }
    if (victim == NULL)
        return;
    COUNT(stack, tcp_evicted_idle);
    tcp_abort(stack, victim);
}

static void acknowledge(struct stack *stack, struct tcb *tcb)
{
    tcb->ack_now = true;
    tcpip_ready(stack, tcb);
}

/* An ACK that can't wait for data to go along with, as it carries SACK blocks. */
static void acknowledge_at_once(struct stack *stack, struct tcb *tcb)
{
    tcb->ack_now = true;
    tcp_send_ack(stack, tcb);
    if (tcb->ack_now)
        tcpip_ready(stack, tcb); /* there was no space */
}

/* RFC 5961 section 7: a limit for each connection, so that we can't be made to flood, and none for all (limit.h). */
static void challenge(struct stack *stack, struct tcb *tcb)
{
    if (stack->now_us < tcb->challenge_after_us) {
        COUNT(stack, tcp_drop_challenge_limit);
        return;
    }
    tcb->challenge_after_us = stack->now_us + CHALLENGE_INTERVAL_US;
    COUNT(stack, tcp_tx_challenge_ack);
    acknowledge(stack, tcb);
}

bool tcpip_can_write(const struct tcb *tcb)
{
    return tcb->span_count <= tcb->span_mask && !tcb->fin_queued;
}

void tcpip_write(struct stack *stack, struct tcb *tcb, const struct tcp_span *span, uint64_t len_bytes)
{
    PROBE(tcpip_write, tcb, len_bytes);
    struct tcp_span *slot = tcb_span(tcb, tcb->span_count++);
    *slot = *span;
    slot->start = tcb->snd_end;
    slot->end = tcb->snd_end + len_bytes;
    tcb->snd_end = slot->end;
    tcpip_ready(stack, tcb);
}

void tcpip_finish(struct stack *stack, struct tcb *tcb)
{
    tcb->fin_queued = true;
    tcpip_ready(stack, tcb);
}

/* Is a request half read, its body included? What the application keeps of a connection is nothing between requests. */
static bool is_reading(const struct stack *stack, const struct tcb *tcb)
{
    return tcb->span_count == 0 &&
           (tcb->request != TCB_NONE || (tcb->app != 0 && !stack->config.app->is_writing(tcb)));
}

/* A request or its answer goes on. For a request silence is reckoned from its first byte on. Which limit it is that any other
 * silence has is seen when the shortest of them has passed: so here nothing is set. Always inline: each request goes through
 * it twice. */
__attribute__((always_inline)) static inline void idle_restart(struct stack *stack, struct tcb *tcb)
{
    bool reading = is_reading(stack, tcb);
    if (reading && tcb->request_begun)
        return;
    tcb->request_begun = reading;
    tcb->progress_us = stack->now_us;
    if (reading) {
        tcb->idle_deadline_us = stack->now_us + stack->config.request_ms * 1000ull;
        timer_update(stack, tcb);
    }
}

/* Bytes that come in parts, or behind our last answer; the first of them have been used. */
static __attribute__((noinline)) void recv_parts(struct stack *stack, struct tcb *tcb, const uint8_t *data,
                                                 uint32_t used_bytes, uint32_t len_bytes)
{
    uint32_t taken = used_bytes;
    if (used_bytes < len_bytes && !tcb->fin_queued)
        taken += request_append(stack, tcb, data + used_bytes, len_bytes - used_bytes);
    tcb->rcv_nxt += taken - used_bytes;
    if (tcb->request != TCB_NONE)
        request_join(stack, tcb, &tcb->dsack);
    while (tcb->request_len > 0 && !tcb->fin_queued) {
        uint32_t consumed = stack->config.app->receive(stack, tcb, request_bytes(stack, tcb), tcb->request_len);
        if (consumed == 0)
            break;
        request_consume(stack, tcb, consumed);
    }
    if (tcb->fin_queued) {
        /* Nothing more is answered: read and forgotten, so that the peer comes to read our answer and FIN, and gets no
         * reset. The window opens, or it could not send on. */
        request_release(stack, tcb);
        tcb->rcv_nxt += len_bytes - taken;
    }
    /* After the peer's FIN a request half read will never be whole. */
    if (tcb->fin_received && !tcb->fin_queued && tcpip_can_write(tcb))
        tcpip_finish(stack, tcb);
    request_sort(stack, tcb);
}

static void discard(struct stack *stack, struct tcb *tcb, uint32_t len_bytes)
{
    if (len_bytes > 0)
        COUNT(stack, tcp_drop_after_close);
    tcb->rcv_nxt += len_bytes;
    tcb->unread_bytes += len_bytes;
}

/* In order data; len_bytes 0: only what is buffered. A request that arrives whole is parsed where it lies. */
void tcpip_recv(struct stack *stack, struct tcb *tcb, const uint8_t *data, uint32_t len_bytes)
{
    uint32_t taken = 0;
    bool sending = tcb->snd_una < tcb->snd_end;
    if (tcb->fin_queued) {
        discard(stack, tcb, len_bytes);
        return;
    }
    if (tcb->request == TCB_NONE && len_bytes > 0)
        taken = stack->config.app->receive(stack, tcb, data, len_bytes);
    tcb->rcv_nxt += taken;
    if (taken < len_bytes || tcb->request != TCB_NONE || tcb->fin_received)
        recv_parts(stack, tcb, data, taken, len_bytes);
    if (!sending) /* else progress is what the peer takes, not what it sends */
        idle_restart(stack, tcb);
}

static void enter_time_wait(struct stack *stack, struct tcb *tcb)
{
    tcp_send_ack(stack, tcb);
    COUNT(stack, tcp_time_wait);
    time_wait_add(stack, tcb, ENDED_BY_US);
    tcb_destroy(stack, tcb);
}

/* Our FIN is acknowledged. False: the connection is gone. */
static bool fin_acked(struct stack *stack, struct tcb *tcb)
{
    switch (tcb->state) {
    case TCP_FIN_WAIT_1:
        tcp_state_set(tcb, TCP_FIN_WAIT_2);
        tcb->progress_us = stack->now_us;
        tcb->idle_deadline_us = stack->now_us + TCP_FIN_WAIT_2_US;
        timer_update(stack, tcb);
        return true;
    case TCP_CLOSING:
        enter_time_wait(stack, tcb);
        return false;
    case TCP_LAST_ACK:
        time_wait_add(stack, tcb, ENDED_BY_PEER);
        tcb_destroy(stack, tcb);
        return false;
    default:
        return true;
    }
}

static void release_spans(struct stack *stack, struct tcb *tcb)
{
    while (tcb->span_count > 0 && tcb_span(tcb, 0)->end <= tcb->snd_una) {
        composed_span_release(stack, tcb_span(tcb, 0));
        tcb->span_first = (uint8_t)((tcb->span_first + 1) & tcb->span_mask);
        tcb->span_count--;
    }
    if (tcb->span_count == 0) {
        tcb->span_first = 0; /* the place that is in the cache */
        span_ring_release(stack, tcb);
    }
}

/* New data is acknowledged. False: the connection is gone. */
static bool ack_advance(struct stack *stack, struct tcb *tcb, uint64_t ack)
{
    bool fin_sent = tcb->snd_nxt > tcb->snd_end;
    tcb->snd_una = ack;
    release_spans(stack, tcb);
    if (tcb->snd_nxt > ack)
        recovery_arm(stack, tcb, true);
    else
        recovery_disarm(tcb);
    tcpip_ready(stack, tcb);
    if (fin_sent && ack > tcb->snd_end && !fin_acked(stack, tcb))
        return false;
    /* Unread requests go on, and behind the last of them our FIN if the peer's has come. */
    if ((tcb->request != TCB_NONE || tcb->fin_received) && tcpip_can_write(tcb))
        tcpip_recv(stack, tcb, NULL, 0);
    idle_restart(stack, tcb);
    return true;
}

static void window_update(struct stack *stack, struct tcb *tcb, const struct tcp_segment *segment)
{
    bool newer =
        seq_lt(tcb->snd_wl1, segment->seq) || (tcb->snd_wl1 == segment->seq && seq_leq(tcb->snd_wl2, segment->ack));
    if (!newer)
        return;
    tcb->snd_wnd = segment->window << tcb->snd_wscale;
    if (tcb->snd_wnd > tcb->snd_wnd_max) {
        tcb->snd_wnd_max = tcb->snd_wnd;
        tcp_snd_mss_set(tcb);
    }
    tcb->snd_wl1 = segment->seq;
    tcb->snd_wl2 = segment->ack;
    tcpip_ready(stack, tcb);
}

/* RFC 9293's check of the ACK field with RFC 5961 section 5.2: of what has been sent, and no further behind than the largest
 * window. Who sees nothing of the connection must guess it. */
static bool ack_acceptable(struct stack *stack, struct tcb *tcb, uint64_t ack)
{
    if (ack <= tcb->snd_nxt && ack + tcb->snd_wnd_max >= tcb->snd_una)
        return true;
    COUNT(stack, tcp_drop_ack_unacceptable);
    challenge(stack, tcb);
    return false;
}

/* What an acceptable ACK says. False: the connection is gone. */
static bool ack_input(struct stack *stack, struct tcb *tcb, const struct tcp_segment *segment, uint64_t ack)
{
    uint32_t old_window = tcb->snd_wnd;
    if (ack >= tcb->snd_una)
        window_update(stack, tcb, segment);
    if (tcb->snd_nxt == tcb->snd_una)
        tcb->retries = 0; /* a window probe was answered: the peer lives, RFC 9293 section 3.8.6.1 */
    bool late = ack < tcb->snd_una; /* another has overtaken it, but what it SACKs is SACKed */
    if (late && segment->options.sack_count == 0)
        return true;
    bool repeated = ack == tcb->snd_una && segment->data_bytes == 0 && tcb->snd_wnd == old_window &&
                    (segment->flags & TCP_FIN) == 0;
    recovery_ack(stack, tcb, segment, late ? tcb->snd_una : ack, repeated);
    if (ack > tcb->snd_una)
        return ack_advance(stack, tcb, ack);
    recovery_rearm(stack, tcb);
    tcpip_ready(stack, tcb);
    return true;
}

/* The peer's FIN, in order. */
static void fin_input(struct stack *stack, struct tcb *tcb)
{
    tcb->rcv_nxt++;
    tcb->fin_received = true;
    tcb->ack_now = true;
    tcpip_ready(stack, tcb);
    switch (tcb->state) {
    case TCP_ESTABLISHED:
        tcp_state_set(tcb, TCP_CLOSE_WAIT);
        tcpip_recv(stack, tcb, NULL, 0);
        break;
    case TCP_FIN_WAIT_1:
        tcp_state_set(tcb, TCP_CLOSING);
        break;
    case TCP_FIN_WAIT_2:
        enter_time_wait(stack, tcb);
        break;
    default:
        break;
    }
}

/* Data that came ahead of what is in front of it: kept, RFC 9293 section 3.10.7.4 (SHLD-31), unless nothing more is read. */
static void out_of_order_input(struct stack *stack, struct tcb *tcb, const struct tcp_segment *segment)
{
    struct request_range range = {segment->seq, segment->seq + segment->data_bytes};
    bool held = segment->data_bytes > 0 && !tcb->fin_queued && !tcb->fin_received &&
                request_hold(stack, tcb, range, segment->data, &tcb->dsack);
    if (held)
        COUNT(stack, tcp_rx_out_of_order);
    else
        COUNT(stack, tcp_drop_out_of_order);
    if (held && tcb->snd_una == tcb->snd_end)
        idle_restart(stack, tcb);
    acknowledge_at_once(stack, tcb);
}

/* Has something come ahead that is still held, or twice? */
static bool has_sack_blocks(const struct stack *stack, const struct tcb *tcb)
{
    return tcb->dsack.start != tcb->dsack.end ||
           (tcb->request != TCB_NONE && stack->request_buffers[tcb->request].range_count > 0);
}

static void text_input(struct stack *stack, struct tcb *tcb, const struct tcp_segment *segment)
{
    uint32_t skip = tcb->rcv_nxt - segment->seq; /* what we already have */
    uint32_t new_bytes = segment->data_bytes - skip;
    uint32_t expected = tcb->rcv_nxt + new_bytes;
    bool fin = (segment->flags & TCP_FIN) != 0;
    if (tcb->fin_received)
        return;
    if (skip > 0)
        tcb->dsack = (struct request_range){segment->seq, tcb->rcv_nxt};
    if (new_bytes > 0) {
        tcb->ack_now = true;
        tcpip_ready(stack, tcb);
        tcpip_recv(stack, tcb, segment->data + skip, new_bytes);
    }
    if (tcb->fin_queued && tcb->unread_bytes > TCP_LINGER_BYTES) {
        COUNT(stack, tcp_drop_linger);
        tcp_abort(stack, tcb);
        return;
    }
    if (fin && tcb->rcv_nxt == expected)
        fin_input(stack, tcb);
    else if ((skip > 0 || tcb->request != TCB_NONE) && new_bytes > 0 && has_sack_blocks(stack, tcb))
        acknowledge_at_once(stack, tcb);
}

/* RFC 9293 section 3.10.7.4, first check. */
static bool sequence_acceptable(struct stack *stack, struct tcb *tcb, const struct tcp_segment *segment)
{
    uint32_t len = segment->data_bytes + ((segment->flags & TCP_FIN) != 0);
    uint32_t window = TCB_REQUEST_BYTES - tcb->request_len;
    int32_t ahead = seq_diff(segment->seq, tcb->rcv_nxt);
    bool beyond = ahead > 0 && (uint32_t)ahead >= window;
    bool behind = ahead < 0 && seq_leq(segment->seq + len, tcb->rcv_nxt);
    if (!beyond && !behind)
        return true;
    if (behind && segment->data_bytes > 0)
        COUNT(stack, tcp_rx_duplicate);
    else
        COUNT(stack, tcp_drop_out_of_window);
    if ((segment->flags & TCP_RST) != 0)
        return false;
    if (behind && segment->data_bytes > 0)
        tcb->dsack = (struct request_range){segment->seq, segment->seq + segment->data_bytes};
    if (behind && len > 0)
        acknowledge_at_once(stack, tcb); /* sent again, since our ACK was lost */
    else
        challenge(stack, tcb);
    return false;
}

/* An ACK that a later one has overtaken on the way. RFC 7323 section 5.3 wants an ACK for it, but that would be a duplicate ACK
 * to the peer; Linux doesn't either. */
static bool is_overtaken(const struct tcb *tcb, const struct tcp_segment *segment)
{
    return tcp_is_bare(segment) && segment->seq == tcb->rcv_nxt && seq_leq(segment->ack, (uint32_t)tcb->snd_una);
}

/* PAWS, RFC 7323 section 5.3 R1. */
static bool timestamp_acceptable(struct stack *stack, struct tcb *tcb, const struct tcp_segment *segment)
{
    if (seq_lt(segment->options.ts_value, tcb->ts_recent) && (segment->flags & TCP_RST) == 0) {
        COUNT(stack, tcp_drop_paws);
        if (!is_overtaken(tcb, segment))
            challenge(stack, tcb);
        return false;
    }
    return true;
}

/* RFC 7323 section 4.3 (2). Only of segments within the window whose ACK is good, and so never of a reset or of a guess: else
 * one who sees nothing could set it ahead, and PAWS would refuse all that the peer still sends (CVE-2005-0356). */
static void timestamp_record(struct tcb *tcb, const struct tcp_segment *segment)
{
    if (seq_leq(segment->seq, tcb->last_ack_sent))
        tcb->ts_recent = segment->options.ts_value;
}

/* Routes change: answers go where the last good segment came from. */
static void peer_address_record(struct tcb *tcb, const struct packet *packet)
{
    const uint8_t *source = ((const struct wire_eth *)packet->frame)->source;
    if (memcmp(tcb->header, source, ETH_ADDRESS_BYTES) != 0) /* what is sent soon would have to wait for the store */
        memcpy(tcb->header, source, ETH_ADDRESS_BYTES);
}

/* RFC 3168 section 6.1.2: the peer says that a router has marked what we sent. As a loss, once for a window. */
static void ecn_reduce(struct stack *stack, struct tcb *tcb)
{
    if (tcb->in_recovery || tcb->snd_una < tcb->ecn_end)
        return;
    COUNT(stack, tcp_ecn_reductions);
    congestion_lost(stack, tcb);
    tcb->cwnd = tcb->ssthresh;
    tcb->ecn_end = tcb->snd_nxt;
    tcb->ecn_flags |= TCP_CWR;
}

/* RFC 3168 section 6.1.3: what came to us was marked, which the peer hears until it says that it has. */
static void ecn_input(struct stack *stack, struct tcb *tcb, const struct packet *packet,
                      const struct tcp_segment *segment)
{
    if ((segment->flags & TCP_CWR) != 0)
        tcb->ecn_flags &= (uint8_t)~TCP_ECE;
    if (segment->data_bytes > 0 && ip_ecn(packet) == IP_ECN_CE) {
        COUNT(stack, tcp_rx_ce);
        tcb->ecn_flags |= TCP_ECE;
    }
    if ((segment->flags & TCP_ECE) != 0)
        ecn_reduce(stack, tcb);
}

/* RFC 5961 section 3.2: only the exact next sequence number resets. */
static void reset_input(struct stack *stack, struct tcb *tcb, const struct tcp_segment *segment)
{
    COUNT(stack, tcp_rx_rst);
    if (segment->seq == tcb->rcv_nxt) {
        time_wait_add(stack, tcb, ENDED_BY_RESET);
        tcb_destroy(stack, tcb);
    } else {
        challenge(stack, tcb);
    }
}

void tcpip_fsm(struct stack *stack, struct tcb *tcb, const struct packet *packet, struct tcp_segment *segment)
{
    PROBE(tcpip_fsm, tcb, tcb->state, segment->flags, segment->data_bytes);
    bool stamped = tcb->timestamps && segment->options.timestamps;
    if ((stamped && !timestamp_acceptable(stack, tcb, segment)) || !sequence_acceptable(stack, tcb, segment))
        return;
    if ((segment->flags & TCP_RST) != 0) {
        reset_input(stack, tcb, segment);
        return;
    }
    if ((segment->flags & TCP_SYN) != 0) { /* RFC 5961 section 4.2 */
        challenge(stack, tcb);
        return;
    }
    if ((segment->flags & TCP_ACK) == 0) {
        COUNT(stack, tcp_drop_no_ack);
        return;
    }
    uint64_t ack = seq_unwrap(segment->ack, tcb->snd_una);
    if (!ack_acceptable(stack, tcb, ack))
        return;
    peer_address_record(tcb, packet);
    if (stamped && ack >= tcb->snd_una)
        timestamp_record(tcb, segment);
    if (tcb->ecn)
        ecn_input(stack, tcb, packet, segment);
    if (!ack_input(stack, tcb, segment, ack))
        return;
    if (segment->data_bytes == 0 && (segment->flags & TCP_FIN) == 0)
        return;
    if (seq_lt(tcb->rcv_nxt, segment->seq)) {
        out_of_order_input(stack, tcb, segment);
        return;
    }
    text_input(stack, tcb, segment);
}

void tcpip_give_up(struct stack *stack, struct tcb *tcb, bool request_begun)
{
    stack->config.app->timeout(stack, tcb, request_begun);
    tcpip_finish(stack, tcb);
    request_release(stack, tcb);
    tcb->request_begun = false;
    tcb->progress_us = stack->now_us;
    tcb->idle_deadline_us = stack->now_us + stack->config.send_ms * 1000ull;
    timer_update(stack, tcb);
}

/* How long a connection may make no progress, by what it is about; and what is counted when it does not. */
static uint64_t silence_us(const struct stack *stack, const struct tcb *tcb, enum counter *counter)
{
    const struct stack_config *config = &stack->config;
    bool sending = tcb->snd_una < tcb->snd_end;
    if (tcb->state == TCP_FIN_WAIT_2) {
        *counter = COUNTER_tcp_timeout_fin_wait;
        return TCP_FIN_WAIT_2_US;
    }
    if (sending || tcb->fin_queued || tcb->state != TCP_ESTABLISHED) {
        *counter = COUNTER_tcp_timeout_send;
        return config->send_ms * 1000ull;
    }
    *counter = tcb->request_begun ? COUNTER_tcp_timeout_request : COUNTER_tcp_timeout_idle;
    return (tcb->request_begun ? config->request_ms : config->keep_alive_ms) * 1000ull;
}

/* Perhaps there has been no progress for too long. */
static void idle_timeout(struct stack *stack, struct tcb *tcb)
{
    enum counter counter;
    uint64_t until_us = tcb->progress_us + silence_us(stack, tcb, &counter);
    uint64_t check_us = stack->now_us + stack->idle_check_us; /* by then it may be about something else */
    if (until_us > stack->now_us) {
        tcb->idle_deadline_us = until_us < check_us ? until_us : check_us;
        timer_update(stack, tcb);
        return;
    }
    PROBE(idle_timeout, tcb, tcb->state);
    stack->counters[counter]++;
    if (counter == COUNTER_tcp_timeout_send || counter == COUNTER_tcp_timeout_fin_wait)
        tcp_abort(stack, tcb);
    else
        tcpip_give_up(stack, tcb, tcb->request != TCB_NONE);
}

/* The window is shut, or too small for a segment that is worth it: the peer is asked, or gets what fits, RFC 9293 sections
 * 3.8.6.1 and 3.8.6.2.1. */
static void persist_timeout(struct stack *stack, struct tcb *tcb)
{
    if (++tcb->retries > TCP_RETRIES_MAX) {
        COUNT(stack, tcp_timeout_retransmit);
        tcp_abort(stack, tcb);
        return;
    }
    if (tcb->persist_backoff < TCP_PERSIST_BACKOFF_MAX)
        tcb->persist_backoff++;
    if (tcb->snd_wnd == 0)
        tcp_send_probe(stack, tcb);
    else
        tcb->persist_now = true;
    recovery_persist(stack, tcb);
    tcpip_ready(stack, tcb);
}

/* The timer of what is in flight. */
static void transmission_timeout(struct stack *stack, struct tcb *tcb)
{
    bool rto = tcb->timer_kind == TCP_TIMER_RTO;
    if (rto) {
        if (++tcb->retries > TCP_RETRIES_MAX) {
            COUNT(stack, tcp_timeout_retransmit);
            tcp_abort(stack, tcb);
            return;
        }
        tcb->rto_us = tcb->rto_us * 2 > TCP_RTO_MAX_US ? TCP_RTO_MAX_US : tcb->rto_us * 2;
    }
    recovery_timeout(stack, tcb);
    /* A probe may have been put off to when the RTO was due: then that has had its turn. */
    recovery_arm(stack, tcb, rto || tcb->rto_at_us <= stack->now_us);
    tcpip_ready(stack, tcb);
}

void tcpip_timeout(struct stack *stack, struct tcb *tcb)
{
    if (tcb->paced && tcb->pace_at_us <= stack->now_us) {
        tcb->paced = false;
        timer_update(stack, tcb);
        tcpip_ready(stack, tcb);
    } else if (tcb->rto_deadline_us == 0 || tcb->rto_deadline_us > stack->now_us) {
        idle_timeout(stack, tcb);
    } else if (tcb->timer_kind == TCP_TIMER_PERSIST) {
        persist_timeout(stack, tcb);
    } else {
        transmission_timeout(stack, tcb);
    }
}
