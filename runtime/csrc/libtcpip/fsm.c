#include "fsm.h"

#include "carried.h"
#include "connection.h"
#include "output.h"
#include "recovery.h"
#include "segment_size.h"
#include "wire/probe.h"
#include "wire/seq.h"

#define CHALLENGE_INTERVAL_US 500000 /* of one connection, as Linux: two stacks must not answer each other for ever */

/* Of a client that waits for nothing but us: so long from what we sent to what it sends on it. Far below any path that is not
 * the link's, and above what a worker that naps adds (wake.h). */
#define TCP_PROMPT_US 200

static void acknowledge(struct tcpip *tcpip, struct tcb *tcb)
{
    tcb->ack_now = true;
    ready_mark(&tcpip->ready, tcb);
}

/* An ACK that can't wait for data to go along with, as it carries SACK blocks. */
static void acknowledge_at_once(struct tcpip *tcpip, struct tcb *tcb)
{
    tcb->ack_now = true;
    tcp_send_ack(tcpip, tcb);
    if (tcb->ack_now)
        ready_mark(&tcpip->ready, tcb); /* there was no space */
}

/* RFC 5961 section 7: a limit for each connection, so that we can't be made to flood, and none for all (limit.h). */
static void challenge_ack(struct tcpip *tcpip, struct tcb *tcb)
{
    if (tcpip->now_us < tcb->challenge_after_us) {
        COUNT(tcpip, tcp_drop_challenge_limit);
        return;
    }
    tcb->challenge_after_us = tcpip->now_us + CHALLENGE_INTERVAL_US;
    COUNT(tcpip, tcp_tx_challenge_ack);
    acknowledge(tcpip, tcb);
}

/* Is a request incomplete, its body included? What the application keeps of a connection is nothing between requests. */
static bool is_reading(const struct tcpip *tcpip, const struct tcb *tcb)
{
    return tcb->slice_count == 0 && (tcb->buffer != TCB_NONE || (tcb->app != 0 && !has_pending_response(tcpip, tcb)));
}

/* A request or its answer goes on. For a request silence is reckoned from its first byte on. Which limit it is that any other
 * silence has is seen when the shortest of them has passed: so here nothing is set. Always inline: each request goes through
 * it twice. */
__attribute__((always_inline)) static inline void idle_restart(struct tcpip *tcpip, struct tcb *tcb)
{
    bool reading = is_reading(tcpip, tcb);
    if (reading && tcb->request_begun)
        return;
    tcb->request_begun = reading;
    tcb->progress_us = tcpip->now_us;
    if (reading) {
        tcb->idle_deadline_us = tcpip->now_us + tcpip->config.request_ms * 1000ull;
        timer_update(&tcpip->wheel, tcb);
    }
}

/* Bytes that come in parts, or behind our last answer; the first of them have been used. */
static __attribute__((noinline)) void recv_parts(struct tcpip *tcpip, struct tcb *tcb, const uint8_t *data,
                                                 uint32_t used_bytes, uint32_t len_bytes)
{
    uint32_t taken = used_bytes;
    if (used_bytes < len_bytes && !tcb->fin_queued) {
        connection_need_buffer(tcpip, tcb);
        taken += receive_buffer_append(&tcpip->buffers, tcb, data + used_bytes, len_bytes - used_bytes);
    }
    tcb->rcv_nxt += taken - used_bytes;
    if (tcb->buffer != TCB_NONE)
        receive_buffer_join(&tcpip->buffers, tcb, &tcb->dsack);
    while (tcb->buffered_bytes > 0 && !tcb->fin_queued) {
        uint32_t consumed =
            tcpip->app->receive(tcpip, tcb, receive_buffer_bytes(&tcpip->buffers, tcb), tcb->buffered_bytes);
        if (consumed == 0)
            break;
        receive_buffer_consume(&tcpip->buffers, tcb, consumed);
    }
    if (tcb->fin_queued) {
        /* Nothing more is answered: read and forgotten, so that the peer comes to read our answer and FIN, and gets no
         * reset. The window opens, or it could not send on. */
        receive_buffer_release(&tcpip->buffers, tcb);
        tcb->rcv_nxt += len_bytes - taken;
    }
    /* After the peer's FIN a request incomplete will never be whole. */
    if (tcb->fin_received && !tcb->fin_queued && tcpip_can_write(tcb))
        tcpip_finish(tcpip, tcb);
    receive_buffer_sort(&tcpip->buffers, tcb);
}

static void discard(struct tcpip *tcpip, struct tcb *tcb, uint32_t len_bytes)
{
    if (len_bytes > 0)
        COUNT(tcpip, tcp_drop_after_close);
    tcb->rcv_nxt += len_bytes;
    tcb->unread_bytes += len_bytes;
}

static void recv_in_order(struct tcpip *tcpip, struct tcb *tcb, const uint8_t *data, uint32_t len_bytes)
{
    uint32_t taken = 0;
    bool sending = tcb->snd_una < tcb->snd_end;
    if (tcb->fin_queued) {
        discard(tcpip, tcb, len_bytes);
        return;
    }
    if (tcb->buffer == TCB_NONE && len_bytes > 0)
        taken = tcpip->app->receive(tcpip, tcb, data, len_bytes);
    tcb->rcv_nxt += taken;
    if (taken < len_bytes || tcb->buffer != TCB_NONE || tcb->fin_received)
        recv_parts(tcpip, tcb, data, taken, len_bytes);
    if (!sending) /* else progress is what the peer takes, not what it sends */
        idle_restart(tcpip, tcb);
}

/* In order data; len_bytes 0: only what is buffered. A request that arrives whole is parsed where it lies. Always inline: each request
 * goes through it. */
__attribute__((always_inline)) static inline void tcpip_recv(struct tcpip *tcpip, struct tcb *tcb,
                                                             const uint8_t *data, uint32_t len_bytes)
{
    tcpip->receiving = tcb_index(&tcpip->connections, tcb) + 1;
    recv_in_order(tcpip, tcb, data, len_bytes);
    __atomic_signal_fence(__ATOMIC_SEQ_CST); /* should we end in between, what is answered is not yet taken */
    tcpip->receiving = 0;
}

/* Does the peer send on though nothing more is read? Only so much of that is borne: then it is reset. */
static bool ended_lingering(struct tcpip *tcpip, struct tcb *tcb)
{
    if (!tcb->fin_queued || tcb->unread_bytes <= TCP_LINGER_BYTES)
        return false;
    COUNT(tcpip, tcp_drop_linger);
    connection_abort(tcpip, tcb);
    return true;
}

static void enter_time_wait(struct tcpip *tcpip, struct tcb *tcb)
{
    tcp_send_ack(tcpip, tcb);
    COUNT(tcpip, tcp_time_wait);
    connection_remember(tcpip, tcb, ENDED_BY_US);
    connection_destroy(tcpip, tcb);
}

static void enter_fin_wait_2(struct tcpip *tcpip, struct tcb *tcb)
{
    tcp_state_set(tcb, TCP_FIN_WAIT_2);
    tcb->progress_us = tcpip->now_us;
    tcb->idle_deadline_us = tcpip->now_us + TCP_FIN_WAIT_2_US;
    timer_update(&tcpip->wheel, tcb);
}

/* Our FIN is acknowledged. False: the connection is gone. */
static bool fin_acked(struct tcpip *tcpip, struct tcb *tcb)
{
    switch (tcb->state) {
    case TCP_FIN_WAIT_1:
        enter_fin_wait_2(tcpip, tcb);
        return true;
    case TCP_CLOSING:
        enter_time_wait(tcpip, tcb);
        return false;
    case TCP_LAST_ACK:
        connection_remember(tcpip, tcb, ENDED_BY_PEER);
        connection_destroy(tcpip, tcb);
        return false;
    default:
        return true;
    }
}

static void release_slices(struct tcpip *tcpip, struct tcb *tcb)
{
    while (tcb->slice_count > 0 && tcb_slice(tcb, 0)->end <= tcb->snd_una) {
        connection_slice_end(tcpip, tcb, tcb_slice(tcb, 0));
        tcb->slice_first = (uint8_t)((tcb->slice_first + 1) & tcb->slice_mask);
        tcb->slice_count--;
    }
    if (tcb->slice_count == 0) {
        tcb->slice_first = 0; /* the place that is in the cache */
        slice_ring_release(&tcpip->rings, tcb);
    }
}

/* There is room for slices again. Always inline: it is a part of each acknowledgement. */
__attribute__((always_inline)) static inline void go_on(struct tcpip *tcpip, struct tcb *tcb)
{
    /* Unread requests go on, and behind the last of them our FIN if the peer's has come. */
    if ((tcb->buffer != TCB_NONE || tcb->fin_received) && tcpip_can_write(tcb))
        tcpip_recv(tcpip, tcb, NULL, 0);
    idle_restart(tcpip, tcb);
}

/* New data is acknowledged. False: the connection is gone. */
static bool ack_advance(struct tcpip *tcpip, struct tcb *tcb, uint64_t ack)
{
    bool fin_sent = tcb->snd_nxt > tcb->snd_end;
    tcb->snd_una = ack;
    if (tcb->snd_nxt < tcb->snd_end) {
        COUNT(tcpip, tcp_rx_releasing_acks);
        COUNT_BY(tcpip, tcp_rx_prompt, tcb->min_rtt_us < TCP_PROMPT_US);
    }
    release_slices(tcpip, tcb);
    if (tcb->snd_nxt > ack)
        recovery_arm(tcpip, tcb, true);
    else
        recovery_disarm(tcb);
    ready_mark(&tcpip->ready, tcb);
    if (fin_sent && ack > tcb->snd_end && !fin_acked(tcpip, tcb))
        return false;
    go_on(tcpip, tcb);
    return true;
}

void carried_taken(struct tcpip *tcpip, struct tcb *tcb, uint64_t end)
{
    tcb->snd_una = tcb->snd_nxt = end;
    release_slices(tcpip, tcb);
    go_on(tcpip, tcb);
}

bool carried_input(struct tcpip *tcpip, struct tcb *tcb, const uint8_t *data, uint32_t len_bytes)
{
    tcpip_recv(tcpip, tcb, data, len_bytes);
    return !ended_lingering(tcpip, tcb);
}

void carried_fin(struct tcpip *tcpip, struct tcb *tcb)
{
    tcb->fin_received = true;
    if (tcb->state != TCP_ESTABLISHED)
        return;
    tcp_state_set(tcb, TCP_CLOSE_WAIT);
    tcpip_recv(tcpip, tcb, NULL, 0);
}

void carried_finished(struct tcpip *tcpip, struct tcb *tcb)
{
    enter_fin_wait_2(tcpip, tcb);
}

static void window_update(struct tcpip *tcpip, struct tcb *tcb, const struct tcp_segment *segment)
{
    bool newer =
        seq_lt(tcb->snd_wl1, segment->seq) || (tcb->snd_wl1 == segment->seq && seq_leq(tcb->snd_wl2, segment->ack));
    if (!newer)
        return;
    tcb->snd_wnd = segment->window << tcb->snd_wscale;
    if (tcb->snd_wnd > tcb->snd_wnd_max) {
        tcb->snd_wnd_max = tcb->snd_wnd;
        segment_size_set(tcb);
    }
    tcb->snd_wl1 = segment->seq;
    tcb->snd_wl2 = segment->ack;
    ready_mark(&tcpip->ready, tcb);
}

/* RFC 9293's check of the ACK field with RFC 5961 section 5.2: of what has been sent, and no further behind than the largest
 * window. Who sees nothing of the connection must guess it. */
static bool ack_acceptable(struct tcpip *tcpip, struct tcb *tcb, uint64_t ack)
{
    if (ack <= tcb->snd_nxt && ack + tcb->snd_wnd_max >= tcb->snd_una)
        return true;
    COUNT(tcpip, tcp_drop_ack_unacceptable);
    challenge_ack(tcpip, tcb);
    return false;
}

/* What an acceptable ACK says. False: the connection is gone. */
static bool ack_input(struct tcpip *tcpip, struct tcb *tcb, const struct tcp_segment *segment, uint64_t ack)
{
    uint32_t old_window = tcb->snd_wnd;
    if (ack >= tcb->snd_una)
        window_update(tcpip, tcb, segment);
    if (tcb->snd_nxt == tcb->snd_una)
        tcb->retries = 0; /* a window probe was answered: the peer lives, RFC 9293 section 3.8.6.1 */
    bool late = ack < tcb->snd_una; /* another has overtaken it, but what it SACKs is SACKed */
    if (late && segment->options.sack_count == 0)
        return true;
    bool repeated = ack == tcb->snd_una && segment->data_bytes == 0 && tcb->snd_wnd == old_window &&
                    (segment->flags & TCP_FIN) == 0;
    recovery_ack(tcpip, tcb, segment, late ? tcb->snd_una : ack, repeated);
    if (ack > tcb->snd_una)
        return ack_advance(tcpip, tcb, ack);
    recovery_rearm(tcpip, tcb);
    ready_mark(&tcpip->ready, tcb);
    return true;
}

/* The peer's FIN, in order. */
static void fin_input(struct tcpip *tcpip, struct tcb *tcb)
{
    tcb->rcv_nxt++;
    tcb->fin_received = true;
    tcb->ack_now = true;
    ready_mark(&tcpip->ready, tcb);
    switch (tcb->state) {
    case TCP_ESTABLISHED:
        tcp_state_set(tcb, TCP_CLOSE_WAIT);
        tcpip_recv(tcpip, tcb, NULL, 0);
        break;
    case TCP_FIN_WAIT_1:
        tcp_state_set(tcb, TCP_CLOSING);
        break;
    case TCP_FIN_WAIT_2:
        enter_time_wait(tcpip, tcb);
        break;
    default:
        break;
    }
}

/* Data that came ahead of what is in front of it: kept, RFC 9293 section 3.10.7.4 (SHLD-31), unless nothing more is read. */
static void out_of_order_input(struct tcpip *tcpip, struct tcb *tcb, const struct tcp_segment *segment)
{
    struct seq_range range = {segment->seq, segment->seq + segment->data_bytes};
    bool wanted = segment->data_bytes > 0 && !tcb->fin_queued && !tcb->fin_received, held = false;
    if (wanted) {
        connection_need_buffer(tcpip, tcb);
        held = receive_buffer_hold(&tcpip->buffers, tcb, range, segment->data, &tcb->dsack);
    }
    if (held)
        COUNT(tcpip, tcp_rx_out_of_order);
    else
        COUNT(tcpip, tcp_drop_out_of_order);
    if (held && tcb->snd_una == tcb->snd_end)
        idle_restart(tcpip, tcb);
    acknowledge_at_once(tcpip, tcb);
}

/* Has something come ahead that is still held, or twice? */
static bool has_sack_blocks(const struct tcpip *tcpip, const struct tcb *tcb)
{
    return tcb->dsack.start != tcb->dsack.end ||
           (tcb->buffer != TCB_NONE && tcpip->buffers.buffers[tcb->buffer].range_count > 0);
}

static void text_input(struct tcpip *tcpip, struct tcb *tcb, const struct tcp_segment *segment)
{
    uint32_t skip = tcb->rcv_nxt - segment->seq; /* what we already have */
    uint32_t new_bytes = segment->data_bytes - skip;
    uint32_t expected = tcb->rcv_nxt + new_bytes;
    bool fin = (segment->flags & TCP_FIN) != 0;
    if (tcb->fin_received)
        return;
    if (skip > 0)
        tcb->dsack = (struct seq_range){segment->seq, tcb->rcv_nxt};
    if (new_bytes > 0) {
        COUNT(tcpip, tcp_rx_data);
        /* Of the first request it can't be told how long it took: nothing was sent before it. */
        COUNT_BY(tcpip, tcp_rx_prompt, tcb->srtt_us != 0 && tcpip->now_us - tcb->last_sent_us < TCP_PROMPT_US);
        tcb->ack_now = true;
        ready_mark(&tcpip->ready, tcb);
        tcpip_recv(tcpip, tcb, segment->data + skip, new_bytes);
    }
    if (ended_lingering(tcpip, tcb))
        return;
    if (fin && tcb->rcv_nxt == expected)
        fin_input(tcpip, tcb);
    else if ((skip > 0 || tcb->buffer != TCB_NONE) && new_bytes > 0 && has_sack_blocks(tcpip, tcb))
        acknowledge_at_once(tcpip, tcb);
}

/* RFC 9293 section 3.10.7.4, first check. */
static bool sequence_acceptable(struct tcpip *tcpip, struct tcb *tcb, const struct tcp_segment *segment)
{
    uint32_t len = segment->data_bytes + ((segment->flags & TCP_FIN) != 0);
    uint32_t window = TCB_RECEIVE_BYTES - tcb->buffered_bytes;
    int32_t ahead = seq_diff(segment->seq, tcb->rcv_nxt);
    bool beyond = ahead > 0 && (uint32_t)ahead >= window;
    bool behind = ahead < 0 && seq_leq(segment->seq + len, tcb->rcv_nxt);
    if (!beyond && !behind)
        return true;
    if (behind && segment->data_bytes > 0)
        COUNT(tcpip, tcp_rx_duplicate);
    else
        COUNT(tcpip, tcp_drop_out_of_window);
    if ((segment->flags & TCP_RST) != 0)
        return false;
    if (behind && segment->data_bytes > 0)
        tcb->dsack = (struct seq_range){segment->seq, segment->seq + segment->data_bytes};
    if (behind && len > 0)
        acknowledge_at_once(tcpip, tcb); /* sent again, since our ACK was lost */
    else
        challenge_ack(tcpip, tcb);
    return false;
}

/* An ACK that a later one has overtaken on the way. RFC 7323 section 5.3 wants an ACK for it, but that would be a duplicate ACK
 * to the peer; Linux doesn't either. */
static bool is_overtaken(const struct tcb *tcb, const struct tcp_segment *segment)
{
    return tcp_is_bare(segment) && segment->seq == tcb->rcv_nxt && seq_leq(segment->ack, (uint32_t)tcb->snd_una);
}

/* PAWS, RFC 7323 section 5.3 R1. */
static bool timestamp_acceptable(struct tcpip *tcpip, struct tcb *tcb, const struct tcp_segment *segment)
{
    if (seq_lt(segment->options.ts_value, tcb->ts_recent) && (segment->flags & TCP_RST) == 0) {
        COUNT(tcpip, tcp_drop_paws);
        if (!is_overtaken(tcb, segment))
            challenge_ack(tcpip, tcb);
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
static void ecn_reduce(struct tcpip *tcpip, struct tcb *tcb)
{
    if (tcb->in_recovery || tcb->snd_una < tcb->ecn_end)
        return;
    COUNT(tcpip, tcp_ecn_reductions);
    congestion_lost(&tcpip->congestion, tcb);
    tcb->cwnd = tcb->ssthresh;
    tcb->ecn_end = tcb->snd_nxt;
    tcb->ecn_flags |= TCP_CWR;
}

/* RFC 3168 section 6.1.3: what came to us was marked, which the peer hears until it says that it has. */
static void ecn_input(struct tcpip *tcpip, struct tcb *tcb, const struct packet *packet,
                      const struct tcp_segment *segment)
{
    if ((segment->flags & TCP_CWR) != 0)
        tcb->ecn_flags &= (uint8_t)~TCP_ECE;
    if (segment->data_bytes > 0 && packet_ecn(packet) == IP_ECN_CE) {
        COUNT(tcpip, tcp_rx_ce);
        tcb->ecn_flags |= TCP_ECE;
    }
    if ((segment->flags & TCP_ECE) != 0)
        ecn_reduce(tcpip, tcb);
}

/* RFC 5961 section 3.2: only the exact next sequence number resets. */
static void reset_input(struct tcpip *tcpip, struct tcb *tcb, const struct tcp_segment *segment)
{
    COUNT(tcpip, tcp_rx_rst);
    if (segment->seq == tcb->rcv_nxt) {
        connection_remember(tcpip, tcb, ENDED_BY_RESET);
        connection_destroy(tcpip, tcb);
    } else {
        challenge_ack(tcpip, tcb);
    }
}

/* A segment that resets, or is no ordinary one of an open connection. */
static __attribute__((noinline, cold)) void unusual_flags(struct tcpip *tcpip, struct tcb *tcb,
                                                          const struct tcp_segment *segment)
{
    if ((segment->flags & TCP_RST) != 0)
        reset_input(tcpip, tcb, segment);
    else if ((segment->flags & TCP_SYN) != 0) /* RFC 5961 section 4.2 */
        challenge_ack(tcpip, tcb);
    else
        COUNT(tcpip, tcp_drop_no_ack);
}

void segment_arrives(struct tcpip *tcpip, struct tcb *tcb, const struct packet *packet, struct tcp_segment *segment)
{
    PROBE(segment_arrives, tcb, tcb->state, segment->flags, segment->data_bytes);
    bool stamped = tcb->timestamps && segment->options.timestamps;
    if ((stamped && !timestamp_acceptable(tcpip, tcb, segment)) || !sequence_acceptable(tcpip, tcb, segment))
        return;
    if ((segment->flags & (TCP_RST | TCP_SYN | TCP_ACK)) != TCP_ACK) {
        unusual_flags(tcpip, tcb, segment);
        return;
    }
    uint64_t ack = seq_unwrap(segment->ack, tcb->snd_una);
    if (!ack_acceptable(tcpip, tcb, ack))
        return;
    peer_address_record(tcb, packet);
    if (stamped && ack >= tcb->snd_una)
        timestamp_record(tcb, segment);
    if (tcb->ecn)
        ecn_input(tcpip, tcb, packet, segment);
    if (!ack_input(tcpip, tcb, segment, ack) || (segment->data_bytes == 0 && (segment->flags & TCP_FIN) == 0))
        return;
    if (seq_lt(tcb->rcv_nxt, segment->seq))
        out_of_order_input(tcpip, tcb, segment);
    else
        text_input(tcpip, tcb, segment);
}
