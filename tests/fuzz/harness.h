/* What the fuzz targets share: a core with an image, and a port that judges all that the core sends. */
#ifndef HARNESS_H
#define HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stack.h"
#include "stack_state.h"

#define CHECK(what)                                                                                                  \
    do {                                                                                                             \
        if (!(what)) {                                                                                               \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what);                                       \
            abort();                                                                                                 \
        }                                                                                                            \
    } while (0)

/* The image that all targets serve, made by fuzz.py: /a, also as gzip, and /big of some 50 segments. */
extern const struct image_sections fuzz_image;
/* image_open, with as much room as it asks for and no more. */
int fuzz_image_open(struct image *image, const struct image_sections *sections);

/* A frame or superframe that the core sent, with its payload gathered. Valid during on_frame. */
struct sent_frame {
    const uint8_t *data;
    uint32_t len_bytes;
    uint32_t segment_bytes; /* payload of each segment of a superframe; 0: it is one segment */
    bool checksum_partial;
};

struct host {
    struct stack *stack;
    struct nmio_region region;
    struct nmio_tx tx;
    uint64_t now_ns;
    uint32_t flying; /* frames that the port has and has not sent yet */
    uint32_t acd, congestion; /* of the configuration, set before host_start */
    bool pacing;
    bool slow;       /* it sends only when host_complete says so */
    bool untrusted;  /* the image's sums and slots may be wrong: what is sent is not compared with anything */
    bool unjudged;   /* nor is it looked at at all */
    void (*on_frame)(void *context, const struct sent_frame *frame);
    void *context;
};

/* A fresh core; the one before is gone. gather_max: of the port. */
void host_start(struct host *host, const struct image *image, uint32_t gather_max);
/* Gives the core a frame; host_run must follow. checksum_ok: of the transport. */
void host_input(struct host *host, const uint8_t *frame, uint32_t len_bytes, bool checksum_ok);
/* The core and the port take turns until nothing moves; every frame is judged and given to on_frame. */
void host_run(struct host *host);
/* The port has sent its oldest frames; they must be what they were when it got them. */
void host_complete(struct host *host, uint32_t count);
/* Time passes; what is due happens, step by step. */
void host_advance(struct host *host, uint64_t milliseconds);
/* A day passes in silence; then every connection must be gone and every buffer back. */
void host_end(struct host *host);

uint16_t ones_sum(const uint8_t *data, size_t len_bytes, uint32_t sum); /* RFC 1071, not inverted, big-endian words */

static inline void put16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static inline void put32(uint8_t *at, uint32_t value)
{
    put16(at, value >> 16);
    put16(at + 2, value);
}

static inline uint32_t get16(const uint8_t *at)
{
    return (uint32_t)(at[0] << 8 | at[1]);
}

static inline uint32_t get32(const uint8_t *at)
{
    return get16(at) << 16 | get16(at + 2);
}

#endif
