#define _GNU_SOURCE
#include "trace.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#include "region.h"
#include "wire/ipv6_extension.h"
#include "wire/wire.h"

/* Positions only grow; a record's place is its position modulo TRACE_RECORDS. This memory is shared with the process that the worker is
 * in, and the reader, who may have more rights, believes nothing of it. */
struct trace_shared {
    _Alignas(NMIO_CACHE_LINE_BYTES) atomic_uint_fast64_t head; /* written by the worker */
    _Alignas(NMIO_CACHE_LINE_BYTES) atomic_uint_fast64_t tail; /* written by the reader */
    _Alignas(NMIO_CACHE_LINE_BYTES) struct trace_record records[TRACE_RECORDS];
};

struct trace {
    struct nmio_port *port;
    const struct nmio_port_ops *ops; /* the port's own */
    struct trace_shared *shared;
    struct trace_filter filter; /* for the worker to read while it is on */
    atomic_bool on;
    atomic_bool in_use; /* by the worker, at this moment */
    uint64_t at, dropped_new; /* the worker's */
    uint32_t given; /* likewise: descriptors at the front of tx that the port had no room for, kept already */
    uint64_t tail; /* the reader's */
};

/* ------------------------------------------------------------------ the worker's side */

static uint64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Of a packet from or to the client: may what is behind its IP header be of the port? A fragment's ports can't be seen. */
static bool has_port(const struct trace_filter *filter, const uint8_t *tcp, uint32_t left_bytes, bool received)
{
    return filter->port == 0 || left_bytes < 4 || load_be16(tcp + (received ? 0 : 2)) == filter->port;
}

static bool is_clients_v4(const struct trace_filter *filter, const uint8_t *packet, uint32_t bytes, bool received)
{
    const struct wire_ipv4 *ip = (const struct wire_ipv4 *)packet;
    if (bytes < sizeof(*ip) || ip->protocol != IP_PROTOCOL_TCP ||
        memcmp(received ? ip->source : ip->destination, filter->address, sizeof(ip->source)) != 0)
        return false;
    uint32_t head_bytes = (ip->version_ihl & 15u) * 4;
    if ((be16(ip->fragment) & IPV4_FRAGMENT_OFFSET) != 0 || head_bytes > bytes)
        return true;
    return has_port(filter, packet + head_bytes, bytes - head_bytes, received);
}

static bool is_clients_v6(const struct trace_filter *filter, const uint8_t *packet, uint32_t bytes, bool received)
{
    const struct wire_ipv6 *ip = (const struct wire_ipv6 *)packet;
    if (bytes < sizeof(*ip) ||
        memcmp(received ? ip->source : ip->destination, filter->address, sizeof(ip->source)) != 0)
        return false;
    if (ipv6_is_extension(ip->next_header)) /* seldom: whoever reads it looks further */
        return true;
    return ip->next_header == IP_PROTOCOL_TCP &&
           has_port(filter, packet + sizeof(*ip), bytes - (uint32_t)sizeof(*ip), received);
}

/* frame: as many of its bytes as are in one piece. */
static bool is_clients(const struct trace_filter *filter, const uint8_t *frame, uint32_t bytes, bool received)
{
    uint32_t head_bytes = sizeof(struct wire_eth);
    if (bytes < head_bytes)
        return false;
    uint16_t type = load_be16(frame + offsetof(struct wire_eth, type));
    if (type == ETH_TYPE_VLAN && bytes >= sizeof(struct wire_eth) + sizeof(struct wire_vlan)) {
        head_bytes += sizeof(struct wire_vlan);
        type = load_be16(frame + head_bytes - 2);
    }
    if (type == ETH_TYPE_IPV4 && filter->family == IP_FAMILY_V4)
        return is_clients_v4(filter, frame + head_bytes, bytes - head_bytes, received);
    return type == ETH_TYPE_IPV6 && filter->family == IP_FAMILY_V6 &&
           is_clients_v6(filter, frame + head_bytes, bytes - head_bytes, received);
}

/* A place for the next record, or NULL. */
static struct trace_record *take_place(struct trace *trace)
{
    if (trace->at - atomic_load_explicit(&trace->shared->tail, memory_order_acquire) >= TRACE_RECORDS) {
        trace->dropped_new++;
        return NULL;
    }
    return &trace->shared->records[trace->at % TRACE_RECORDS];
}

static void keep(struct trace *trace, const uint8_t *head, const struct trace_record *of)
{
    struct trace_record *record = take_place(trace);
    if (record == NULL)
        return;
    uint32_t kept_bytes = of->kept_bytes < TRACE_HEAD_BYTES ? of->kept_bytes : TRACE_HEAD_BYTES;
    memcpy(record, of, offsetof(struct trace_record, head));
    memcpy(record->head, head, kept_bytes);
    record->kept_bytes = kept_bytes;
    record->time_ns = monotonic_ns();
    record->session = trace->filter.session;
    record->dropped = trace->dropped_new;
    trace->dropped_new = 0;
    trace->at++;
    atomic_store_explicit(&trace->shared->head, trace->at, memory_order_release);
}

/* False: it has ended since the port's functions were looked up. Else `leave` is to be called. */
static bool enter(struct trace *trace)
{
    atomic_store(&trace->in_use, true);
    if (atomic_load(&trace->on))
        return true;
    atomic_store(&trace->in_use, false);
    return false;
}

static void leave(struct trace *trace)
{
    atomic_store(&trace->in_use, false);
}

static int traced_input(struct nmio_port *port, struct nmio_rx *batch, uint32_t max)
{
    struct trace *trace = port->trace;
    int count = trace->ops->input(port, batch, max);
    if (count <= 0 || !enter(trace))
        return count;
    for (int i = 0; i < count; i++) {
        const struct nmio_rx *rx = &batch[i];
        struct trace_record of = {
            .direction = TRACE_RECEIVED, .len_bytes = rx->len_bytes, .kept_bytes = rx->len_bytes};
        if (is_clients(&trace->filter, rx->data, rx->len_bytes, true))
            keep(trace, rx->data, &of);
    }
    leave(trace);
    return count;
}

static void keep_sent(struct trace *trace, const struct nmio_tx *tx, const struct nmio_tx_desc *desc)
{
    struct trace_record of = {.direction = TRACE_SENT,
                              .len_bytes = desc->head_bytes,
                              .gso_bytes = desc->gso_bytes,
                              .kept_bytes = desc->head_bytes};
    if (!is_clients(&trace->filter, desc->head, desc->head_bytes, false))
        return;
    for (uint32_t i = 0; i < desc->piece_count; i++)
        of.len_bytes += tx->piece[desc->first_piece + i].len_bytes;
    keep(trace, desc->head, &of);
}

static int traced_output(struct nmio_port *port)
{
    struct trace *trace = port->trace;
    const struct nmio_tx *tx = port->tx;
    if (!enter(trace))
        return trace->ops->output(port);
    for (uint32_t i = trace->given; i < tx->count; i++)
        keep_sent(trace, tx, &tx->desc[i]);
    leave(trace);
    int error = trace->ops->output(port);
    trace->given = tx->count;
    return error;
}

static void traced_release(struct nmio_port *port, struct nmio_rx *batch, uint32_t count)
{
    port->trace->ops->release(port, batch, count);
}

static int traced_wait(struct nmio_port *port, int64_t timeout_ns, int wake_fd)
{
    return port->trace->ops->wait(port, timeout_ns, wake_fd);
}

static void traced_close(struct nmio_port *port)
{
    port->trace->ops->close(port);
}

static int traced_reopen(struct nmio_port *port)
{
    const struct nmio_port_ops *ops = port->trace->ops;
    return ops->reopen != NULL ? ops->reopen(port) : 0;
}

static const struct nmio_port_ops traced_ops = {"traced",    traced_input, traced_release, traced_output,
                                                traced_wait, traced_close, traced_reopen};

/* ------------------------------------------------------------------ whoever starts and ends it */

/* The worker looks its functions up for each call; one more of those that it has left may come yet, and finds that it is over. */
static void set_ops(struct trace *trace, const struct nmio_port_ops *ops)
{
    __atomic_store_n(&trace->port->ops, ops, __ATOMIC_RELEASE);
}

void trace_set(struct trace *trace, const struct trace_filter *filter)
{
    set_ops(trace, trace->ops);
    atomic_store(&trace->on, false);
    while (atomic_load(&trace->in_use))
        sched_yield();
    if (filter->family == 0)
        return;
    trace->filter = *filter;
    trace->at = atomic_load_explicit(&trace->shared->head, memory_order_relaxed);
    trace->dropped_new = 0;
    trace->given = 0;
    atomic_store(&trace->on, true);
    set_ops(trace, &traced_ops);
}

struct trace *trace_create(struct nmio_port *port)
{
    struct trace *trace = nmio_alloc(sizeof(*trace));
    if (trace == NULL)
        return NULL;
    trace->port = port;
    trace->ops = port->ops;
    trace->shared = nmio_alloc_shared(sizeof(*trace->shared));
    if (trace->shared == NULL) {
        nmio_free(trace);
        return NULL;
    }
    port->trace = trace;
    return trace;
}

void trace_destroy(struct trace *trace)
{
    trace->port->ops = trace->ops;
    trace->port->trace = NULL;
    nmio_free_shared(trace->shared, sizeof(*trace->shared));
    nmio_free(trace);
}

/* ------------------------------------------------------------------ the reader's side */

void trace_skip(struct trace *trace)
{
    trace->tail = atomic_load_explicit(&trace->shared->head, memory_order_acquire);
    atomic_store_explicit(&trace->shared->tail, trace->tail, memory_order_release);
}

int trace_next(struct trace *trace, struct trace_record *record)
{
    uint64_t count = atomic_load_explicit(&trace->shared->head, memory_order_acquire) - trace->tail;
    if (count == 0)
        return 0;
    if (count > TRACE_RECORDS)
        return -EBADMSG;
    memcpy(record, &trace->shared->records[trace->tail % TRACE_RECORDS], sizeof(*record));
    trace->tail++;
    atomic_store_explicit(&trace->shared->tail, trace->tail, memory_order_release);
    return record->kept_bytes <= TRACE_HEAD_BYTES ? 1 : -EBADMSG;
}
