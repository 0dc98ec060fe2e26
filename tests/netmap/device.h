/* A netmap device in memory, in place of the kernel's: rings, extra buffers, offsets, host rings,
 * external memory. It is strict: whatever
 * an application must not do is a violation, which the real one mostly bears in silence. */
#ifndef NETMAP_DEVICE_H
#define NETMAP_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "libnmio/netmap.h"

struct device_options {
    uint32_t rings; /* pairs */
    uint32_t slots; /* of each ring */
    uint32_t buffer_bytes; /* a multiple of 8 */
    uint32_t buffer_count; /* of all; the first two are nobody's */
    uint32_t extra_max; /* granted at most, whatever is asked for */
    uint32_t delay; /* syncs until a frame has left; UINT32_MAX: it never does */
    bool offsets; /* the option is granted */
    bool external; /* memory of the application's is taken */
};

struct device;

struct device *device_create(const struct device_options *options);
void device_destroy(struct device *device);
const struct netmap_system *device_system(const struct device *device);

/* Frames arrive from the wire at a ring, or are sent by the kernel. False: the queue is full. */
bool device_feed(struct device *device, uint32_t ring, const uint8_t *frame, uint32_t len_bytes);
bool device_feed_host(struct device *device, const uint8_t *frame, uint32_t len_bytes);

/* The oldest frame that has left for the wire, or for the kernel. Its length, or 0. */
uint32_t device_take(struct device *device, uint8_t *frame, uint32_t size);
uint32_t device_take_host(struct device *device, uint8_t *frame, uint32_t size);

/* What was done against the rules: how often, and what first. */
uint64_t device_violations(const struct device *device);
const char *device_first_violation(const struct device *device);

/* All rings, as any of the system calls does it. */
void device_sync(struct device *device);

/* A ring that is bound, by direction, to do wrong things to. */
struct nm_abi_ring *device_tx_ring(struct device *device, uint32_t ring);
struct nm_abi_ring *device_rx_ring(struct device *device, uint32_t ring);

#endif
