/* What sending a frame can't cost less than, written by hand: to compare the stack with. A connection's state is two cache
 * lines of its own, side by side; nothing is fetched ahead but by the processor itself. */
#ifndef BENCH_BOUNDS_H
#define BENCH_BOUNDS_H

#include <stdbool.h>
#include <stdint.h>

#include "clients.h"
#include "libnmio/nmio.h"

#define BOUND_NONE 0
#define BOUND_PATCH 1 /* headers written, checksums updated, a descriptor appended, and nothing else */
#define BOUND_MEMCPY 2 /* the same on a copy of the frame */

struct bound_result {
    uint64_t segments, bytes, cycles;
};

/* Sends requests answers, of the targets in turn and to connection_count peers in turn; or, with random, of any target, and
 * to peers in a shuffled order, as clients.h has it. The image's slots are resident. */
struct bound_result bound_run(uint64_t kind, const struct image *image, struct nmio_region *region,
                              struct nmio_tx *tx, const struct target *targets, uint32_t target_count,
                              uint32_t connection_count, bool random, uint64_t requests);

#endif
