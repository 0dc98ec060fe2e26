#include "slice_ring.h"

#define CONNECTIONS_PER_RING 256

_Static_assert((SLICE_RING_SLICES & (SLICE_RING_SLICES - 1)) == 0 && SLICE_RING_SLICES <= UINT8_MAX,
               "slice_mask is a byte");

void slice_rings_lay_out(struct slice_rings *rings, struct layout *layout, uint32_t max_connections)
{
    uint32_t count = index_pool_share(max_connections, CONNECTIONS_PER_RING);
    rings->slices = layout_take(layout, (size_t)count * SLICE_RING_SLICES * sizeof(*rings->slices));
    index_pool_lay_out(&rings->pool, layout, count);
}

void slice_rings_init(struct slice_rings *rings)
{
    index_pool_init(&rings->pool);
}

void slice_ring_acquire(struct slice_rings *rings, struct tcb *tcb)
{
    if (tcb->slice_ring != TCB_NONE || rings->pool.free_count == 0)
        return;
    uint32_t index = rings->pool.free[--rings->pool.free_count];
    struct response_slice *ring = &rings->slices[(size_t)index * SLICE_RING_SLICES];
    for (uint32_t i = 0; i < tcb->slice_count; i++)
        ring[i] = *tcb_slice(tcb, i);
    tcb->slices = ring;
    tcb->slice_first = 0;
    tcb->slice_mask = SLICE_RING_SLICES - 1;
    tcb->slice_ring = index;
}

void slice_ring_release(struct slice_rings *rings, struct tcb *tcb)
{
    if (tcb->slice_ring == TCB_NONE)
        return;
    rings->pool.free[rings->pool.free_count++] = tcb->slice_ring;
    tcb_few_slices(tcb);
}
