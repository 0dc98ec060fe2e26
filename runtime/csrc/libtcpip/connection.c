#include "connection.h"

#include "ip_reply.h"
#include "libnmio/invariant.h"
#include "output.h"
#include "recovery.h"
#include "segment_size.h"
#include "wire/checksum.h"
#include "wire/probe.h"

/* Ethernet, IP and ports as all segments of the connection begin, and the sums of what never changes in them. */
static void header_template(const struct tcpip *tcpip, struct tcb *tcb, const struct packet *packet)
{
    struct wire_tcp ports = {.source_port = be16(tcpip->config.tcp_port), .destination_port = tcb->flow.peer_port};
    uint8_t *tcp = ip_reply_headers(tcpip->eth, packet, tcb->header, IP_PROTOCOL_TCP, 0);
    memcpy(tcp, &ports, 4);
    tcb->ip_bytes = (uint8_t)(tcp - tcb->header - (ptrdiff_t)sizeof(struct wire_eth));
    if (packet->family == IP_FAMILY_V4) {
        struct wire_ipv4 *ip = (struct wire_ipv4 *)(tcb->header + sizeof(struct wire_eth));
        ip->total_bytes = 0;
        ip->checksum = 0;
        tcb->ip_sum = checksum_sum(ip, sizeof(*ip));
    }
    tcb->pseudo_sum = ip_pseudo_sum(packet, IP_PROTOCOL_TCP, 0);
}

/* The first one has its time from the handshake on. */
static void expect_request(struct tcpip *tcpip, struct tcb *tcb)
{
    tcb->request_begun = true;
    tcb->progress_us = tcpip->now_us;
    tcb->idle_deadline_us = tcpip->now_us + tcpip->config.request_ms * 1000ull;
    timer_update(&tcpip->wheel, tcb);
}

/* Fills in what does not come from the cookie itself: headers, windows, timers. mss: the peer's. */
static void start(struct tcpip *tcpip, struct tcb *tcb, const struct packet *packet, uint16_t mss,
                  const struct tcp_segment *segment)
{
    header_template(tcpip, tcb, packet);
    uint32_t path_mss = path_mtu_of(&tcpip->paths, tcpip->now_us, &tcb->flow, tcpip->config.mtu_bytes) -
                        tcb->ip_bytes - (uint32_t)sizeof(struct wire_tcp);
    uint32_t options = tcb->timestamps ? TCP_TIMESTAMPS_BYTES : 0;
    uint32_t largest = (mss < path_mss ? mss : path_mss) - options;
    uint32_t segment_bytes = tcpip->segment_bytes;
    tcb->mss = (uint16_t)(largest < segment_bytes ? largest : segment_bytes);
    tcp_state_set(tcb, TCP_ESTABLISHED);
    tcb->snd_nxt = tcb->snd_end = tcb->snd_una;
    tcb->rack_fack = tcb->rack.end = (uint32_t)tcb->snd_una;
    tcb->recover = tcb->snd_una;
    tcb->snd_wnd = tcb->snd_wnd_max = segment->window << tcb->snd_wscale;
    segment_size_set(tcb);
    tcb->snd_wl1 = segment->seq;
    tcb->snd_wl2 = segment->ack;
    tcb->last_ack_sent = tcb->rcv_nxt;
    tcb->rto_us = TCP_RTO_INITIAL_US;
    tcb->last_sent_us = tcpip->now_us;
    congestion_init(tcb);
    PROBE(tcp_connection_start, tcb, tcb->mss);
    expect_request(tcpip, tcb);
}

void connection_slice_at_end(struct tcpip *tcpip, const struct tcb *tcb, const struct response_slice *slice)
{
    if ((slice->at_end & SLICE_COMPOSED) != 0)
        composed_slice_release(&tcpip->composed, slice);
    if ((slice->at_end & SLICE_FOLLOWED) != 0)
        tcpip->app->slice_end(tcpip, tcb, slice->at_end >> SLICE_NUMBER_SHIFT);
}

void connection_destroy(struct tcpip *tcpip, struct tcb *tcb)
{
    PROBE(tcb_destroy, tcb, tcb->state);
    timer_remove(&tcpip->wheel, tcb);
    receive_buffer_release(&tcpip->buffers, tcb);
    for (uint32_t i = 0; i < tcb->slice_count; i++)
        connection_slice_end(tcpip, tcb, tcb_slice(tcb, i));
    slice_ring_release(&tcpip->rings, tcb);
    scoreboard_release(&tcpip->overflow, tcb);
    tcb_table_remove(&tcpip->connections, tcb);
    COUNT(tcpip, tcp_closed);
}

void connection_remember(struct tcpip *tcpip, const struct tcb *tcb, enum tcp_ended ended)
{
    time_wait_add(&tcpip->time_waits, tcpip->now_us, tcb_hash(&tcpip->connections, &tcb->flow), tcb, ended);
}

void connection_reset(struct tcpip *tcpip, struct tcb *tcb)
{
    tcp_send_rst(tcpip, tcb);
    connection_remember(tcpip, tcb, ENDED_BY_RESET);
}

void connection_abort(struct tcpip *tcpip, struct tcb *tcb)
{
    tcpip->reset(tcpip, tcb);
    connection_destroy(tcpip, tcb);
}

#define EVICTION_LOOKED_AT 64 /* connections, so that pressure costs no more than this */

/* Which connection had better go: less is better. 0: it must not. */
static uint64_t worth(const struct tcb *tcb)
{
    bool idle = tcb->state == TCP_FIN_WAIT_2 ||
                (tcb->state == TCP_ESTABLISHED && tcb->snd_una == tcb->snd_end && !tcb->fin_queued);
    if (!idle)
        return 0;
    /* Those with an incomplete request go after all the others. */
    return tcb->progress_us + (tcb->buffer != TCB_NONE ? 1ull << 62 : 1);
}

void connection_evict_idle(struct tcpip *tcpip)
{
    struct tcb *victim = NULL;
    uint64_t least = UINT64_MAX;
    for (uint32_t i = 0; i < EVICTION_LOOKED_AT && i < tcpip->config.max_connections; i++) {
        struct tcb *tcb = &tcpip->connections.tcbs[tcpip->eviction_hand];
        tcpip->eviction_hand = (tcpip->eviction_hand + 1) % tcpip->config.max_connections;
        uint64_t its = tcb->state != 0 ? worth(tcb) : 0;
        if (its != 0 && its < least) {
            victim = tcb;
            least = its;
        }
    }
    if (victim == NULL)
        return;
    COUNT(tcpip, tcp_evicted_idle);
    connection_abort(tcpip, victim);
}

/* A TCB for it; perhaps that of one that is idle. NULL: there is none left. */
static struct tcb *add(struct tcpip *tcpip, const struct tcp_flow *flow, uint64_t hash)
{
    if (tcpip->connections.free_count == 0)
        connection_evict_idle(tcpip);
    struct tcb *tcb = tcb_table_add(&tcpip->connections, flow, hash);
    if (tcb == NULL)
        return NULL;
    COUNT(tcpip, tcp_opened);
    scoreboard_init(tcb);
    return tcb;
}

struct tcb *connection_carried(struct tcpip *tcpip, const struct tcp_flow *flow)
{
    struct tcb *tcb = add(tcpip, flow, tcb_hash(&tcpip->connections, flow));
    if (tcb == NULL)
        return NULL;
    tcp_state_set(tcb, TCP_ESTABLISHED);
    expect_request(tcpip, tcb);
    return tcb;
}

struct tcb *connection_open(struct tcpip *tcpip, const struct packet *packet, const struct tcp_flow *flow,
                            uint64_t hash, const struct tcp_segment *segment, const struct cookie *cookie)
{
    struct tcb *tcb = add(tcpip, flow, hash);
    if (tcb == NULL)
        return NULL;
    tcb->timestamps = cookie->timestamps;
    tcb->sack = cookie->sack;
    tcb->ecn = cookie->ecn;
    if (tcb->ecn)
        COUNT(tcpip, tcp_ecn_opened);
    tcb->snd_wscale = cookie->wscale == TCP_NO_WSCALE ? 0 : cookie->wscale;
    tcb->ts_offset = cookie->ts_offset;
    tcb->ts_recent = segment->options.ts_value;
    /* Positions start far above zero, so that none below them can be negative. */
    tcb->snd_una = (1ull << 32) + segment->ack;
    tcb->irs = segment->seq - 1;
    tcb->opened_s = (uint32_t)(tcpip->now_us / 1000000);
    tcb->rcv_nxt = segment->seq;
    start(tcpip, tcb, packet, cookie->mss, segment);
    if (tcb->timestamps) /* the cookie's timestamp is up to 63 ms old */
        recovery_rtt_guess(tcb,
                           1000ull * (tcp_ts_clock(tcpip->now_us, tcb->ts_offset) - segment->options.ts_echo + 1));
    return tcb;
}

void tcpip_write(struct tcpip *tcpip, struct tcb *tcb, const struct response_slice *slice, uint64_t len_bytes)
{
    PROBE(tcpip_write, tcb, len_bytes);
    INVARIANT(tcpip_can_write(tcb) && len_bytes > 0);
    struct response_slice *slot = tcb_slice(tcb, tcb->slice_count++);
    /* Field by field: most slices are made just before, and need not be in memory twice. */
    slot->skip = slice->skip;
    slot->first_frame = slice->first_frame;
    slot->at_end = slice->at_end;
    slot->generation = slice->generation;
    for (uint32_t i = 0; i < sizeof(slot->app) / sizeof(slot->app[0]); i++)
        slot->app[i] = slice->app[i];
    slot->start = tcb->snd_end;
    slot->end = tcb->snd_end + len_bytes;
    tcb->snd_end = slot->end;
    ready_mark(&tcpip->ready, tcb);
}

void tcpip_finish(struct tcpip *tcpip, struct tcb *tcb)
{
    tcb->fin_queued = true;
    ready_mark(&tcpip->ready, tcb);
}

void connection_close_idle(struct tcpip *tcpip, struct tcb *tcb, bool request_begun)
{
    if (tcpip->app->timeout != NULL)
        tcpip->app->timeout(tcpip, tcb, request_begun);
    tcpip_finish(tcpip, tcb);
    receive_buffer_release(&tcpip->buffers, tcb);
    tcb->request_begun = false;
    tcb->progress_us = tcpip->now_us;
    tcb->idle_deadline_us = tcpip->now_us + tcpip->config.send_ms * 1000ull;
    timer_update(&tcpip->wheel, tcb);
}

/* The oldest of a kind makes room, so that slow clients can't keep the others out. */
static void evict_buffer(struct tcpip *tcpip, struct tcb *victim, enum receive_kind kind)
{
    receive_buffer_release(&tcpip->buffers, victim);
    if (kind == RECEIVE_INCOMPLETE) {
        COUNT(tcpip, tcp_evicted_incomplete_requests);
        connection_close_idle(tcpip, victim, true);
        return;
    }
    COUNT(tcpip, tcp_evicted_pipelined);
    if (has_pending_response(tcpip, victim))
        connection_abort(tcpip, victim); /* its answer can't be gone on with: it must not look whole */
    else
        tcpip_finish(tcpip, victim);
}

void connection_need_buffer(struct tcpip *tcpip, struct tcb *tcb)
{
    enum receive_kind kind;
    uint32_t victim;
    if (tcb->buffer != TCB_NONE)
        return;
    while ((victim = receive_buffer_victim(&tcpip->buffers, tcb, &kind)) != TCB_NONE)
        evict_buffer(tcpip, &tcpip->connections.tcbs[victim], kind);
    receive_buffer_take(&tcpip->buffers, tcb, tcb_index(&tcpip->connections, tcb));
}

uint32_t tcpip_compose(struct tcpip *tcpip, const struct tcb *tcb)
{
    uint32_t owner = tcb_index(&tcpip->connections, tcb);
    uint32_t victim = composed_victim(&tcpip->composed, tcpip->now_us, owner);
    if (victim != TCB_NONE) {
        COUNT(tcpip, tcp_evicted_composed);
        connection_abort(tcpip, &tcpip->connections.tcbs[victim]);
    }
    return composed_acquire(&tcpip->composed, tcpip->now_us, owner);
}
