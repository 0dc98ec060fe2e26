/* The arena: slots that one worker owns and its port can send from. One operation, "a free slot that holds this
 * frame", covers everything. A frame's slots form a ring and are used in turn; when all are in flight, another slot
 * takes a copy and joins the ring: the most that a frame has held is its high-water mark. The copies stay, and are used
 * in turn, until a slot is wanted and they have not been used for a while (a clock with a second chance).
 *
 * An arena as large as the image has every frame resident, and copies live in spare slots. A smaller one has spares only
 * and is a cache: a frame without a slot is copied from the image (a miss), and frames gone cold lose theirs. Either way
 * spares of one TX ring's size always suffice, as no more frames are in flight than the ring has descriptors. */
#ifndef SANDSTORM_ARENA_H
#define SANDSTORM_ARENA_H

#include "image/image.h"
#include "libnmio/nmio.h"
#include "wire/counters.h"
#include "wire/layout.h"

/* Copies that were made because all slots of a frame were in flight, and those whose slots were given to other frames; frames
 * without a slot, copied in, and frames that lost their last one; no slot was free: must be 0. */
#define ARENA_COUNTERS(X)                                                                                            \
    X(arena_copies_made)                                                                                             \
    X(arena_copies_reclaimed)                                                                                        \
    X(arena_misses)                                                                                                  \
    X(arena_evictions)                                                                                               \
    X(arena_stalls)

struct arena_counters COUNTERS_DEFINE(ARENA_COUNTERS);

struct arena_slot {
    uint32_t next, previous; /* ring of the slots that hold the same frame; slot numbers */
    uint32_t frame; /* SSI_NONE: a spare not yet used */
    uint32_t used; /* since the clock's hand passed */
};

struct arena_frame {
    uint32_t current; /* the slot to use next; SSI_NONE: it has none */
    uint16_t held; /* slots */
    uint16_t high_water; /* most slots held at once */
};

struct arena {
    const struct image *image;
    struct nmio_region *region;
    struct arena_slot *slots; /* [slot_count] */
    struct arena_frame *frames; /* [frame_count] */
    uint32_t slot_count; /* with spares */
    uint32_t first_spare; /* slot number */
    uint32_t hand; /* where the search for a spare goes on */
    struct arena_counters counters;
};

/* Lays the tables out; arena is zeroed, or scratch while layout only counts. */
void arena_lay_out(struct arena *arena, struct layout *layout, const struct image *image, struct nmio_region *region);
/* After arena_lay_out: the frames' own slots hold them, if the arena has room for all. */
void arena_init(struct arena *arena);

static inline uint32_t arena_chunk(const struct arena *arena, uint32_t slot)
{
    const struct nmio_region *region = arena->region;
    return region->slot_chunks != NULL ? region->slot_chunks[slot] : region->first_slot + slot;
}

static inline uint8_t *arena_payload(const struct arena *arena, uint32_t slot)
{
    return nmio_chunk(arena->region, arena_chunk(arena, slot)) + SSI_PAYLOAD_OFFSET;
}

/* arena_acquire for a frame whose slots are all in flight, or that has none. */
uint32_t arena_acquire_spare(struct arena *arena, uint32_t frame);

/* A chunk that holds the frame's payload, now in flight and the caller's to patch; NMIO_NONE if every spare is in
 * flight. */
static inline uint32_t arena_acquire(struct arena *arena, uint32_t frame)
{
    struct arena_frame *entry = &arena->frames[frame];
    uint32_t slot = entry->current;
    if (slot == SSI_NONE)
        return arena_acquire_spare(arena, frame);
    uint32_t chunk = arena_chunk(arena, slot);
    uint8_t *in_flight = &arena->region->in_flight[chunk];
    /* Slots are used in turn and sent in order: if the one used longest ago is in flight, all are. */
    if (*in_flight != NMIO_FREE)
        return arena_acquire_spare(arena, frame);
    entry->current = arena->slots[slot].next;
    arena->slots[slot].used = 1;
    *in_flight = NMIO_SLOT_IN_FLIGHT;
    return chunk;
}

/* Brings what arena_acquire and the headers of a frame will touch into the cache. Always inline, as to gcc a function that does
 * nothing but this has no effect, and is not called. */
__attribute__((always_inline)) static inline void arena_prefetch(const struct arena *arena, uint32_t frame)
{
    uint32_t slot = arena->frames[frame].current;
    if (slot == SSI_NONE)
        return;
    uint8_t *payload = arena_payload(arena, slot);
    __builtin_prefetch(payload - NMIO_CACHE_LINE_BYTES, 1);
    __builtin_prefetch(payload - 2 * NMIO_CACHE_LINE_BYTES, 1);
    __builtin_prefetch(&arena->slots[slot], 1);
}

#endif
