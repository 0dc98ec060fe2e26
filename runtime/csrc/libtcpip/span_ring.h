/* Longer rings of spans, for connections whose answer has many: an answer to a hundred ranges is two hundred spans, and with the
 * few of a TCB no more than two parts of it would go in a round trip. A bounded pool; who gets none makes do with the few. */
#ifndef SANDSTORM_SPAN_RING_H
#define SANDSTORM_SPAN_RING_H

#include <stdint.h>

#include "tcb.h"

#define SPAN_RING_SPANS 64 /* a power of two */

struct stack;

/* What span_rings_init needs a part of memory for: as many as these. */
uint32_t span_rings(uint32_t max_connections);
/* All are free. */
void span_rings_init(struct stack *stack);
/* Gives a connection one, if it has none and one is free; its spans move. */
void span_ring_acquire(struct stack *stack, struct tcb *tcb);
/* Takes it back; no span may be queued, or none will be sent again. */
void span_ring_release(struct stack *stack, struct tcb *tcb);

#endif
