/* Longer rings of slices, for connections whose answer has many: an answer to a hundred ranges is two hundred slices, and with the
 * few of a TCB no more than two parts of it would go in a round trip. A bounded pool; who gets none makes do with the few. */
#ifndef SANDSTORM_SLICE_RING_H
#define SANDSTORM_SLICE_RING_H

#include "index_pool.h"
#include "tcb.h"
#include "wire/layout.h"

#define SLICE_RING_SLICES 64 /* a power of two */

struct slice_rings {
    struct response_slice *slices; /* [][SLICE_RING_SLICES] */
    struct index_pool pool;
};

/* Lays out the rings of so many connections; slice_rings_init makes all of them free. */
void slice_rings_lay_out(struct slice_rings *rings, struct layout *layout, uint32_t max_connections);
void slice_rings_init(struct slice_rings *rings);
/* Gives a connection one, if it has none and one is free; its slices move. */
void slice_ring_acquire(struct slice_rings *rings, struct tcb *tcb);
/* Takes it back; no slice may be queued, or none will be sent again. */
void slice_ring_release(struct slice_rings *rings, struct tcb *tcb);

#endif
