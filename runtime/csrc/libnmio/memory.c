#define _GNU_SOURCE
#include "memory.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "region.h"

#define MEMORY_RX_FRAMES 256
#define MEMORY_RX_BYTES 2048
#define MEMORY_TX_BYTES (16u << 20)
#define MEMORY_SUPERFRAME_BYTES 66000

struct flying {
    uint32_t chunks[1 + NMIO_PIECES_MAX];
    const uint8_t *data[1 + NMIO_PIECES_MAX];
    uint32_t len_bytes[1 + NMIO_PIECES_MAX];
    uint32_t parts;
    uint64_t due; /* output() call that completes it */
    uint64_t digest;
};

struct memory_port {
    struct nmio_port port;
    uint32_t ring, delay;
    bool strict;
    uint64_t calls, violations;
    struct flying *flying; /* [ring], a ring */
    uint32_t first, count;
    uint8_t *rx; /* [MEMORY_RX_FRAMES][MEMORY_RX_BYTES], a ring */
    uint32_t rx_len[MEMORY_RX_FRAMES], rx_flags[MEMORY_RX_FRAMES];
    uint32_t rx_first, rx_count, rx_taken;
    uint8_t *sent; /* frames sent: length, then bytes; read from sent_first */
    size_t sent_first, sent_end;
};

/* FNV-1a: enough to see that something changed. */
static uint64_t digest_of(const struct flying *f)
{
    uint64_t hash = 0xcbf29ce484222325;
    for (uint32_t part = 0; part < f->parts; part++)
        for (uint32_t i = 0; i < f->len_bytes[part]; i++)
            hash = (hash ^ f->data[part][i]) * 0x100000001b3;
    return hash;
}

struct nmio_port *memory_as_port(struct memory_port *memory)
{
    return &memory->port;
}

uint64_t memory_violations(const struct memory_port *memory)
{
    return memory->violations;
}

bool memory_feed(struct memory_port *memory, const uint8_t *frame, uint32_t len_bytes, uint32_t rx_flags)
{
    if (memory->rx_count == MEMORY_RX_FRAMES || len_bytes > MEMORY_RX_BYTES)
        return false;
    uint32_t at = (memory->rx_first + memory->rx_count++) % MEMORY_RX_FRAMES;
    memcpy(memory->rx + (size_t)at * MEMORY_RX_BYTES, frame, len_bytes);
    memory->rx_len[at] = len_bytes;
    memory->rx_flags[at] = rx_flags;
    return true;
}

static int memory_input(struct nmio_port *base, struct nmio_rx *batch, uint32_t max)
{
    struct memory_port *memory = (struct memory_port *)base;
    uint32_t count = memory->rx_count < max ? memory->rx_count : max;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = (memory->rx_first + i) % MEMORY_RX_FRAMES;
        batch[i] = (struct nmio_rx){.data = memory->rx + (size_t)at * MEMORY_RX_BYTES,
                                    .len_bytes = memory->rx_len[at],
                                    .flags = memory->rx_flags[at]};
        base->counters.rx_bytes += batch[i].len_bytes;
    }
    base->counters.rx_frames += count;
    return (int)count;
}

static void memory_release(struct nmio_port *base, struct nmio_rx *batch, uint32_t count)
{
    struct memory_port *memory = (struct memory_port *)base;
    (void)batch;
    memory->rx_first = (memory->rx_first + count) % MEMORY_RX_FRAMES;
    memory->rx_count -= count;
}

static void put16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static uint32_t get16(const uint8_t *at)
{
    return (uint32_t)at[0] << 8 | at[1];
}

/* Plain, byte by byte: shares nothing with the core's. */
static uint32_t plain_sum(const uint8_t *data, size_t len_bytes)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < len_bytes; i++)
        sum += i % 2 == 0 ? (uint32_t)data[i] << 8 : data[i];
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint32_t)sum;
}

static void finish_checksums(uint8_t *frame, uint32_t len_bytes, const struct nmio_tx_desc *desc)
{
    uint8_t *ip = frame + desc->l3_offset, *tcp = frame + desc->l4_offset;
    uint32_t tcp_bytes = len_bytes - desc->l4_offset;
    uint32_t addresses = desc->ipv6 ? plain_sum(ip + 8, 32) : plain_sum(ip + 12, 8);
    put16(tcp + 16, 0);
    uint32_t sum = addresses + 6 + tcp_bytes + plain_sum(tcp, tcp_bytes);
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    put16(tcp + 16, ~sum & 0xffff);
    if (!desc->ipv6) {
        put16(ip + 10, 0);
        put16(ip + 10, ~plain_sum(ip, 20) & 0xffff);
    }
}

static void keep(struct memory_port *memory, const uint8_t *frame, uint32_t len_bytes)
{
    if (memory->sent_first == memory->sent_end)
        memory->sent_first = memory->sent_end = 0;
    if (memory->sent_end + sizeof(len_bytes) + len_bytes > MEMORY_TX_BYTES) {
        memory->port.counters.tx_dropped++;
        return;
    }
    memcpy(memory->sent + memory->sent_end, &len_bytes, sizeof(len_bytes));
    memcpy(memory->sent + memory->sent_end + sizeof(len_bytes), frame, len_bytes);
    memory->sent_end += sizeof(len_bytes) + len_bytes;
}

/* Cuts a superframe as a NIC with TSO does: sequence numbers and IDs go on, FIN and PSH are the last one's. */
static void segment(struct memory_port *memory, const struct nmio_tx_desc *desc, const uint8_t *whole,
                    uint32_t len_bytes)
{
    uint8_t frame[MEMORY_SUPERFRAME_BYTES];
    uint32_t headers = desc->head_bytes, payload = len_bytes - headers;
    uint32_t size = desc->gso_bytes != 0 ? desc->gso_bytes : payload;
    uint32_t seq = get16(whole + desc->l4_offset + 4) << 16 | get16(whole + desc->l4_offset + 6);
    for (uint32_t at = 0, number = 0; at < payload || number == 0; at += size, number++) {
        uint32_t bytes = payload - at < size ? payload - at : size;
        uint32_t segment_seq = seq + at;
        memcpy(frame, whole, headers);
        memcpy(frame + headers, whole + headers + at, bytes);
        uint8_t *ip = frame + desc->l3_offset, *tcp = frame + desc->l4_offset;
        if (desc->ipv6) {
            put16(ip + 4, headers + bytes - desc->l4_offset);
        } else {
            put16(ip + 2, headers + bytes - desc->l3_offset);
            put16(ip + 4, get16(ip + 4) + number);
        }
        put16(tcp + 4, segment_seq >> 16);
        put16(tcp + 6, segment_seq & 0xffff);
        if (at + bytes < payload)
            tcp[13] &= 0xf6; /* neither FIN nor PSH */
        finish_checksums(frame, headers + bytes, desc);
        keep(memory, frame, headers + bytes);
    }
}

static void fly(struct memory_port *memory, const struct nmio_tx_desc *desc)
{
    struct flying *f = &memory->flying[(memory->first + memory->count++) % memory->ring];
    uint8_t whole[MEMORY_SUPERFRAME_BYTES];
    uint32_t len_bytes = 0;
    f->parts = 1u + desc->piece_count;
    f->due = memory->calls + memory->delay;
    for (uint32_t i = 0; i < f->parts; i++) {
        const struct nmio_piece *piece = i > 0 ? &memory->port.tx->piece[desc->first_piece + i - 1] : NULL;
        f->data[i] = piece != NULL ? piece->data : desc->head;
        f->len_bytes[i] = piece != NULL ? piece->len_bytes : desc->head_bytes;
        f->chunks[i] = piece != NULL ? piece->chunk : desc->chunk;
        memcpy(whole + len_bytes, f->data[i], f->len_bytes[i]);
        len_bytes += f->len_bytes[i];
    }
    if (memory->strict)
        f->digest = digest_of(f);
    memory->port.counters.tx_frames++;
    memory->port.counters.tx_bytes += len_bytes;
    if (desc->checksum_partial)
        segment(memory, desc, whole, len_bytes);
    else
        keep(memory, whole, len_bytes);
}

static void complete(struct memory_port *memory)
{
    while (memory->count > 0 && memory->flying[memory->first].due <= memory->calls) {
        struct flying *f = &memory->flying[memory->first];
        if (memory->strict && digest_of(f) != f->digest)
            memory->violations++;
        for (uint32_t i = 0; i < f->parts; i++)
            if (f->chunks[i] != NMIO_NONE)
                nmio_release(memory->port.region, f->chunks[i]);
        memory->first = (memory->first + 1) % memory->ring;
        memory->count--;
    }
}

static int memory_output(struct nmio_port *base)
{
    struct memory_port *memory = (struct memory_port *)base;
    struct nmio_tx *tx = base->tx;
    memory->calls++;
    for (uint32_t i = 0; i < tx->count; i++)
        fly(memory, &tx->desc[i]);
    tx->count = tx->piece_count = 0;
    complete(memory);
    tx->space = memory->ring - memory->count;
    return 0;
}

static int memory_wait(struct nmio_port *base, int64_t timeout_ns, int wake_fd)
{
    struct memory_port *memory = (struct memory_port *)base;
    if (memory->rx_count > 0 || memory->count > 0)
        return 0;
    struct pollfd fd = {.fd = wake_fd, .events = POLLIN};
    struct timespec limit = {timeout_ns / 1000000000, timeout_ns % 1000000000};
    return ppoll(&fd, 1, timeout_ns < 0 ? NULL : &limit, NULL) < 0 && errno != EINTR ? -errno : 0;
}

static void memory_close(struct nmio_port *base)
{
    struct memory_port *memory = (struct memory_port *)base;
    free(memory->flying);
    free(memory->rx);
    free(memory->sent);
    nmio_free(memory);
}

static const struct nmio_port_ops memory_ops = {
    "memory", memory_input, memory_release, memory_output, memory_wait, memory_close, NULL};

struct memory_port *memory_open(struct nmio_region *region, struct nmio_tx *tx, uint32_t ring, uint32_t delay,
                                uint32_t gather_max, bool strict)
{
    struct memory_port *memory = nmio_alloc(sizeof(*memory));
    if (memory == NULL)
        return NULL;
    memory->port =
        (struct nmio_port){.ops = &memory_ops, .region = region, .tx = tx, .gather_max = gather_max, .fd = -1};
    memory->ring = ring < tx->capacity ? ring : tx->capacity;
    memory->delay = delay;
    memory->strict = strict;
    memory->flying = calloc(memory->ring, sizeof(*memory->flying));
    memory->rx = malloc((size_t)MEMORY_RX_FRAMES * MEMORY_RX_BYTES);
    memory->sent = malloc(MEMORY_TX_BYTES);
    tx->space = memory->ring;
    if (memory->flying != NULL && memory->rx != NULL && memory->sent != NULL)
        return memory;
    memory_close(&memory->port);
    return NULL;
}

uint32_t memory_take(struct memory_port *memory, uint8_t *frame, uint32_t size)
{
    uint32_t len_bytes;
    if (memory->sent_first == memory->sent_end)
        return 0;
    memcpy(&len_bytes, memory->sent + memory->sent_first, sizeof(len_bytes));
    if (len_bytes > size)
        return 0;
    memcpy(frame, memory->sent + memory->sent_first + sizeof(len_bytes), len_bytes);
    memory->sent_first += sizeof(len_bytes) + len_bytes;
    return len_bytes;
}
