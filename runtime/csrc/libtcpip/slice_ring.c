#include "slice_ring.h"

#define RINGS_MIN 16
#define CONNECTIONS_PER_RING 256

_Static_assert((SPAN_RING_SPANS & (SPAN_RING_SPANS - 1)) == 0 && SPAN_RING_SPANS <= UINT8_MAX, "span_mask is a byte");

static uint32_t rings_of(uint32_t max_connections)
{
    uint32_t share = max_connections / CONNECTIONS_PER_RING;
    return share > RINGS_MIN ? share : RINGS_MIN;
}

void slice_rings_lay_out(struct slice_rings *rings, struct layout *layout, uint32_t max_connections)
{
    uint32_t count = rings_of(max_connections);
    rings->spans = layout_take(layout, (size_t)count * SPAN_RING_SPANS * sizeof(*rings->spans));
    rings->free = layout_take(layout, count * sizeof(*rings->free));
}

void slice_rings_init(struct slice_rings *rings, uint32_t max_connections)
{
    rings->free_count = rings->count = rings_of(max_connections);
    for (uint32_t i = 0; i < rings->free_count; i++)
        rings->free[i] = i;
}

void slice_ring_acquire(struct slice_rings *rings, struct tcb *tcb)
{
    if (tcb->span_ring != TCB_NONE || rings->free_count == 0)
        return;
    uint32_t index = rings->free[--rings->free_count];
    struct tcp_span *ring = &rings->spans[(size_t)index * SPAN_RING_SPANS];
    for (uint32_t i = 0; i < tcb->span_count; i++)
        ring[i] = *tcb_span(tcb, i);
    tcb->spans = ring;
    tcb->span_first = 0;
    tcb->span_mask = SPAN_RING_SPANS - 1;
    tcb->span_ring = index;
}

void slice_ring_release(struct slice_rings *rings, struct tcb *tcb)
{
    if (tcb->span_ring == TCB_NONE)
        return;
    rings->free[rings->free_count++] = tcb->span_ring;
    tcb_few_spans(tcb);
}
