#include "composed.h"

#include "libnmio/nmio.h"

#define CONNECTIONS_PER_BUFFER 64

void composed_lay_out(struct composed *pool, struct layout *layout, uint32_t max_connections)
{
    uint32_t count = index_pool_share(max_connections, CONNECTIONS_PER_BUFFER);
    pool->bytes = layout_take(layout, (size_t)count * COMPOSED_BYTES);
    index_pool_lay_out(&pool->pool, layout, count);
    pool->uses = layout_take(layout, count * sizeof(*pool->uses));
}

void composed_init(struct composed *pool)
{
    index_pool_init(&pool->pool);
    pool->first = pool->last = TCB_NONE;
}

uint32_t composed_victim(const struct composed *pool, uint64_t now_us, uint32_t owner)
{
    const struct composed_use *oldest = &pool->uses[pool->first];
    if (pool->pool.free_count > 0 || oldest->owner == owner || now_us - oldest->since_us < COMPOSED_HELD_US)
        return TCB_NONE;
    return oldest->owner;
}

uint32_t composed_acquire(struct composed *pool, uint64_t now_us, uint32_t owner)
{
    if (pool->pool.free_count == 0)
        return NMIO_NONE;
    uint32_t buffer = pool->pool.free[--pool->pool.free_count];
    pool->uses[buffer] =
        (struct composed_use){.since_us = now_us, .owner = owner, .next = TCB_NONE, .previous = pool->last};
    if (pool->last != TCB_NONE)
        pool->uses[pool->last].next = buffer;
    else
        pool->first = buffer;
    pool->last = buffer;
    return buffer;
}

void composed_slice_release(struct composed *pool, const struct response_slice *slice)
{
    if (!is_composed(slice))
        return;
    struct composed_use *uses = pool->uses;
    const struct composed_use *use = &uses[slice->first_frame];
    if (use->previous != TCB_NONE)
        uses[use->previous].next = use->next;
    else
        pool->first = use->next;
    if (use->next != TCB_NONE)
        uses[use->next].previous = use->previous;
    else
        pool->last = use->previous;
    pool->pool.free[pool->pool.free_count++] = slice->first_frame;
}
