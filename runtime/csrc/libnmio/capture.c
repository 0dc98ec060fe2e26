#define _GNU_SOURCE
#include "capture.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "pcapng.h"
#include "region.h"
#include "wire/checksum.h"
#include "wire/wire.h"

#define FILE_BUFFER_BYTES 1048576
#define RECORD_ALIGN_BYTES 8
#define RECORD_CHECKSUM_OPEN 0x100 /* beside PCAPNG_*: the TCP checksum may be unfinished */
#define RECORD_CHECKSUM_MAY_BE_PARTIAL 0x200 /* it is if it is the pseudo-header's sum */

/* In front of a frame in a ring. */
struct record {
    uint64_t time_ns; /* monotonic */
    uint64_t dropped; /* since the record before */
    uint32_t len_bytes, kept_bytes;
    uint32_t flags, zero;
};

/* Positions in a ring only grow; a byte's place is its position modulo ring_bytes. The ring's memory, which begins with these, is shared
 * with the process that the worker is in, and the writer, who may have more rights, believes nothing of it. */
struct capture_shared {
    _Alignas(NMIO_CACHE_LINE_BYTES) atomic_uint_fast64_t head; /* written by the worker */
    atomic_uint_fast64_t dropped;
    _Alignas(NMIO_CACHE_LINE_BYTES) atomic_uint_fast64_t tail; /* written by the writer */
};

struct captured_port {
    struct nmio_port port;
    struct nmio_port *inner;
    struct capture_shared *shared;
    uint8_t *ring; /* [ring_bytes], behind shared */
    uint64_t ring_bytes;
    uint64_t at; /* the worker's position, ahead of head until a batch is whole */
    uint64_t dropped_new; /* since the last record */
    uint32_t snap_bytes;
    uint32_t given; /* descriptors at the front of tx that the port had no room for: captured already */
    _Alignas(NMIO_CACHE_LINE_BYTES) uint64_t tail; /* the writer's, as is all that follows */
    uint64_t written;
    uint32_t interface;
    struct captured_port *next;
};

struct capture {
    FILE *file;
    struct captured_port *first;
    uint8_t *frame; /* [snap_bytes], the one that is being written */
    char *buffer; /* [FILE_BUFFER_BYTES], the file's */
    uint32_t snap_bytes, port_count;
    uint64_t start_ns; /* monotonic */
    uint64_t wall_offset_ns;
    atomic_uint_fast64_t written;
    bool finished; /* the statistics are written */
    int error;
};

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint64_t aligned(uint64_t bytes)
{
    return (bytes + RECORD_ALIGN_BYTES - 1) & ~(uint64_t)(RECORD_ALIGN_BYTES - 1);
}

/* ------------------------------------------------------------------ the worker's side */

static void ring_put(struct captured_port *port, const void *data, uint64_t len_bytes)
{
    uint64_t place = port->at % port->ring_bytes, to_end = port->ring_bytes - place;
    uint64_t first = len_bytes < to_end ? len_bytes : to_end;
    memcpy(port->ring + place, data, first);
    memcpy(port->ring, (const uint8_t *)data + first, len_bytes - first);
    port->at += len_bytes;
}

/* A record's head, if there is room for all of it; the frame's kept bytes are to follow. */
static bool record_begin(struct captured_port *port, uint64_t now_ns, uint32_t len_bytes, uint32_t flags)
{
    uint32_t kept = len_bytes < port->snap_bytes ? len_bytes : port->snap_bytes;
    uint64_t used = port->at - atomic_load_explicit(&port->shared->tail, memory_order_acquire);
    if (port->ring_bytes - used < sizeof(struct record) + aligned(kept)) {
        atomic_uint_fast64_t *dropped = &port->shared->dropped;
        atomic_store_explicit(dropped, atomic_load_explicit(dropped, memory_order_relaxed) + 1, memory_order_relaxed);
        port->dropped_new++;
        return false;
    }
    struct record record = {now_ns, port->dropped_new, len_bytes, kept, flags, 0};
    ring_put(port, &record, sizeof(record));
    port->dropped_new = 0;
    return true;
}

/* What was put is the writer's from here on. */
static void publish(struct captured_port *port)
{
    atomic_store_explicit(&port->shared->head, port->at, memory_order_release);
}

static void keep_received(struct captured_port *port, const struct nmio_rx *rx, uint64_t now_ns)
{
    uint32_t open = (rx->flags & NMIO_RX_CHECKSUM_OK) != 0 ? RECORD_CHECKSUM_OPEN : 0;
    open |= (rx->flags & NMIO_RX_CHECKSUM_MAY_BE_PARTIAL) != 0 ? RECORD_CHECKSUM_MAY_BE_PARTIAL : 0;
    if (!record_begin(port, now_ns, rx->len_bytes, PCAPNG_INBOUND | open))
        return;
    ring_put(port, rx->data, rx->len_bytes < port->snap_bytes ? rx->len_bytes : port->snap_bytes);
    port->at = aligned(port->at);
}

static void keep_sent(struct captured_port *port, const struct nmio_tx_desc *desc, uint64_t now_ns)
{
    const struct nmio_piece *pieces = &port->port.tx->piece[desc->first_piece];
    uint32_t open = desc->checksum_partial ? RECORD_CHECKSUM_OPEN : 0;
    uint32_t len_bytes = desc->head_bytes, room = port->snap_bytes;
    for (uint32_t i = 0; i < desc->piece_count; i++)
        len_bytes += pieces[i].len_bytes;
    if (!record_begin(port, now_ns, len_bytes, PCAPNG_OUTBOUND | open))
        return;
    uint32_t part = desc->head_bytes < room ? desc->head_bytes : room;
    ring_put(port, desc->head, part);
    for (uint32_t i = 0; i < desc->piece_count; i++) {
        room -= part;
        part = pieces[i].len_bytes < room ? pieces[i].len_bytes : room;
        ring_put(port, pieces[i].data, part);
    }
    port->at = aligned(port->at);
}

static int captured_input(struct nmio_port *base, struct nmio_rx *batch, uint32_t max)
{
    struct captured_port *port = (struct captured_port *)base;
    int count = port->inner->ops->input(port->inner, batch, max);
    if (count <= 0)
        return count;
    uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);
    for (int i = 0; i < count; i++)
        keep_received(port, &batch[i], now_ns);
    publish(port);
    port->port.counters = port->inner->counters;
    return count;
}

static void captured_release(struct nmio_port *base, struct nmio_rx *batch, uint32_t count)
{
    struct captured_port *port = (struct captured_port *)base;
    port->inner->ops->release(port->inner, batch, count);
}

static int captured_output(struct nmio_port *base)
{
    struct captured_port *port = (struct captured_port *)base;
    struct nmio_tx *tx = base->tx;
    if (tx->count > port->given) {
        uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);
        for (uint32_t i = port->given; i < tx->count; i++)
            keep_sent(port, &tx->desc[i], now_ns);
        publish(port);
    }
    int error = port->inner->ops->output(port->inner);
    port->given = tx->count;
    port->port.counters = port->inner->counters;
    return error;
}

static int captured_wait(struct nmio_port *base, int64_t timeout_ns, int wake_fd)
{
    struct captured_port *port = (struct captured_port *)base;
    return port->inner->ops->wait(port->inner, timeout_ns, wake_fd);
}

static void captured_close(struct nmio_port *base)
{
    (void)base;
}

static int captured_reopen(struct nmio_port *base)
{
    struct captured_port *port = (struct captured_port *)base;
    port->at =
        atomic_load_explicit(&port->shared->head, memory_order_acquire); /* what is whole is still to be written */
    int error = port->inner->ops->reopen != NULL ? port->inner->ops->reopen(port->inner) : 0;
    port->port.fd = port->inner->fd;
    return error;
}

static const struct nmio_port_ops captured_ops = {"captured",    captured_input, captured_release, captured_output,
                                                  captured_wait, captured_close, captured_reopen};

/* ------------------------------------------------------------------ the writer's side */

static void ring_get(const struct captured_port *port, uint64_t position, void *data, uint64_t len_bytes)
{
    uint64_t place = position % port->ring_bytes, to_end = port->ring_bytes - place;
    uint64_t first = len_bytes < to_end ? len_bytes : to_end;
    memcpy(data, port->ring + place, first);
    memcpy((uint8_t *)data + first, port->ring, len_bytes - first);
}

/* Where a frame's TCP header is, or NULL if it has none; *sum: of the pseudo-header. */
static struct wire_tcp *find_tcp(uint8_t *frame, uint32_t len_bytes, uint32_t *tcp_bytes, uint64_t *sum)
{
    const struct wire_eth *eth = (const struct wire_eth *)frame;
    const struct wire_ipv4 *v4 = (const struct wire_ipv4 *)(eth + 1);
    const struct wire_ipv6 *v6 = (const struct wire_ipv6 *)(eth + 1);
    uint32_t ip_bytes = 0, all_bytes = 0;
    if (len_bytes >= sizeof(*eth) + sizeof(*v4) && eth->type == be16(ETH_TYPE_IPV4) &&
        v4->protocol == IP_PROTOCOL_TCP && (be16(v4->fragment) & IPV4_FRAGMENT_MASK) == 0) {
        ip_bytes = (v4->version_ihl & 15u) * 4;
        all_bytes = be16(v4->total_bytes);
        *sum = checksum_sum(v4->source, 8);
    } else if (len_bytes >= sizeof(*eth) + sizeof(*v6) && eth->type == be16(ETH_TYPE_IPV6) &&
               v6->next_header == IP_PROTOCOL_TCP) {
        ip_bytes = sizeof(*v6);
        all_bytes = ip_bytes + be16(v6->payload_bytes);
        *sum = checksum_sum(v6->source, 32);
    }
    if (ip_bytes == 0 || all_bytes < ip_bytes + sizeof(struct wire_tcp) || all_bytes > len_bytes - sizeof(*eth))
        return NULL;
    *tcp_bytes = all_bytes - ip_bytes;
    *sum += checksum_pseudo(IP_PROTOCOL_TCP, *tcp_bytes);
    return (struct wire_tcp *)(frame + sizeof(*eth) + ip_bytes);
}

/* flags: of its record. One that came damaged is shown as it came. */
static void finish_checksum(uint8_t *frame, uint32_t len_bytes, uint32_t flags)
{
    uint32_t tcp_bytes;
    uint64_t sum;
    struct wire_tcp *tcp = find_tcp(frame, len_bytes, &tcp_bytes, &sum);
    if (tcp == NULL || ((flags & RECORD_CHECKSUM_OPEN) == 0 && tcp->checksum != checksum_fold(sum)) ||
        checksum_fold(sum + checksum_sum(tcp, tcp_bytes)) == 0xffff)
        return;
    tcp->checksum = 0;
    tcp->checksum = (uint16_t)~checksum_fold(sum + checksum_sum(tcp, tcp_bytes));
}

static void write_record(struct capture *capture, struct captured_port *port, const struct record *record)
{
    ring_get(port, port->tail + sizeof(*record), capture->frame, record->kept_bytes);
    port->tail += sizeof(*record) + aligned(record->kept_bytes);
    atomic_store_explicit(&port->shared->tail, port->tail, memory_order_release);
    if ((record->flags & (RECORD_CHECKSUM_OPEN | RECORD_CHECKSUM_MAY_BE_PARTIAL)) != 0 &&
        record->kept_bytes == record->len_bytes)
        finish_checksum(capture->frame, record->len_bytes, record->flags);
    struct pcapng_packet packet = {.data = capture->frame,
                                   .len_bytes = record->len_bytes,
                                   .kept_bytes = record->kept_bytes,
                                   .interface = port->interface,
                                   .flags = record->flags & (PCAPNG_INBOUND | PCAPNG_OUTBOUND),
                                   .time_ns = record->time_ns + capture->wall_offset_ns,
                                   .dropped = record->dropped};
    pcapng_packet(capture->file, &packet);
    port->written++;
}

/* Is there a next record, and a copy of it, *record, as a worker writes them? 0: none; -EBADMSG: it is not. */
static int next_record(const struct captured_port *port, struct record *record)
{
    uint64_t bytes = atomic_load_explicit(&port->shared->head, memory_order_acquire) - port->tail;
    if (bytes == 0)
        return 0;
    if (bytes < sizeof(*record) || bytes > port->ring_bytes)
        return -EBADMSG;
    ring_get(port, port->tail, record, sizeof(*record));
    if (record->kept_bytes > port->snap_bytes || record->kept_bytes > record->len_bytes ||
        aligned(record->kept_bytes) > bytes - sizeof(*record))
        return -EBADMSG;
    return 1;
}

/* The port with the earliest record of all, and that record; NULL: the rings are empty, or one is damaged. */
static struct captured_port *earliest(struct capture *capture, struct record *record)
{
    struct captured_port *found = NULL;
    for (struct captured_port *port = capture->first; port != NULL; port = port->next) {
        struct record next;
        int there = next_record(port, &next);
        if (there < 0) {
            capture->error = there;
            return NULL;
        }
        if (there == 0)
            continue;
        if (found != NULL && next.time_ns >= record->time_ns)
            continue;
        found = port;
        *record = next;
    }
    return found;
}

/* Once a write has failed, the capture is over. */
static void note_error(struct capture *capture)
{
    if (capture->error == 0 && ferror(capture->file))
        capture->error = errno != 0 ? -errno : -EIO;
}

int64_t capture_drain(struct capture *capture)
{
    struct record record = {0};
    struct captured_port *port;
    int64_t count = 0;
    errno = 0;
    while (capture->error == 0 && (port = earliest(capture, &record)) != NULL) {
        write_record(capture, port, &record);
        note_error(capture);
        count++;
    }
    if (capture->error == 0 && count > 0) {
        fflush(capture->file);
        note_error(capture);
        uint64_t written = atomic_load_explicit(&capture->written, memory_order_relaxed);
        atomic_store_explicit(&capture->written, written + (uint64_t)count, memory_order_relaxed);
    }
    return capture->error != 0 ? capture->error : count;
}

uint64_t capture_written(const struct capture *capture)
{
    return atomic_load_explicit(&capture->written, memory_order_relaxed);
}

uint64_t capture_dropped(const struct capture *capture)
{
    uint64_t dropped = 0;
    for (const struct captured_port *port = capture->first; port != NULL; port = port->next)
        dropped += atomic_load_explicit(&port->shared->dropped, memory_order_relaxed);
    return dropped;
}

/* ------------------------------------------------------------------ beginning and end */

static void capture_free(struct capture *capture)
{
    free(capture->frame);
    free(capture->buffer);
    nmio_free(capture);
}

int capture_open(struct capture **capture, const char *path, uint32_t snap_bytes, const char *application)
{
    if (snap_bytes == 0 || snap_bytes > CAPTURE_SNAP_BYTES_MAX)
        return -EINVAL;
    struct capture *made = nmio_alloc(sizeof(*made));
    if (made == NULL)
        return -ENOMEM;
    made->snap_bytes = snap_bytes;
    made->frame = malloc(snap_bytes);
    made->buffer = malloc(FILE_BUFFER_BYTES);
    bool memory = made->frame != NULL && made->buffer != NULL;
    made->file = memory ? fopen(path, "wbe") : NULL;
    if (made->file == NULL) {
        int error = memory ? -errno : -ENOMEM;
        capture_free(made);
        return error;
    }
    setvbuf(made->file, made->buffer, _IOFBF, FILE_BUFFER_BYTES);
    made->start_ns = clock_ns(CLOCK_MONOTONIC);
    made->wall_offset_ns = clock_ns(CLOCK_REALTIME) - made->start_ns;
    pcapng_section(made->file, application);
    *capture = made;
    return 0;
}

int capture_add(struct capture *capture, struct nmio_port *port, uint64_t ring_bytes, const char *name,
                const char *description, struct nmio_port **captured)
{
    if (ring_bytes < CAPTURE_RING_BYTES_MIN)
        return -EINVAL;
    struct captured_port *made = nmio_alloc(sizeof(*made));
    if (made == NULL)
        return -ENOMEM;
    made->shared = nmio_alloc_shared(sizeof(*made->shared) + ring_bytes);
    if (made->shared == NULL) {
        nmio_free(made);
        return -ENOMEM;
    }
    made->ring = (uint8_t *)(made->shared + 1);
    made->port = (struct nmio_port){
        .ops = &captured_ops, .region = port->region, .tx = port->tx, .gather_max = port->gather_max, .fd = port->fd};
    made->inner = port;
    made->ring_bytes = ring_bytes;
    made->snap_bytes = capture->snap_bytes;
    made->interface = capture->port_count++;
    made->next = capture->first;
    capture->first = made;
    /* Readers take a snap length for what the longest frame may have: 0 says that none is cut. */
    bool whole = capture->snap_bytes == CAPTURE_SNAP_BYTES_MAX;
    pcapng_interface(capture->file, name, description, whole ? 0 : capture->snap_bytes);
    *captured = &made->port;
    return 0;
}

static void write_statistics(struct capture *capture, const struct captured_port *port)
{
    uint64_t dropped = atomic_load_explicit(&port->shared->dropped, memory_order_relaxed);
    struct pcapng_statistics statistics = {.interface = port->interface,
                                           .start_ns = capture->start_ns + capture->wall_offset_ns,
                                           .end_ns = clock_ns(CLOCK_MONOTONIC) + capture->wall_offset_ns,
                                           .received = port->written + dropped,
                                           .dropped = dropped,
                                           .written = port->written};
    pcapng_statistics(capture->file, &statistics);
}

int capture_finish(struct capture *capture)
{
    capture_drain(capture);
    if (capture->finished || capture->error != 0)
        return capture->error;
    capture->finished = true;
    errno = 0;
    for (const struct captured_port *port = capture->first; port != NULL; port = port->next)
        write_statistics(capture, port);
    fflush(capture->file);
    note_error(capture);
    return capture->error;
}

int capture_close(struct capture *capture)
{
    int error = capture_finish(capture);
    while (capture->first != NULL) {
        struct captured_port *port = capture->first;
        capture->first = port->next;
        nmio_free_shared(port->shared, sizeof(*port->shared) + port->ring_bytes);
        nmio_free(port);
    }
    if (fclose(capture->file) != 0 && error == 0)
        error = -errno;
    capture_free(capture);
    return error;
}
