#include "request.h"

#include "tcp.h"
#include "wire/seq.h"

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
    stack->request_buffers[index].range_count = 0;
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

static uint32_t earlier(uint32_t a, uint32_t b)
{
    return seq_lt(a, b) ? a : b;
}

static uint32_t later(uint32_t a, uint32_t b)
{
    return seq_lt(a, b) ? b : a;
}

/* [start, end) has come twice, if it is not empty: of several the lowest is told, as FreeBSD has it. */
static void note_duplicate(struct request_range *duplicate, uint32_t start, uint32_t end)
{
    bool none_yet = duplicate->start == duplicate->end;
    if (seq_lt(start, end) && (none_yet || seq_lt(start, duplicate->start)))
        *duplicate = (struct request_range){start, end};
}

/* Takes the ranges that a new one touches out of the buffer, and makes it cover them. */
static void take_touched(struct request_buffer *buffer, struct request_range *range, struct request_range *duplicate)
{
    struct request_range added = *range;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < buffer->range_count; i++) {
        struct request_range *held = &buffer->ranges[i];
        if (seq_lt(range->end, held->start) || seq_lt(held->end, range->start)) {
            buffer->ranges[kept++] = *held;
            continue;
        }
        note_duplicate(duplicate, later(added.start, held->start), earlier(added.end, held->end));
        *range = (struct request_range){earlier(range->start, held->start), later(range->end, held->end)};
    }
    buffer->range_count = kept;
}

static bool touches_one(const struct request_buffer *buffer, const struct request_range *range)
{
    for (uint32_t i = 0; i < buffer->range_count; i++)
        if (seq_leq(buffer->ranges[i].start, range->end) && seq_leq(range->start, buffer->ranges[i].end))
            return true;
    return false;
}

bool request_hold(struct stack *stack, struct tcb *tcb, struct request_range range, const uint8_t *data,
                  struct request_range *duplicate)
{
    if (tcb->request == TCB_NONE)
        acquire(stack, tcb);
    struct request_buffer *buffer = &stack->request_buffers[tcb->request];
    uint32_t edge = tcb->rcv_nxt + TCB_REQUEST_BYTES - tcb->request_len;
    range.end = earlier(range.end, edge);
    if (!seq_lt(range.start, range.end) || (buffer->range_count == REQUEST_RANGES && !touches_one(buffer, &range)))
        return false;
    memcpy(request_bytes(stack, tcb) + tcb->request_len + (range.start - tcb->rcv_nxt), data,
           range.end - range.start);
    take_touched(buffer, &range, duplicate);
    memmove(&buffer->ranges[1], &buffer->ranges[0], buffer->range_count * sizeof(range));
    buffer->ranges[0] = range;
    buffer->range_count++;
    return true;
}

void request_join(struct stack *stack, struct tcb *tcb, struct request_range *duplicate)
{
    struct request_buffer *buffer = &stack->request_buffers[tcb->request];
    for (uint32_t i = 0; i < buffer->range_count;) {
        struct request_range held = buffer->ranges[i];
        if (seq_lt(tcb->rcv_nxt, held.start)) {
            i++;
            continue;
        }
        note_duplicate(duplicate, held.start, earlier(held.end, tcb->rcv_nxt));
        if (seq_lt(tcb->rcv_nxt, held.end)) {
            tcb->request_len += held.end - tcb->rcv_nxt;
            tcb->rcv_nxt = held.end;
        }
        buffer->ranges[i] = buffer->ranges[--buffer->range_count];
        i = 0; /* another may follow now */
    }
}

/* How far the held ranges go behind the unread bytes. */
static uint32_t held_bytes(const struct tcb *tcb, const struct request_buffer *buffer)
{
    uint32_t end = tcb->rcv_nxt;
    for (uint32_t i = 0; i < buffer->range_count; i++)
        end = later(end, buffer->ranges[i].end);
    return end - tcb->rcv_nxt;
}

void request_consume(struct stack *stack, struct tcb *tcb, uint32_t consumed_bytes)
{
    const struct request_buffer *buffer = &stack->request_buffers[tcb->request];
    uint8_t *bytes = request_bytes(stack, tcb);
    tcb->request_len -= consumed_bytes;
    memmove(bytes, bytes + consumed_bytes, tcb->request_len + held_bytes(tcb, buffer));
    if (tcb->request_len == 0 && buffer->range_count == 0)
        request_release(stack, tcb);
}
