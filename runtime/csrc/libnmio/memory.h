/* The in-memory port: frames are fed in and taken out by the caller. For tests, simulation and benchmarks; slow and
 * strict if asked to be. */
#ifndef SANDSTORM_MEMORY_H
#define SANDSTORM_MEMORY_H

#include "nmio.h"

struct memory_port;

/* ring: frames that may be in flight. delay: output() calls until a frame sent is complete; 0: at once. strict: a frame
 * that changes in flight is counted. Returns NULL without memory. */
struct memory_port *memory_open(struct nmio_region *region, struct nmio_tx *tx, uint32_t ring, uint32_t delay,
                                uint32_t gather_max, bool strict);
struct nmio_port *memory_as_port(struct memory_port *memory);

/* Queues a received frame, copied. False: the queue is full. */
bool memory_feed(struct memory_port *memory, const uint8_t *frame, uint32_t len_bytes, uint32_t rx_flags);

/* The oldest frame sent and not yet taken, a superframe cut into ordinary frames with all checksums as a NIC does.
 * Returns its length, or 0. frame: room for size bytes. */
uint32_t memory_take(struct memory_port *memory, uint8_t *frame, uint32_t size);

/* Frames that changed between being sent and complete; must be 0. */
uint64_t memory_violations(const struct memory_port *memory);

#endif
