#include "request.h"

#include "tcp.h"

void request_init(struct stack *stack)
{
    uint32_t count = stack->config.max_half_requests;
    for (uint32_t i = 0; i < count; i++)
        stack->request_buffers[i].next = i + 1 < count ? i + 1 : TCB_NONE;
    stack->request_free = 0;
    for (uint32_t kind = 0; kind < REQUEST_KINDS; kind++)
        stack->request_lists[kind] = (struct request_list){TCB_NONE, TCB_NONE, 0};
}

uint8_t *request_bytes(struct stack *stack, const struct tcb *tcb)
{
    return stack->requests + (size_t)tcb->request * TCB_REQUEST_BYTES;
}

static void list_append(struct stack *stack, uint32_t index, enum request_kind kind)
{
    struct request_buffer *buffers = stack->request_buffers;
    struct request_list *list = &stack->request_lists[kind];
    buffers[index].kind = kind;
    buffers[index].next = TCB_NONE;
    buffers[index].previous = list->last;
    if (list->last != TCB_NONE)
        buffers[list->last].next = index;
    else
        list->first = index;
    list->last = index;
    list->count++;
}

static void list_remove(struct stack *stack, uint32_t index)
{
    struct request_buffer *buffers = stack->request_buffers, *buffer = &buffers[index];
    struct request_list *list = &stack->request_lists[buffer->kind];
    if (buffer->previous != TCB_NONE)
        buffers[buffer->previous].next = buffer->next;
    else
        list->first = buffer->next;
    if (buffer->next != TCB_NONE)
        buffers[buffer->next].previous = buffer->previous;
    else
        list->last = buffer->previous;
    list->count--;
}

void request_release(struct stack *stack, struct tcb *tcb)
{
    if (tcb->request == TCB_NONE)
        return;
    list_remove(stack, tcb->request);
    stack->request_buffers[tcb->request].next = stack->request_free;
    stack->request_free = tcb->request;
    tcb->request = TCB_NONE;
    tcb->request_len = 0;
}

static enum request_kind kind_of(const struct tcb *tcb)
{
    return tcb->span_count > 0 ? REQUEST_PIPELINED : REQUEST_INCOMPLETE;
}

void request_sort(struct stack *stack, struct tcb *tcb)
{
    if (tcb->request == TCB_NONE || stack->request_buffers[tcb->request].kind == kind_of(tcb))
        return;
    list_remove(stack, tcb->request);
    list_append(stack, tcb->request, kind_of(tcb));
}

/* The oldest of a kind makes room, so that slow clients can't keep the others out. */
static void evict(struct stack *stack, enum request_kind kind)
{
    struct tcb *victim = &stack->tcbs[stack->request_buffers[stack->request_lists[kind].first].owner];
    request_release(stack, victim);
    if (kind == REQUEST_INCOMPLETE) {
        COUNT(stack, tcp_evicted_half_requests);
        tcpip_give_up(stack, victim, true);
    } else {
        COUNT(stack, tcp_evicted_pipelined);
        if (stack->config.app->is_writing(victim))
            tcp_abort(stack, victim); /* its answer can't be gone on with: it must not look whole */
        else
            tcpip_finish(stack, victim);
    }
}

static void acquire(struct stack *stack, struct tcb *tcb)
{
    const struct request_list *lists = stack->request_lists;
    enum request_kind kind = kind_of(tcb);
    uint32_t most = stack->config.max_half_requests / 2;
    if (kind == REQUEST_PIPELINED && lists[kind].count > 0 && lists[kind].count >= most)
        evict(stack, kind);
    if (stack->request_free == TCB_NONE)
        evict(stack, lists[REQUEST_INCOMPLETE].count > 0 ? REQUEST_INCOMPLETE : REQUEST_PIPELINED);
    uint32_t index = stack->request_free;
    stack->request_free = stack->request_buffers[index].next;
    stack->request_buffers[index].owner = (uint32_t)(tcb - stack->tcbs);
    list_append(stack, index, kind);
    tcb->request = index;
}

uint32_t request_append(struct stack *stack, struct tcb *tcb, const uint8_t *data, uint32_t len_bytes)
{
    if (tcb->request == TCB_NONE)
        acquire(stack, tcb);
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
