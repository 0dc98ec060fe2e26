#include "composed.h"

#include "stack_internal.h"

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
}

uint32_t composed_acquire(struct stack *stack)
{
    return stack->composed_free_count > 0 ? stack->composed_free[--stack->composed_free_count] : NMIO_NONE;
}

uint8_t *composed_bytes(const struct stack *stack, uint32_t buffer)
{
    return stack->composed + (size_t)buffer * COMPOSED_BYTES;
}

void composed_span_release(struct stack *stack, const struct tcp_span *span)
{
    if (is_composed(span))
        stack->composed_free[stack->composed_free_count++] = span->first_frame;
}
