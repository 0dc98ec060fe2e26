#include "resume.h"

#include "connection.h"
#include "frame_walk.h"
#include "recovery.h"
#include "segment_size.h"

#define POSITION_MIN (1ull << 32) /* connection_open begins there */
#define POSITION_MAX (1ull << 62)
#define FLIGHT_BYTES_MAX (1u << 30) /* no window is larger, RFC 7323 section 2.3 */
#define WSCALE_MAX 14

struct resumption {
    struct tcpip *tcpip;
    const struct tcpip *from;
    uint32_t place; /* there, of the generation that is our newest; GENERATIONS_MAX: none is */
};

/* Where the other has what is at a place of ours. */
static const void *there(const struct resumption *r, const void *ours)
{
    return (const uint8_t *)r->from + ((const uint8_t *)ours - (const uint8_t *)r->tcpip);
}

/* A bool may hold anything there. */
static bool flag(const bool *at)
{
    uint8_t byte;
    memcpy(&byte, at, sizeof(byte));
    return byte != 0;
}

/* Is it one that was open, to an address of ours, and are its headers what they are taken for? */
static bool is_connection(const struct resumption *r, const struct tcb *old)
{
    const struct eth_config *eth = &r->tcpip->eth->config;
    uint32_t ip_bytes = old->flow.family == IP_FAMILY_V4 ? sizeof(struct wire_ipv4) : sizeof(struct wire_ipv6);
    return old->state >= TCP_ESTABLISHED && old->state <= TCP_LAST_ACK && old->flow.zero == 0 &&
           old->flow.local < eth->address_count && eth->addresses[old->flow.local].family == old->flow.family &&
           (old->flow.family == IP_FAMILY_V4 || old->flow.family == IP_FAMILY_V6) && old->ip_bytes == ip_bytes;
}

static bool are_positions_sound(const struct tcb *old)
{
    uint64_t most = old->snd_end + flag(&old->fin_queued);
    return old->snd_una >= POSITION_MIN && old->snd_end < POSITION_MAX && old->snd_una <= old->snd_nxt &&
           old->snd_nxt <= most && old->snd_nxt - old->snd_una <= FLIGHT_BYTES_MAX && old->mss > 0 &&
           old->snd_wscale <= WSCALE_MAX;
}

/* Do our frames hold all of it? */
static bool are_frames_there(const struct tcpip *tcpip, const struct response_slice *slice)
{
    const struct image *image = &generation_newest(&tcpip->generations)->image;
    uint32_t segment_bytes = tcpip->segment_bytes;
    if (slice->skip > POSITION_MAX)
        return false;
    uint64_t left = slice->skip + (slice->end - slice->start), frame = slice->first_frame;
    for (; left > segment_bytes; left -= segment_bytes, frame++)
        if (frame >= image->header->frame_count || image->frames[frame].payload_bytes != segment_bytes)
            return false;
    return frame < image->header->frame_count && image->frames[frame].payload_bytes >= left;
}

/* A composed response moves to a buffer of ours. */
static bool take_composed(const struct resumption *r, struct tcb *tcb, struct response_slice *slice)
{
    struct composed *composed = &r->tcpip->composed;
    uint32_t owner = tcb_index(&r->tcpip->connections, tcb), theirs = slice->first_frame;
    if (theirs >= composed->pool.count || slice->skip != 0 || slice->end - slice->start > COMPOSED_BYTES)
        return false;
    uint32_t buffer = composed_acquire(composed, r->tcpip->now_us, owner);
    if (buffer == NMIO_NONE)
        return false;
    memcpy(composed_bytes(composed, buffer), there(r, composed_bytes(composed, theirs)), COMPOSED_BYTES);
    slice->at_end = SLICE_COMPOSED;
    slice->first_frame = buffer;
    slice->generation = 0;
    return true;
}

static bool take_slice(const struct resumption *r, struct tcb *tcb, const struct response_slice *old)
{
    struct response_slice slice = *old;
    if (tcb->slice_count > tcb->slice_mask)
        tcpip_expect_many(r->tcpip, tcb);
    if (tcb->slice_count > tcb->slice_mask)
        return false;
    if (is_composed(old)) {
        if (!take_composed(r, tcb, &slice))
            return false;
    } else {
        if (slice.generation != r->place || !are_frames_there(r->tcpip, &slice))
            return false;
        slice.at_end = 0; /* whoever followed it is gone */
        slice.generation = r->tcpip->generations.newest & UINT8_MAX;
    }
    *tcb_slice(tcb, tcb->slice_count++) = slice;
    return true;
}

/* Those that are not acknowledged, one behind the other. What was in the other's hand when it ended, one that is just being queued or
 * given back, is none. */
static bool take_slices(const struct resumption *r, struct tcb *tcb, const struct tcb *old)
{
    const struct slice_rings *rings = &r->tcpip->rings;
    const struct response_slice *ring = old->few_slices;
    uint32_t mask = TCB_SLICES - 1;
    uint64_t at = old->snd_una;
    if (old->slice_ring != TCB_NONE) {
        if (old->slice_ring >= rings->pool.count)
            return false;
        ring = there(r, &rings->slices[(size_t)old->slice_ring * SLICE_RING_SLICES]);
        mask = SLICE_RING_SLICES - 1;
    }
    for (uint32_t i = 0; i < old->slice_count && i <= mask; i++) {
        const struct response_slice *slice = &ring[(old->slice_first + i) & mask];
        if (slice->end <= old->snd_una)
            continue;
        if (slice->start >= old->snd_end)
            break;
        bool follows = tcb->slice_count == 0 ? slice->start <= at : slice->start == at;
        if (!follows || slice->start >= slice->end || slice->end > old->snd_end || !take_slice(r, tcb, slice))
            return false;
        at = slice->end;
    }
    return at >= old->snd_end;
}

/* Unread bytes; what has come ahead of others comes again. */
static bool take_unread(const struct resumption *r, struct tcb *tcb, const struct tcb *old)
{
    struct receive_buffers *buffers = &r->tcpip->buffers;
    if (old->buffer == TCB_NONE || old->buffered_bytes == 0)
        return true;
    if (old->buffer >= buffers->count || old->buffered_bytes > TCB_RECEIVE_BYTES || buffers->free == TCB_NONE)
        return false;
    struct tcb theirs = {.buffer = old->buffer};
    receive_buffer_take(buffers, tcb, tcb_index(&r->tcpip->connections, tcb));
    receive_buffer_append(buffers, tcb, there(r, receive_buffer_bytes(buffers, &theirs)), old->buffered_bytes);
    return true;
}

/* What can have any value, as it is only compared, or put into headers. */
static void copy_plain(struct tcb *tcb, const struct tcb *old)
{
    tcb->state = old->state;
    tcb->ip_bytes = old->ip_bytes;
    tcb->snd_wscale = old->snd_wscale;
    tcb->timestamps = flag(&old->timestamps);
    tcb->sack = flag(&old->sack);
    tcb->ecn = flag(&old->ecn);
    tcb->ect = flag(&old->ect);
    tcb->fin_queued = flag(&old->fin_queued);
    tcb->fin_received = flag(&old->fin_received);
    tcb->peer_done = flag(&old->peer_done);
    tcb->request_begun = flag(&old->request_begun);
    tcb->snd_una = old->snd_una;
    tcb->snd_nxt = old->snd_nxt;
    tcb->snd_end = old->snd_end;
    tcb->snd_wnd = old->snd_wnd;
    tcb->snd_wnd_max = old->snd_wnd_max;
    tcb->snd_wl1 = old->snd_wl1;
    tcb->snd_wl2 = old->snd_wl2;
    tcb->rcv_nxt = old->rcv_nxt;
    tcb->ts_recent = old->ts_recent;
    tcb->ts_offset = old->ts_offset;
    tcb->last_ack_sent = old->last_ack_sent;
    tcb->app = old->app;
    tcb->irs = old->irs;
    tcb->unread_bytes = old->unread_bytes;
    tcb->opened_s = old->opened_s;
    memcpy(tcb->header, old->header, sizeof(tcb->header));
    tcb->pseudo_sum = old->pseudo_sum;
    tcb->ip_sum = old->ip_sum;
}

/* The window begins anew, RFC 5681 section 4.1, and grows fast to what it was. Of times those that can be. */
static void start_windows(struct tcpip *tcpip, struct tcb *tcb, const struct tcb *old)
{
    uint32_t una = (uint32_t)tcb->snd_una;
    tcb->mss = old->mss < tcpip->segment_bytes ? old->mss : (uint16_t)tcpip->segment_bytes;
    segment_size_set(tcb);
    congestion_init(tcb);
    if (old->cwnd > tcb->cwnd && old->cwnd <= FLIGHT_BYTES_MAX)
        tcb->ssthresh = old->cwnd;
    tcb->rto_us = TCP_RTO_INITIAL_US;
    if (old->rto_us >= TCP_RTO_MIN_US && old->rto_us <= TCP_RTO_INITIAL_US && old->srtt_us <= old->rto_us) {
        tcb->rto_us = old->rto_us;
        tcb->srtt_us = old->srtt_us;
        tcb->rttvar_us = old->rttvar_us <= old->rto_us ? old->rttvar_us : old->srtt_us / 2;
        tcb->min_rtt_us = old->min_rtt_us <= old->srtt_us ? old->min_rtt_us : old->srtt_us;
    }
    tcb->rack_fack = tcb->rack.end = una;
    tcb->recover = tcb->snd_una;
    scoreboard_init(tcb);
    if (tcb->snd_nxt > tcb->snd_una)
        scoreboard_sent(tcb, una, (uint32_t)tcb->snd_nxt, (uint32_t)tcpip->now_us);
}

static void start_timers(struct tcpip *tcpip, struct tcb *tcb, const struct tcb *old)
{
    tcb->last_sent_us = tcpip->now_us;
    tcb->progress_us = old->progress_us < tcpip->now_us ? old->progress_us : tcpip->now_us;
    tcb->idle_deadline_us = tcpip->now_us + TIMER_TICK_US; /* then it is looked at */
    timer_update(&tcpip->wheel, tcb);
    if (tcb->snd_nxt > tcb->snd_una)
        recovery_arm(tcpip, tcb, true);
    ready_mark(&tcpip->ready, tcb);
}

/* What the application was doing: nothing, or it says that it can go on. */
static bool app_goes_on(const struct resumption *r, struct tcb *tcb)
{
    const struct tcpip_app *app = r->tcpip->app;
    if (app->resume != NULL)
        return app->resume(r->tcpip->app_state, tcb, r->place);
    return tcb->app == 0 && tcb->slice_count == 0;
}

static void take(const struct resumption *r, const struct tcb *old, bool in_hand)
{
    struct tcpip *tcpip = r->tcpip;
    uint64_t hash = tcb_hash(&tcpip->connections, &old->flow);
    if (tcb_find(&tcpip->connections, &old->flow, hash) != NULL)
        return;
    struct tcb *tcb = tcb_table_add(&tcpip->connections, &old->flow, hash);
    if (tcb == NULL)
        return;
    copy_plain(tcb, old);
    start_windows(tcpip, tcb, old);
    start_timers(tcpip, tcb, old);
    if (!in_hand && take_slices(r, tcb, old) && take_unread(r, tcb, old) && app_goes_on(r, tcb)) {
        COUNT(tcpip, tcp_resumed);
        return;
    }
    COUNT(tcpip, tcp_drop_resume);
    connection_abort(tcpip, tcb);
}

/* Connections that have ended. */
static void copy_time_waits(const struct resumption *r)
{
    struct time_waits *waits = &r->tcpip->time_waits;
    const struct time_wait *theirs = there(r, waits->entries);
    for (size_t i = 0; i < ((size_t)waits->mask + 1) * TIME_WAIT_WAYS; i++) {
        bool timestamps = flag(&theirs[i].timestamps);
        waits->entries[i] = theirs[i];
        waits->entries[i].timestamps = timestamps;
    }
}

void tcpip_resume(struct tcpip *tcpip, const struct tcpip *from, uint32_t swaps)
{
    bool same = from->generations.serial == swaps + 1 && from->generations.newest < GENERATIONS_MAX;
    struct resumption r = {tcpip, from, same ? from->generations.newest : GENERATIONS_MAX};
    uint32_t most = tcpip->connections.count_max;
    uint32_t touched = from->connections.touched < most ? from->connections.touched : most;
    const struct tcb *theirs = there(&r, tcpip->connections.tcbs);
    tcpip->cookies = from->cookies;
    tcpip->counters = from->counters;
    tcpip->arena.counters = from->arena.counters;
    copy_time_waits(&r);
    for (uint32_t i = 0; i < touched; i++)
        if (is_connection(&r, &theirs[i]) && are_positions_sound(&theirs[i]))
            take(&r, &theirs[i], from->receiving == i + 1);
    /* Those that were no connections in the end are none here. */
    tcpip->counters.tcp_closed = tcpip->counters.tcp_opened - tcb_table_count(&tcpip->connections);
}
