#include "span_ring.h"

#include "stack_internal.h"

#define RINGS_MIN 16
#define CONNECTIONS_PER_RING 256

_Static_assert((SPAN_RING_SPANS & (SPAN_RING_SPANS - 1)) == 0 && SPAN_RING_SPANS <= UINT8_MAX, "span_mask is a byte");

uint32_t span_rings(uint32_t max_connections)
{
    uint32_t share = max_connections / CONNECTIONS_PER_RING;
    return share > RINGS_MIN ? share : RINGS_MIN;
}

void span_rings_init(struct stack *stack)
{
    stack->span_ring_free_count = span_rings(stack->config.max_connections);
    for (uint32_t i = 0; i < stack->span_ring_free_count; i++)
        stack->span_ring_free[i] = i;
}

void span_ring_acquire(struct stack *stack, struct tcb *tcb)
{
    if (tcb->span_ring != TCB_NONE || stack->span_ring_free_count == 0)
        return;
    uint32_t index = stack->span_ring_free[--stack->span_ring_free_count];
    struct tcp_span *ring = &stack->span_rings[(size_t)index * SPAN_RING_SPANS];
    for (uint32_t i = 0; i < tcb->span_count; i++)
        ring[i] = *tcb_span(tcb, i);
    tcb->spans = ring;
    tcb->span_first = 0;
    tcb->span_mask = SPAN_RING_SPANS - 1;
    tcb->span_ring = index;
}

void span_ring_release(struct stack *stack, struct tcb *tcb)
{
    if (tcb->span_ring == TCB_NONE)
        return;
    stack->span_ring_free[stack->span_ring_free_count++] = tcb->span_ring;
    tcb_few_spans(tcb);
}
