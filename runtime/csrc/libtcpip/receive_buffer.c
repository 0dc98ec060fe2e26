#include "receive_buffer.h"

#include "wire/seq.h"

void receive_buffers_lay_out(struct receive_buffers *pool, struct layout *layout, uint32_t count)
{
    pool->bytes = layout_take(layout, (size_t)count * TCB_RECEIVE_BYTES);
    pool->buffers = layout_take(layout, count * sizeof(*pool->buffers));
}

void receive_buffers_init(struct receive_buffers *pool, uint32_t count)
{
    pool->count = count;
    for (uint32_t i = 0; i < count; i++)
        pool->buffers[i].next = i + 1 < count ? i + 1 : TCB_NONE;
    pool->free = 0;
    for (uint32_t kind = 0; kind < RECEIVE_KINDS; kind++)
        pool->lists[kind] = (struct receive_list){TCB_NONE, TCB_NONE, 0};
}

uint8_t *receive_buffer_bytes(const struct receive_buffers *pool, const struct tcb *tcb)
{
    return pool->bytes + (size_t)tcb->buffer * TCB_RECEIVE_BYTES;
}

static void list_append(struct receive_buffers *pool, uint32_t index, enum receive_kind kind)
{
    struct receive_buffer *buffers = pool->buffers;
    struct receive_list *list = &pool->lists[kind];
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

static void list_remove(struct receive_buffers *pool, uint32_t index)
{
    struct receive_buffer *buffers = pool->buffers, *buffer = &buffers[index];
    struct receive_list *list = &pool->lists[buffer->kind];
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

void receive_buffer_release(struct receive_buffers *pool, struct tcb *tcb)
{
    if (tcb->buffer == TCB_NONE)
        return;
    list_remove(pool, tcb->buffer);
    pool->buffers[tcb->buffer].next = pool->free;
    pool->free = tcb->buffer;
    tcb->buffer = TCB_NONE;
    tcb->buffered_bytes = 0;
}

static enum receive_kind kind_of(const struct tcb *tcb)
{
    return tcb->slice_count > 0 ? RECEIVE_PIPELINED : RECEIVE_INCOMPLETE;
}

void receive_buffer_sort(struct receive_buffers *pool, struct tcb *tcb)
{
    if (tcb->buffer == TCB_NONE || pool->buffers[tcb->buffer].kind == kind_of(tcb))
        return;
    list_remove(pool, tcb->buffer);
    list_append(pool, tcb->buffer, kind_of(tcb));
}

uint32_t receive_buffer_victim(const struct receive_buffers *pool, const struct tcb *tcb, enum receive_kind *kind)
{
    const struct receive_list *lists = pool->lists;
    uint32_t most = pool->count / 2;
    if (tcb->buffer != TCB_NONE)
        return TCB_NONE;
    bool share_used = lists[RECEIVE_PIPELINED].count > 0 && lists[RECEIVE_PIPELINED].count >= most;
    if (kind_of(tcb) == RECEIVE_PIPELINED && share_used)
        *kind = RECEIVE_PIPELINED;
    else if (pool->free == TCB_NONE)
        *kind = lists[RECEIVE_INCOMPLETE].count > 0 ? RECEIVE_INCOMPLETE : RECEIVE_PIPELINED;
    else
        return TCB_NONE;
    return pool->buffers[lists[*kind].first].owner;
}

void receive_buffer_take(struct receive_buffers *pool, struct tcb *tcb, uint32_t owner)
{
    if (tcb->buffer != TCB_NONE)
        return;
    uint32_t index = pool->free;
    pool->free = pool->buffers[index].next;
    pool->buffers[index].owner = owner;
    pool->buffers[index].range_count = 0;
    list_append(pool, index, kind_of(tcb));
    tcb->buffer = index;
}

uint32_t receive_buffer_append(struct receive_buffers *pool, struct tcb *tcb, const uint8_t *data, uint32_t len_bytes)
{
    uint32_t room = TCB_RECEIVE_BYTES - tcb->buffered_bytes;
    uint32_t kept = len_bytes < room ? len_bytes : room;
    memcpy(receive_buffer_bytes(pool, tcb) + tcb->buffered_bytes, data, kept);
    tcb->buffered_bytes += kept;
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
static void note_duplicate(struct seq_range *duplicate, uint32_t start, uint32_t end)
{
    bool none_yet = duplicate->start == duplicate->end;
    if (seq_lt(start, end) && (none_yet || seq_lt(start, duplicate->start)))
        *duplicate = (struct seq_range){start, end};
}

/* Takes the ranges that a new one touches out of the buffer, and makes it cover them. */
static void take_touched(struct receive_buffer *buffer, struct seq_range *range, struct seq_range *duplicate)
{
    struct seq_range added = *range;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < buffer->range_count; i++) {
        struct seq_range *held = &buffer->ranges[i];
        if (seq_lt(range->end, held->start) || seq_lt(held->end, range->start)) {
            buffer->ranges[kept++] = *held;
            continue;
        }
        note_duplicate(duplicate, later(added.start, held->start), earlier(added.end, held->end));
        *range = (struct seq_range){earlier(range->start, held->start), later(range->end, held->end)};
    }
    buffer->range_count = kept;
}

static bool touches_one(const struct receive_buffer *buffer, const struct seq_range *range)
{
    for (uint32_t i = 0; i < buffer->range_count; i++)
        if (seq_leq(buffer->ranges[i].start, range->end) && seq_leq(range->start, buffer->ranges[i].end))
            return true;
    return false;
}

bool receive_buffer_hold(struct receive_buffers *pool, struct tcb *tcb, struct seq_range range, const uint8_t *data,
                         struct seq_range *duplicate)
{
    struct receive_buffer *buffer = &pool->buffers[tcb->buffer];
    uint32_t edge = tcb->rcv_nxt + TCB_RECEIVE_BYTES - tcb->buffered_bytes;
    range.end = earlier(range.end, edge);
    if (!seq_lt(range.start, range.end) || (buffer->range_count == RECEIVE_RANGES && !touches_one(buffer, &range)))
        return false;
    memcpy(receive_buffer_bytes(pool, tcb) + tcb->buffered_bytes + (range.start - tcb->rcv_nxt), data,
           range.end - range.start);
    take_touched(buffer, &range, duplicate);
    memmove(&buffer->ranges[1], &buffer->ranges[0], buffer->range_count * sizeof(range));
    buffer->ranges[0] = range;
    buffer->range_count++;
    return true;
}

void receive_buffer_join(struct receive_buffers *pool, struct tcb *tcb, struct seq_range *duplicate)
{
    struct receive_buffer *buffer = &pool->buffers[tcb->buffer];
    for (uint32_t i = 0; i < buffer->range_count;) {
        struct seq_range held = buffer->ranges[i];
        if (seq_lt(tcb->rcv_nxt, held.start)) {
            i++;
            continue;
        }
        note_duplicate(duplicate, held.start, earlier(held.end, tcb->rcv_nxt));
        if (seq_lt(tcb->rcv_nxt, held.end)) {
            tcb->buffered_bytes += held.end - tcb->rcv_nxt;
            tcb->rcv_nxt = held.end;
        }
        buffer->ranges[i] = buffer->ranges[--buffer->range_count];
        i = 0; /* another may follow now */
    }
}

/* How far the held ranges go behind the unread bytes. */
static uint32_t held_bytes(const struct tcb *tcb, const struct receive_buffer *buffer)
{
    uint32_t end = tcb->rcv_nxt;
    for (uint32_t i = 0; i < buffer->range_count; i++)
        end = later(end, buffer->ranges[i].end);
    return end - tcb->rcv_nxt;
}

void receive_buffer_consume(struct receive_buffers *pool, struct tcb *tcb, uint32_t consumed_bytes)
{
    const struct receive_buffer *buffer = &pool->buffers[tcb->buffer];
    uint8_t *bytes = receive_buffer_bytes(pool, tcb);
    tcb->buffered_bytes -= consumed_bytes;
    memmove(bytes, bytes + consumed_bytes, tcb->buffered_bytes + held_bytes(tcb, buffer));
    if (tcb->buffered_bytes == 0 && buffer->range_count == 0)
        receive_buffer_release(pool, tcb);
}
