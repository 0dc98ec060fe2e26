/* The arena: slots that one worker owns and its port can send from. One operation, "a free slot that holds this
 * frame", covers everything. A frame's slots form a ring and are used in turn; when all are in flight, another slot
 * takes a copy and joins the ring: the most that a frame has held is its high-water mark. The copies stay, and are used
 * in turn, until a slot is wanted and they have not been used for a while (a clock with a second chance).
 *
 * An arena as large as the image has every frame resident, and copies live in spare slots. A smaller one has spares only
 * and is a cache: a frame without a slot is copied from the image (a miss), and frames gone cold lose theirs. Either way
 * spares of one TX ring's size always suffice, as no more frames are in flight than the ring has descriptors.
 *
 * When another image is served from now on, all slots become such a cache, for both: those of the image before are taken first, and what
 * it still has to send is copied in from where it is mapped. */
#ifndef SANDSTORM_ARENA_H
#define SANDSTORM_ARENA_H

#include "generation.h"
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
    uint32_t used : 1; /* since the clock's hand passed */
    uint32_t generation : 31; /* whose frame; its number */
};

struct arena {
    const struct generations *generations;
    struct nmio_region *region;
    struct arena_slot *slots; /* [slot_count] */
    uint32_t slot_count; /* with spares */
    uint32_t first_spare; /* slot number */
    uint32_t hand; /* where the search for a spare goes on */
    struct arena_counters counters;
};

/* Lays the tables out; arena is zeroed, or scratch while layout only counts. */
void arena_lay_out(struct arena *arena, struct layout *layout, struct nmio_region *region);
/* After arena_lay_out: the frames of the only generation have their own slots, if the arena has room for all. */
void arena_init(struct arena *arena, const struct generations *generations);
/* Of a generation that has no slots: no frame has one. */
void arena_frames_init(struct generation *generation);
/* There is a newer generation: no slot is a frame's own any more. */
void arena_swapped(struct arena *arena);

static inline uint32_t arena_chunk(const struct arena *arena, uint32_t slot)
{
    const struct nmio_region *region = arena->region;
    return region->slot_chunks != NULL ? region->slot_chunks[slot] : region->first_slot + slot;
}

static inline uint8_t *arena_payload(const struct arena *arena, uint32_t slot)
{
    return nmio_chunk(arena->region, arena_chunk(arena, slot)) + SSI_PAYLOAD_OFFSET;
}

/* arena_acquire below for a frame whose slots are all in flight, or that has none. */
uint32_t arena_acquire_spare(struct arena *arena, struct generation *generation, uint32_t frame);

/* The same if the frame has a slot that is not in flight; else NMIO_NONE. frames: its generation's. */
static inline uint32_t arena_acquire_own(struct arena *arena, struct arena_frame *frames, uint32_t frame)
{
    uint32_t slot = frames[frame].current;
    if (slot == SSI_NONE)
        return NMIO_NONE;
    uint32_t chunk = arena_chunk(arena, slot);
    uint8_t *in_flight = &arena->region->in_flight[chunk];
    /* Slots are used in turn and sent in order: if the one used longest ago is in flight, all are. */
    if (*in_flight != NMIO_FREE)
        return NMIO_NONE;
    frames[frame].current = arena->slots[slot].next;
    arena->slots[slot].used = 1;
    *in_flight = NMIO_SLOT_IN_FLIGHT;
    return chunk;
}

/* A chunk that holds the payload of a generation's frame, now in flight and the caller's to patch; NMIO_NONE if every spare is in
 * flight. */
static inline uint32_t arena_acquire(struct arena *arena, struct generation *generation, uint32_t frame)
{
    uint32_t chunk = arena_acquire_own(arena, generation->frames, frame);
    return chunk != NMIO_NONE ? chunk : arena_acquire_spare(arena, generation, frame);
}

/* Brings what arena_acquire and the headers of a frame will touch into the cache. Always inline, as to gcc a function that does
 * nothing but this has no effect, and is not called. */
__attribute__((always_inline)) static inline void arena_prefetch(const struct arena *arena,
                                                                 const struct arena_frame *frames, uint32_t frame)
{
    uint32_t slot = frames[frame].current;
    if (slot == SSI_NONE)
        return;
    uint8_t *payload = arena_payload(arena, slot);
    __builtin_prefetch(payload - NMIO_CACHE_LINE_BYTES, 1);
    __builtin_prefetch(payload - 2 * NMIO_CACHE_LINE_BYTES, 1);
    __builtin_prefetch(&arena->slots[slot], 1);
}

#endif
