/* Hands out parts of one block of memory, or only counts them when there is none: the same code sizes a layer's tables and lays
 * them out. */
#ifndef SANDSTORM_LAYOUT_H
#define SANDSTORM_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#define LAYOUT_ALIGN_BYTES 64 /* a cache line: no two tables share one */

struct layout {
    uint8_t *base; /* NULL: count */
    size_t used_bytes;
};

/* Room for so many bytes, or NULL while it is counted. */
static inline void *layout_take(struct layout *layout, size_t bytes)
{
    layout->used_bytes = (layout->used_bytes + LAYOUT_ALIGN_BYTES - 1) & ~(size_t)(LAYOUT_ALIGN_BYTES - 1);
    void *at = layout->base != NULL ? layout->base + layout->used_bytes : NULL;
    layout->used_bytes += bytes;
    return at;
}

#endif
