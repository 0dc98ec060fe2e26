#include "reassembly.h"

#include <string.h>

#include "wire/seq.h"

/* Up to where the ring goes on without a break. */
static uint32_t until_break(const struct reassembly *store, uint32_t seq, uint32_t bytes)
{
    uint32_t left = store->ring_bytes - (seq & (store->ring_bytes - 1));
    return bytes < left ? bytes : left;
}

static void copy_in(struct reassembly *store, uint32_t seq, const uint8_t *data, uint32_t bytes)
{
    uint32_t part = until_break(store, seq, bytes);
    memcpy(store->ring + (seq & (store->ring_bytes - 1)), data, part);
    memcpy(store->ring, data + part, bytes - part);
}

static void remove_range(struct reassembly *store, uint32_t index)
{
    store->count--;
    memmove(&store->range[index], &store->range[index + 1], (store->count - index) * sizeof(store->range[0]));
}

/* Takes out all that touches a range, which grows by them. */
static struct reassembly_range merge(struct reassembly *store, struct reassembly_range with)
{
    for (uint32_t i = store->count; i-- > 0;) {
        struct reassembly_range *range = &store->range[i];
        if (seq_lt(range->end, with.start) || seq_lt(with.end, range->start))
            continue;
        if (seq_lt(range->start, with.start))
            with.start = range->start;
        if (seq_lt(with.end, range->end))
            with.end = range->end;
        remove_range(store, i);
    }
    return with;
}

bool reassembly_put(struct reassembly *store, uint32_t seq, const uint8_t *data, uint32_t bytes)
{
    struct reassembly_range range = merge(store, (struct reassembly_range){seq, seq + bytes});
    if (store->count == REASSEMBLY_RANGES)
        return false;
    copy_in(store, seq, data, bytes);
    memmove(&store->range[1], &store->range[0], store->count * sizeof(store->range[0]));
    store->range[0] = range;
    store->count++;
    return true;
}

uint32_t reassembly_peek(const struct reassembly *store, uint32_t seq, const uint8_t **data)
{
    for (uint32_t i = 0; i < store->count; i++) {
        const struct reassembly_range *range = &store->range[i];
        if (seq_leq(range->start, seq) && seq_lt(seq, range->end)) {
            *data = store->ring + (seq & (store->ring_bytes - 1));
            return until_break(store, seq, range->end - seq);
        }
    }
    return 0;
}

void reassembly_drop(struct reassembly *store, uint32_t seq)
{
    for (uint32_t i = store->count; i-- > 0;)
        if (seq_leq(store->range[i].end, seq))
            remove_range(store, i);
}
