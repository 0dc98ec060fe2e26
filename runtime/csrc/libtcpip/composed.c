#include "composed.h"

#include "stack_internal.h"
#include "tcp.h"

#define BUFFERS_MIN 16
#define CONNECTIONS_PER_BUFFER 64

uint32_t composed_buffers(uint32_t max_connections)
{
    uint32_t share = max_connections / CONNECTIONS_PER_BUFFER;
    return share > BUFFERS_MIN ? share : BUFFERS_MIN;
}

void composed_init(struct stack *stack)
{
    stack->composed_free_count = composed_buffers(stack->config.max_connections);
    for (uint32_t i = 0; i < stack->composed_free_count; i++)
        stack->composed_free[i] = i;
    stack->composed_first = stack->composed_last = TCB_NONE;
}

/* The buffer that has been taken for longest comes back, with all others of its connection, if it has been for too long. Never
 * those of the connection that wants one. */
static void evict(struct stack *stack, uint32_t wanted_by)
{
    const struct composed_use *oldest = &stack->composed_uses[stack->composed_first];
    if (oldest->owner == wanted_by || stack->now_us - oldest->since_us < COMPOSED_HELD_US)
        return;
    COUNT(stack, tcp_evicted_composed);
    tcp_abort(stack, &stack->tcbs[oldest->owner]);
}

uint32_t composed_acquire(struct stack *stack, const struct tcb *tcb)
{
    uint32_t owner = (uint32_t)(tcb - stack->tcbs);
    if (stack->composed_free_count == 0)
        evict(stack, owner);
    if (stack->composed_free_count == 0)
        return NMIO_NONE;
    uint32_t buffer = stack->composed_free[--stack->composed_free_count];
    stack->composed_uses[buffer] = (struct composed_use){
        .since_us = stack->now_us, .owner = owner, .next = TCB_NONE, .previous = stack->composed_last};
    if (stack->composed_last != TCB_NONE)
        stack->composed_uses[stack->composed_last].next = buffer;
    else
        stack->composed_first = buffer;
    stack->composed_last = buffer;
    return buffer;
}

uint8_t *composed_bytes(const struct stack *stack, uint32_t buffer)
{
    return stack->composed + (size_t)buffer * COMPOSED_BYTES;
}

void composed_span_release(struct stack *stack, const struct tcp_span *span)
{
    if (!is_composed(span))
        return;
    struct composed_use *uses = stack->composed_uses;
    const struct composed_use *use = &uses[span->first_frame];
    if (use->previous != TCB_NONE)
        uses[use->previous].next = use->next;
    else
        stack->composed_first = use->next;
    if (use->next != TCB_NONE)
        uses[use->next].previous = use->previous;
    else
        stack->composed_last = use->previous;
    stack->composed_free[stack->composed_free_count++] = span->first_frame;
}
