#include "request.h"

#include "tcp.h"

#define EVICTION_CANDIDATES 16 /* looked at, oldest first, so that pressure costs no more than this */

void request_init(struct stack *stack)
{
    uint32_t count = stack->config.max_half_requests;
    for (uint32_t i = 0; i < count; i++)
        stack->request_buffers[i].next = i + 1 < count ? i + 1 : TCB_NONE;
    stack->request_free = 0;
    stack->request_first = stack->request_last = TCB_NONE;
}

uint8_t *request_bytes(struct stack *stack, const struct tcb *tcb)
{
    return stack->requests + (size_t)tcb->request * TCB_REQUEST_BYTES;
}

void request_release(struct stack *stack, struct tcb *tcb)
{
    if (tcb->request == TCB_NONE)
        return;
    struct request_buffer *buffers = stack->request_buffers, *buffer = &buffers[tcb->request];
    if (buffer->previous != TCB_NONE)
        buffers[buffer->previous].next = buffer->next;
    else
        stack->request_first = buffer->next;
    if (buffer->next != TCB_NONE)
        buffers[buffer->next].previous = buffer->previous;
    else
        stack->request_last = buffer->previous;
    buffer->next = stack->request_free;
    stack->request_free = tcb->request;
    tcb->request = TCB_NONE;
    tcb->request_len = 0;
}

/* Slow clients must not keep the others out: the oldest half request makes room. Pipelined requests that wait for
 * answers in progress are left alone. */
static void evict(struct stack *stack)
{
    uint32_t at = stack->request_first;
    for (uint32_t i = 0; i < EVICTION_CANDIDATES && at != TCB_NONE; i++) {
        struct tcb *victim = &stack->tcbs[stack->request_buffers[at].owner];
        if (victim->span_count == 0) {
            COUNT(stack, tcp_evicted_half_requests);
            request_release(stack, victim);
            tcpip_give_up(stack, victim, true);
            return;
        }
        at = stack->request_buffers[at].next;
    }
}

static bool acquire(struct stack *stack, struct tcb *tcb)
{
    if (stack->request_free == TCB_NONE)
        evict(stack);
    if (stack->request_free == TCB_NONE)
        return false;
    struct request_buffer *buffers = stack->request_buffers;
    uint32_t index = stack->request_free;
    stack->request_free = buffers[index].next;
    buffers[index] = (struct request_buffer){(uint32_t)(tcb - stack->tcbs), TCB_NONE, stack->request_last};
    if (stack->request_last != TCB_NONE)
        buffers[stack->request_last].next = index;
    else
        stack->request_first = index;
    stack->request_last = index;
    tcb->request = index;
    return true;
}

uint32_t request_append(struct stack *stack, struct tcb *tcb, const uint8_t *data, uint32_t len_bytes)
{
    if (tcb->request == TCB_NONE && !acquire(stack, tcb)) {
        COUNT(stack, tcp_drop_half_requests_full);
        return 0;
    }
    uint32_t room = TCB_REQUEST_BYTES - tcb->request_len;
    uint32_t kept = len_bytes < room ? len_bytes : room;
    memcpy(request_bytes(stack, tcb) + tcb->request_len, data, kept);
    tcb->request_len += kept;
    return kept;
}

void request_consume(struct stack *stack, struct tcb *tcb, uint32_t consumed_bytes)
{
    uint8_t *bytes = request_bytes(stack, tcb);
    tcb->request_len -= consumed_bytes;
    memmove(bytes, bytes + consumed_bytes, tcb->request_len);
    if (tcb->request_len == 0)
        request_release(stack, tcb);
}
