/* libnmio: ports and rings behind one small interface.
 *
 * A *region* is the memory that a port can send from: chunks of one size, numbered from 0. Some are small buffers, to
 * receive into and for frames made on the spot; the others are the arena's slots. A chunk is *in flight* from when the
 * core takes it until the port has sent it and calls nmio_release(). The core only ever appends descriptors to struct
 * nmio_tx; the port's output() sends them. So the core makes no system call, and a test can look at what it wants to
 * send.
 *
 * Where the port takes any memory, the arena's slots are one piece, the image's first and then spares:
 *
 *   region:  | buffers: RX and small TX | image's slots | spare slots |
 *   chunk :  0                          first_slot                    chunk_count
 */
#ifndef SANDSTORM_NMIO_H
#define SANDSTORM_NMIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "invariant.h"

#define NMIO_NONE 0xffffffff /* no such chunk */
#define NMIO_CACHE_LINE_BYTES 64

/* Segments in a superframe: 44 of 1448 bytes fit in 64 KiB with their headers. One that begins within a frame has a
 * piece more. */
#define NMIO_GATHER_MAX 44
#define NMIO_PIECES_MAX 45

/* What a chunk is at the moment. */
#define NMIO_FREE 0
#define NMIO_SLOT_IN_FLIGHT 1
#define NMIO_BUFFER_IN_FLIGHT 2

struct nmio_region {
    uint8_t *base;
    uint32_t chunk_bytes; /* the image's slot_bytes */
    uint32_t chunk_count;
    uint32_t slot_count;         /* of the arena: more than resident_count by a TX ring's size at least */
    uint32_t resident_count;     /* its first slots that hold the image's, in their order; 0: it is a cache */
    uint32_t first_slot;         /* the arena's slots are the chunks from here on, ... */
    const uint32_t *slot_chunks; /* ... or these, [slot_count], where it is not NULL */
    uint32_t buffer_count;
    uint32_t free_count;    /* buffers on the free stack */
    uint32_t *free_buffers; /* [buffer_count] */
    uint8_t *in_flight;     /* [chunk_count], NMIO_* */
};

/* Prebuilt frames that a port may take into memory of its own: slots of one size. */
struct nmio_frames {
    const uint8_t *slots; /* [slot_count][slot_bytes] */
    uint32_t slot_count, slot_bytes;
    uint32_t mtu_bytes; /* of the largest packet in them */
};

#define NMIO_RX_CHECKSUM_OK 1 /* the transport checksum needs no check: the sender is local, or the NIC did */
#define NMIO_RX_CHECKSUM_MAY_BE_PARTIAL 2 /* right, or as a local sender leaves it: the pseudo-header's sum */
#define NMIO_RX_HEADER_OK 4 /* of the stack's own: it has found the IP header's checksum right */

struct nmio_rx {
    uint8_t *data; /* Ethernet header onward; may be written until released, and begin later */
    uint32_t len_bytes;
    uint32_t flags; /* NMIO_RX_* */
    uint64_t token; /* the port's own */
};

/* Payload in place, part of a superframe. */
struct nmio_piece {
    const uint8_t *data;
    uint32_t len_bytes;
    uint32_t chunk; /* to release when sent; NMIO_NONE: shared, read only */
};

/* One frame, or one superframe. A frame lies whole at head. A superframe's headers are at head, its payload in
 * the pieces; its TCP checksum field holds the pseudo-header's sum (not inverted) with the length of the whole
 * payload, as virtio-net's VIRTIO_NET_HDR_F_NEEDS_CSUM wants it. */
struct nmio_tx_desc {
    uint8_t *head;       /* inside chunk; in front of it are at least 16 bytes of room */
    uint32_t head_bytes; /* of headers (superframe) or of the whole frame */
    uint32_t chunk;      /* of head, to release when sent */
    uint32_t first_piece;
    uint16_t piece_count;  /* 0: a whole frame */
    uint16_t gso_bytes;    /* payload of each segment; 0: payload fits one segment */
    uint16_t l3_offset;    /* of the IP header in head */
    uint16_t l4_offset;    /* of the TCP header in head; 0: none */
    bool checksum_partial; /* the transport checksum is still to be made */
    bool ipv6;
};

struct nmio_tx {
    struct nmio_tx_desc *desc; /* [capacity] */
    struct nmio_piece *piece;  /* [piece_capacity] */
    uint32_t capacity, piece_capacity;
    uint32_t count, piece_count; /* appended by the core, taken by output() */
    uint32_t space;              /* descriptors that the port's ring can take beyond count */
};

/* A free buffer of chunk_bytes, now in flight, or NMIO_NONE. */
static inline uint32_t nmio_buffer_take(struct nmio_region *region)
{
    if (region->free_count == 0)
        return NMIO_NONE;
    uint32_t chunk = region->free_buffers[--region->free_count];
    region->in_flight[chunk] = NMIO_BUFFER_IN_FLIGHT;
    return chunk;
}

static inline uint8_t *nmio_chunk(const struct nmio_region *region, uint32_t chunk)
{
    return region->base + (size_t)chunk * region->chunk_bytes;
}

/* The port has sent the chunk, or the core gives it back unsent. */
static inline void nmio_release(struct nmio_region *region, uint32_t chunk)
{
    bool is_buffer = region->in_flight[chunk] == NMIO_BUFFER_IN_FLIGHT;
    INVARIANT(chunk < region->chunk_count && region->in_flight[chunk] != NMIO_FREE);
    region->in_flight[chunk] = NMIO_FREE;
    if (is_buffer)
        region->free_buffers[region->free_count++] = chunk;
}

/* The first count descriptors have been taken: moves what is left to the front. */
static inline void nmio_tx_taken(struct nmio_tx *tx, uint32_t count)
{
    tx->count -= count;
    memmove(tx->desc, tx->desc + count, tx->count * sizeof(*tx->desc));
}

struct nmio_port;
struct trace;

struct nmio_port_ops {
    const char *name;
    /* Up to max received frames into batch. The number, 0 if there is none, or -errno. */
    int (*input)(struct nmio_port *port, struct nmio_rx *batch, uint32_t max);
    /* The frames of a batch are done with. */
    void (*release)(struct nmio_port *port, struct nmio_rx *batch, uint32_t count);
    /* Sends what tx holds, in order; takes back chunks already sent; sets tx->space. What the ring can't take stays
     * in tx. 0 or -errno. */
    int (*output)(struct nmio_port *port);
    /* Sleeps until a frame has arrived, ring space has come (if tx is not empty or space is 0), timeout_ns
     * (-1: forever) has passed or wake_fd is readable. 0 or -errno. */
    int (*wait)(struct nmio_port *port, int64_t timeout_ns, int wake_fd);
    void (*close)(struct nmio_port *port);
    /* The process that has used it since it was opened has ended without a word, and another will: what it has left in the kernel's rings
     * is forgotten. In the process that has opened it. 0 or -errno. NULL: nothing is left anywhere. */
    int (*reopen)(struct nmio_port *port);
};

struct nmio_port_counters {
    uint64_t rx_frames, rx_bytes, tx_frames, tx_bytes, tx_dropped; /* a superframe counts as one */
    uint64_t rx_dropped; /* came, and could not be read */
};

/* Every port begins with this. */
struct nmio_port {
    const struct nmio_port_ops *ops;
    struct nmio_region *region;
    struct nmio_tx *tx;
    uint32_t gather_max; /* segments in a superframe; 1: only whole frames */
    int fd; /* all that it has of the kernel's; -1: it has none, or several */
    struct nmio_port_counters counters;
    struct trace *trace; /* what can look at its frames (trace.h), or NULL */
};

#endif
