#include "records.h"

#include <string.h>

#include "state.h"

_Static_assert(RECORD_SECRET_BYTES == SYN_COOKIE_SECRET_BYTES && RECORD_HEADER_BYTES == TCB_HEADER_BYTES,
               "records are copied as they are");

#define ALIGNMENT 8

static uint64_t aligned(uint64_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static size_t time_wait_places(const struct tcpip *tcpip)
{
    return ((size_t)tcpip->time_waits.mask + 1) * TIME_WAIT_WAYS;
}

uint64_t tcpip_records_bytes(const struct tcpip *tcpip)
{
    uint64_t connections = tcpip->connections.count_max;
    uint64_t slices = connections * TCB_SLICES + (uint64_t)tcpip->rings.pool.count * SLICE_RING_SLICES;
    return sizeof(struct records_header) + time_wait_places(tcpip) * sizeof(struct time_wait_record) +
           connections * (sizeof(struct connection_record) + 2 * ALIGNMENT) + slices * sizeof(struct slice_record) +
           (uint64_t)tcpip->composed.pool.count * (COMPOSED_BYTES + ALIGNMENT) +
           (uint64_t)tcpip->buffers.count * TCB_RECEIVE_BYTES;
}

/* The memory, and how far it is used. */
struct writer {
    uint8_t *memory;
    uint64_t len_bytes, used_bytes;
};

static void *put(struct writer *writer, uint64_t bytes)
{
    if (aligned(bytes) > writer->len_bytes - writer->used_bytes)
        return NULL;
    void *at = writer->memory + writer->used_bytes;
    writer->used_bytes += aligned(bytes);
    return at;
}

static uint32_t flags_of(const struct tcb *tcb)
{
    return (tcb->timestamps ? RECORD_TIMESTAMPS : 0) | (tcb->sack ? RECORD_SACK : 0) | (tcb->ecn ? RECORD_ECN : 0) |
           (tcb->ect ? RECORD_ECT : 0) | (tcb->fin_queued ? RECORD_FIN_QUEUED : 0) |
           (tcb->fin_received ? RECORD_FIN_RECEIVED : 0) | (tcb->peer_done ? RECORD_PEER_DONE : 0) |
           (tcb->request_begun ? RECORD_REQUEST_BEGUN : 0);
}

static void fill(struct connection_record *record, const struct tcpip *tcpip, const struct tcb *tcb)
{
    const struct eth_address *local = &tcpip->eth->config.addresses[tcb->flow.local];
    *record = (struct connection_record){.peer_port = tcb->flow.peer_port,
                                         .family = tcb->flow.family,
                                         .state = tcb->state,
                                         .ip_bytes = tcb->ip_bytes,
                                         .snd_wscale = tcb->snd_wscale,
                                         .mss = tcb->mss,
                                         .flags = flags_of(tcb),
                                         .buffered_bytes = tcb->buffer != TCB_NONE ? tcb->buffered_bytes : 0,
                                         .snd_una = tcb->snd_una,
                                         .snd_nxt = tcb->snd_nxt,
                                         .snd_end = tcb->snd_end,
                                         .progress_us = tcb->progress_us,
                                         .app = tcb->app,
                                         .pseudo_sum = tcb->pseudo_sum,
                                         .ip_sum = tcb->ip_sum,
                                         .snd_wnd = tcb->snd_wnd,
                                         .snd_wnd_max = tcb->snd_wnd_max,
                                         .snd_wl1 = tcb->snd_wl1,
                                         .snd_wl2 = tcb->snd_wl2,
                                         .rcv_nxt = tcb->rcv_nxt,
                                         .ts_recent = tcb->ts_recent,
                                         .ts_offset = tcb->ts_offset,
                                         .last_ack_sent = tcb->last_ack_sent,
                                         .irs = tcb->irs,
                                         .unread_bytes = tcb->unread_bytes,
                                         .opened_s = tcb->opened_s,
                                         .cwnd = tcb->cwnd,
                                         .srtt_us = tcb->srtt_us,
                                         .rttvar_us = tcb->rttvar_us,
                                         .rto_us = tcb->rto_us,
                                         .min_rtt_us = tcb->min_rtt_us};
    memcpy(record->peer, tcb->flow.peer, sizeof(record->peer));
    memcpy(record->local, local->bytes, sizeof(record->local));
    memcpy(record->header, tcb->header, sizeof(record->header));
}

/* Of those that are not acknowledged. False: it is of another image, or there is no room. */
static bool put_slices(struct writer *writer, const struct tcpip *tcpip, const struct tcb *tcb,
                       struct connection_record *record)
{
    for (uint32_t i = 0; i < tcb->slice_count; i++) {
        const struct response_slice *slice = tcb_slice(tcb, i);
        bool composed = is_composed(slice);
        if (slice->end <= tcb->snd_una)
            continue;
        struct slice_record *into = put(writer, sizeof(*into));
        if (into == NULL || (!composed && slice->generation != tcpip->generations.newest))
            return false;
        *into = (struct slice_record){.start = slice->start,
                                      .end = slice->end,
                                      .skip = slice->skip,
                                      .first_frame = composed ? record->composed_bytes : slice->first_frame,
                                      .is_composed = composed};
        memcpy(into->app, slice->app, sizeof(into->app));
        record->slice_count++;
        record->composed_bytes += composed ? (uint32_t)(slice->end - slice->start) : 0;
    }
    return true;
}

static bool put_composed(struct writer *writer, const struct tcpip *tcpip, const struct tcb *tcb,
                         const struct connection_record *record)
{
    uint8_t *into = put(writer, record->composed_bytes);
    for (uint32_t i = 0; i < tcb->slice_count && into != NULL; i++) {
        const struct response_slice *slice = tcb_slice(tcb, i);
        if (slice->end <= tcb->snd_una || !is_composed(slice))
            continue;
        size_t bytes = (size_t)(slice->end - slice->start);
        memcpy(into, composed_bytes(&tcpip->composed, slice->first_frame), bytes);
        into += bytes;
    }
    return into != NULL;
}

static bool put_connection(struct writer *writer, const struct tcpip *tcpip, const struct tcb *tcb)
{
    uint64_t before = writer->used_bytes;
    struct connection_record *record = put(writer, sizeof(*record));
    if (record == NULL)
        return false;
    fill(record, tcpip, tcb);
    if (put_slices(writer, tcpip, tcb, record) && put_composed(writer, tcpip, tcb, record)) {
        uint8_t *unread = put(writer, record->buffered_bytes);
        if (unread != NULL && record->buffered_bytes > 0)
            memcpy(unread, receive_buffer_bytes(&tcpip->buffers, tcb), record->buffered_bytes);
        if (unread != NULL) {
            record->bytes = writer->used_bytes - before;
            return true;
        }
    }
    writer->used_bytes = before;
    return false;
}

static uint32_t put_time_waits(struct writer *writer, const struct tcpip *tcpip)
{
    uint32_t count = 0;
    for (size_t i = 0; i < time_wait_places(tcpip); i++) {
        const struct time_wait *wait = &tcpip->time_waits.entries[i];
        if (wait->expires_us <= tcpip->now_us)
            continue;
        struct time_wait_record *into = put(writer, sizeof(*into));
        if (into == NULL)
            break;
        *into = (struct time_wait_record){wait->hash,       wait->expires_us, wait->snd_nxt,   wait->rcv_nxt,
                                          wait->irs,        wait->ts_recent,  wait->ts_offset, wait->quiet_until_ms,
                                          wait->timestamps, wait->ended};
        count++;
    }
    return count;
}

uint64_t tcpip_records_write(const struct tcpip *tcpip, uint8_t *memory, uint64_t len_bytes)
{
    struct writer writer = {memory, len_bytes, 0};
    struct records_header *header = put(&writer, sizeof(*header));
    if (header == NULL)
        return 0;
    *header = (struct records_header){.version = RECORDS_VERSION, .place = tcpip->generations.newest};
    memcpy(header->magic, RECORDS_MAGIC, RECORDS_MAGIC_BYTES);
    memcpy(header->flow_secret, tcpip->cookies.flow_secret, sizeof(header->flow_secret));
    memcpy(header->secrets, tcpip->cookies.secrets, sizeof(header->secrets));
    memcpy(header->salts, tcpip->cookies.salts, sizeof(header->salts));
    header->time_wait_count = put_time_waits(&writer, tcpip);
    for (uint32_t i = 0; i < tcpip->connections.touched; i++)
        if (tcpip->connections.tcbs[i].state != 0)
            header->connection_count += put_connection(&writer, tcpip, &tcpip->connections.tcbs[i]);
    header->used_bytes = writer.used_bytes;
    return writer.used_bytes;
}

const struct records_header *records_header_read(const uint8_t *memory, uint64_t len_bytes)
{
    const struct records_header *header = (const struct records_header *)(const void *)memory;
    if (len_bytes < sizeof(*header) || memcmp(header->magic, RECORDS_MAGIC, RECORDS_MAGIC_BYTES) != 0 ||
        header->version != RECORDS_VERSION || header->used_bytes > len_bytes ||
        header->used_bytes < sizeof(*header) ||
        header->time_wait_count > (header->used_bytes - sizeof(*header)) / sizeof(struct time_wait_record))
        return NULL;
    return header;
}

const struct time_wait_record *records_time_waits(const struct records_header *header)
{
    return (const struct time_wait_record *)(const void *)(header + 1);
}

bool records_next(const struct records_header *header, uint64_t *at, struct read_record *record)
{
    uint64_t first = sizeof(*header) + header->time_wait_count * sizeof(struct time_wait_record);
    const uint8_t *begin = (const uint8_t *)header + first + *at;
    uint64_t left = header->used_bytes - first - *at;
    const struct connection_record *connection = (const struct connection_record *)(const void *)begin;
    if (left < sizeof(*connection) || connection->bytes % ALIGNMENT != 0 || connection->bytes > left)
        return false;
    uint64_t slices_bytes = (uint64_t)connection->slice_count * sizeof(struct slice_record);
    uint64_t needed = sizeof(*connection) + slices_bytes + aligned(connection->composed_bytes) +
                      aligned(connection->buffered_bytes);
    if (needed > connection->bytes)
        return false;
    record->connection = connection;
    record->slices = (const struct slice_record *)(const void *)(connection + 1);
    record->composed = (const uint8_t *)record->slices + slices_bytes;
    record->unread = record->composed + aligned(connection->composed_bytes);
    *at += connection->bytes;
    return true;
}
