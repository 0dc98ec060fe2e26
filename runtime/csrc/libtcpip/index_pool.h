/* A bounded pool of things that are numbered from 0: which of them are free. The things themselves are an array of the user's. */
#ifndef SANDSTORM_INDEX_POOL_H
#define SANDSTORM_INDEX_POOL_H

#include <stdint.h>

#include "wire/layout.h"

#define INDEX_POOL_MIN 16 /* things, however few connections there are */

struct index_pool {
    uint32_t *free; /* stack of free indices */
    uint32_t free_count, count;
};

/* How many things there are for so many connections, of which so many share one. */
static inline uint32_t index_pool_share(uint32_t max_connections, uint32_t connections_each)
{
    uint32_t share = max_connections / connections_each;
    return share > INDEX_POOL_MIN ? share : INDEX_POOL_MIN;
}

static inline void index_pool_lay_out(struct index_pool *pool, struct layout *layout, uint32_t count)
{
    pool->count = count;
    pool->free = layout_take(layout, count * sizeof(*pool->free));
}

/* All are free. */
static inline void index_pool_init(struct index_pool *pool)
{
    pool->free_count = pool->count;
    for (uint32_t i = 0; i < pool->count; i++)
        pool->free[i] = i;
}

#endif
