#include "resume.h"

#include "connection.h"
#include "frame_walk.h"
#include "records.h"
#include "recovery.h"
#include "segment_size.h"

#define POSITION_MIN (1ull << 32) /* connection_open begins there */
#define POSITION_MAX (1ull << 62)
#define FLIGHT_BYTES_MAX (1u << 30) /* no window is larger, RFC 7323 section 2.3 */
#define WSCALE_MAX 14

struct resumption {
    struct tcpip *tcpip;
    const struct tcpip *from; /* NULL: from records */
    uint32_t place; /* there, of the generation that is our newest; GENERATIONS_MAX: none is */
};

/* What is left of a connection. */
struct left {
    const struct tcb *tcb;
    const struct response_slice *ring; /* as the TCB says */
    uint32_t mask;
    const struct read_record *record; /* instead of that; or NULL */
    const uint8_t *unread; /* buffered_bytes of the TCB; NULL: none */
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

/* Where the bytes of a composed response are; NULL: it is none. */
static const uint8_t *composed_there(const struct resumption *r, const struct left *left,
                                     const struct response_slice *slice)
{
    const struct composed *composed = &r->tcpip->composed;
    uint32_t at = slice->first_frame, bytes = (uint32_t)(slice->end - slice->start);
    if (slice->skip != 0 || slice->end - slice->start > COMPOSED_BYTES)
        return NULL;
    if (left->record == NULL)
        return at < composed->pool.count ? there(r, composed_bytes(composed, at)) : NULL;
    uint32_t all = left->record->connection->composed_bytes;
    return at <= all && bytes <= all - at ? left->record->composed + at : NULL;
}

/* It moves to a buffer of ours. */
static bool take_composed(const struct resumption *r, const struct left *left, struct tcb *tcb,
                          struct response_slice *slice)
{
    struct composed *composed = &r->tcpip->composed;
    uint32_t owner = tcb_index(&r->tcpip->connections, tcb);
    const uint8_t *theirs = composed_there(r, left, slice);
    uint32_t buffer = theirs != NULL ? composed_acquire(composed, r->tcpip->now_us, owner) : NMIO_NONE;
    if (buffer == NMIO_NONE)
        return false;
    memcpy(composed_bytes(composed, buffer), theirs, (size_t)(slice->end - slice->start));
    slice->at_end = SLICE_COMPOSED;
    slice->first_frame = buffer;
    slice->generation = 0;
    return true;
}

static bool take_slice(const struct resumption *r, const struct left *left, struct tcb *tcb,
                       const struct response_slice *old)
{
    struct response_slice slice = *old;
    if (tcb->slice_count > tcb->slice_mask)
        tcpip_expect_many(r->tcpip, tcb);
    if (tcb->slice_count > tcb->slice_mask)
        return false;
    if (is_composed(old)) {
        if (!take_composed(r, left, tcb, &slice))
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

static struct response_slice slice_left(const struct left *left, uint32_t i)
{
    if (left->record == NULL)
        return left->ring[(left->tcb->slice_first + i) & left->mask];
    const struct slice_record *record = &left->record->slices[i];
    struct response_slice slice = {.start = record->start,
                                   .end = record->end,
                                   .skip = record->skip,
                                   .first_frame = record->first_frame,
                                   .at_end = record->is_composed != 0 ? SLICE_COMPOSED : 0};
    memcpy(slice.app, record->app, sizeof(slice.app));
    return slice;
}

static uint32_t slices_left(const struct left *left)
{
    if (left->record != NULL)
        return left->record->connection->slice_count;
    return left->tcb->slice_count <= left->mask ? left->tcb->slice_count : left->mask + 1;
}

/* Those that are not acknowledged, one behind the other. What was in the other's hand when it ended, one that is just being queued or
 * given back, is none. */
static bool take_slices(const struct resumption *r, const struct left *left, struct tcb *tcb)
{
    const struct tcb *old = left->tcb;
    uint64_t at = old->snd_una;
    for (uint32_t i = 0; i < slices_left(left); i++) {
        struct response_slice slice = slice_left(left, i);
        if (left->record != NULL)
            slice.generation = r->place & UINT8_MAX; /* no others are in records */
        if (slice.end <= old->snd_una)
            continue;
        if (slice.start >= old->snd_end)
            break;
        bool follows = tcb->slice_count == 0 ? slice.start <= at : slice.start == at;
        if (!follows || slice.start >= slice.end || slice.end > old->snd_end || !take_slice(r, left, tcb, &slice))
            return false;
        at = slice.end;
    }
    return at >= old->snd_end;
}

/* Unread bytes; what has come ahead of others comes again. */
static bool take_unread(const struct resumption *r, const struct left *left, struct tcb *tcb)
{
    struct receive_buffers *buffers = &r->tcpip->buffers;
    if (left->unread == NULL)
        return true;
    if (left->tcb->buffered_bytes > TCB_RECEIVE_BYTES || buffers->free == TCB_NONE)
        return false;
    receive_buffer_take(buffers, tcb, tcb_index(&r->tcpip->connections, tcb));
    receive_buffer_append(buffers, tcb, left->unread, left->tcb->buffered_bytes);
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

/* is_whole: nobody has ended in the middle of it. */
static void take(const struct resumption *r, const struct left *left, bool is_whole)
{
    struct tcpip *tcpip = r->tcpip;
    const struct tcb *old = left->tcb;
    uint64_t hash = tcb_hash(&tcpip->connections, &old->flow);
    if (tcb_find(&tcpip->connections, &old->flow, hash) != NULL)
        return;
    struct tcb *tcb = tcb_table_add(&tcpip->connections, &old->flow, hash);
    if (tcb == NULL)
        return;
    copy_plain(tcb, old);
    start_windows(tcpip, tcb, old);
    start_timers(tcpip, tcb, old);
    if (is_whole && take_slices(r, left, tcb) && take_unread(r, left, tcb) && app_goes_on(r, tcb)) {
        COUNT(tcpip, tcp_resumed);
        return;
    }
    COUNT(tcpip, tcp_drop_resume);
    connection_abort(tcpip, tcb);
}

/* What is left of one in the memory of a stack. False: where it says that its parts are there is nothing. */
static bool find_parts(const struct resumption *r, const struct tcb *old, struct left *left)
{
    const struct slice_rings *rings = &r->tcpip->rings;
    const struct receive_buffers *buffers = &r->tcpip->buffers;
    struct tcb theirs = {.buffer = old->buffer};
    *left = (struct left){.tcb = old, .ring = old->few_slices, .mask = TCB_SLICES - 1};
    if (old->slice_ring != TCB_NONE) {
        if (old->slice_ring >= rings->pool.count)
            return false;
        left->ring = there(r, &rings->slices[(size_t)old->slice_ring * SLICE_RING_SLICES]);
        left->mask = SLICE_RING_SLICES - 1;
    }
    if (old->buffer == TCB_NONE || old->buffered_bytes == 0)
        return true;
    if (old->buffer >= buffers->count)
        return false;
    left->unread = there(r, receive_buffer_bytes(buffers, &theirs));
    return true;
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
        if (is_connection(&r, &theirs[i]) && are_positions_sound(&theirs[i])) {
            struct left left;
            bool is_whole = find_parts(&r, &theirs[i], &left) && from->receiving != i + 1;
            take(&r, &left, is_whole);
        }
    /* Those that were no connections in the end are none here. */
    tcpip->counters.tcp_closed = tcpip->counters.tcp_opened - tcb_table_count(&tcpip->connections);
}

/* The index of an address of ours; address_count: it is none. */
static uint32_t find_local(const struct eth_config *eth, const struct connection_record *record)
{
    uint32_t local = 0;
    while (local < eth->address_count && (eth->addresses[local].family != record->family ||
                                          memcmp(eth->addresses[local].bytes, record->local, 16) != 0))
        local++;
    return local;
}

/* As it would have been in the memory of a stack of ours; all of it is checked as that is. */
/* long: a field a line */
static void tcb_of(const struct resumption *r, const struct connection_record *record, struct tcb *tcb)
{
    uint32_t flags = record->flags;
    *tcb = (struct tcb){.state = record->state,
                        .ip_bytes = record->ip_bytes,
                        .snd_wscale = record->snd_wscale,
                        .timestamps = flags & RECORD_TIMESTAMPS,
                        .sack = flags & RECORD_SACK,
                        .ecn = flags & RECORD_ECN,
                        .ect = flags & RECORD_ECT,
                        .fin_queued = flags & RECORD_FIN_QUEUED,
                        .fin_received = flags & RECORD_FIN_RECEIVED,
                        .peer_done = flags & RECORD_PEER_DONE,
                        .request_begun = flags & RECORD_REQUEST_BEGUN,
                        .mss = record->mss,
                        .snd_una = record->snd_una,
                        .snd_nxt = record->snd_nxt,
                        .snd_end = record->snd_end,
                        .snd_wnd = record->snd_wnd,
                        .snd_wnd_max = record->snd_wnd_max,
                        .snd_wl1 = record->snd_wl1,
                        .snd_wl2 = record->snd_wl2,
                        .rcv_nxt = record->rcv_nxt,
                        .ts_recent = record->ts_recent,
                        .ts_offset = record->ts_offset,
                        .last_ack_sent = record->last_ack_sent,
                        .app = record->app,
                        .irs = record->irs,
                        .unread_bytes = record->unread_bytes,
                        .opened_s = record->opened_s,
                        .pseudo_sum = record->pseudo_sum,
                        .ip_sum = record->ip_sum,
                        .cwnd = record->cwnd,
                        .srtt_us = record->srtt_us,
                        .rttvar_us = record->rttvar_us,
                        .rto_us = record->rto_us,
                        .min_rtt_us = record->min_rtt_us,
                        .progress_us = record->progress_us,
                        .buffered_bytes = record->buffered_bytes};
    tcb->flow = (struct tcp_flow){.peer_port = record->peer_port,
                                  .family = record->family,
                                  .local = (uint8_t)find_local(&r->tcpip->eth->config, record)};
    memcpy(tcb->flow.peer, record->peer, sizeof(tcb->flow.peer));
    memcpy(tcb->header, record->header, sizeof(tcb->header));
}

static void take_time_waits(struct tcpip *tcpip, const struct records_header *header)
{
    const struct time_wait_record *records = records_time_waits(header);
    for (uint32_t i = 0; i < header->time_wait_count; i++) {
        const struct time_wait_record *record = &records[i];
        struct time_wait wait = {record->hash,
                                 record->expires_us,
                                 record->snd_nxt,
                                 record->rcv_nxt,
                                 record->irs,
                                 record->ts_recent,
                                 record->ts_offset,
                                 record->quiet_until_ms,
                                 record->timestamps != 0,
                                 (uint8_t)record->ended};
        time_wait_take(&tcpip->time_waits, tcpip->now_us, &wait);
    }
}

bool tcpip_resume_records(struct tcpip *tcpip, const uint8_t *memory, uint64_t len_bytes)
{
    const struct records_header *header = records_header_read(memory, len_bytes);
    if (header == NULL)
        return false;
    struct resumption r = {tcpip, NULL, header->place < GENERATIONS_MAX ? header->place : GENERATIONS_MAX};
    struct read_record record;
    uint64_t at = 0;
    memcpy(tcpip->cookies.flow_secret, header->flow_secret, sizeof(header->flow_secret));
    memcpy(tcpip->cookies.secrets, header->secrets, sizeof(header->secrets));
    memcpy(tcpip->cookies.salts, header->salts, sizeof(header->salts));
    take_time_waits(tcpip, header);
    for (uint32_t i = 0; i < header->connection_count && records_next(header, &at, &record); i++) {
        struct tcb old;
        tcb_of(&r, record.connection, &old);
        if (is_connection(&r, &old) && are_positions_sound(&old)) {
            const uint8_t *unread = old.buffered_bytes > 0 ? record.unread : NULL;
            take(&r, &(struct left){.tcb = &old, .record = &record, .unread = unread}, true);
        }
    }
    tcpip->counters.tcp_opened += tcb_table_count(&tcpip->connections); /* here too, so that so many can close */
    return true;
}
