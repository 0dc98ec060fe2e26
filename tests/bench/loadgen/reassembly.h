/* What has come out of order: the bytes, in a ring of a whole window, and which of them are there. A connection has one
 * only while something is missing. */
#ifndef LOADGEN_REASSEMBLY_H
#define LOADGEN_REASSEMBLY_H

#include <stdbool.h>
#include <stdint.h>

#define REASSEMBLY_RANGES 16

struct reassembly {
    uint8_t *ring; /* [ring_bytes]; a byte's place is its sequence number */
    uint32_t ring_bytes; /* a power of two, a window at least */
    uint32_t count;
    struct reassembly_range {
        uint32_t start, end;
    } range[REASSEMBLY_RANGES]; /* that which changed last is the first, as SACK wants it (RFC 2018 section 4) */
};

/* Adds bytes that lie in the window. False: there are too many ranges, and they are not taken. */
bool reassembly_put(struct reassembly *store, uint32_t seq, const uint8_t *data, uint32_t bytes);

/* What is there from seq on, as far as it lies in one piece: a number of bytes, 0 if they are missing. */
uint32_t reassembly_peek(const struct reassembly *store, uint32_t seq, const uint8_t **data);

/* Everything before seq has been received. */
void reassembly_drop(struct reassembly *store, uint32_t seq);

#endif
