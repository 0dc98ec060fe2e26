#include "arena.h"

#include <string.h>

#include "libnmio/invariant.h"

void arena_lay_out(struct arena *arena, struct layout *layout, struct nmio_region *region)
{
    *arena = (struct arena){.region = region, .slot_count = region->slot_count};
    arena->slots = layout_take(layout, (size_t)region->slot_count * sizeof(*arena->slots));
}

void arena_frames_init(struct generation *generation)
{
    for (uint32_t f = 0; f < generation->image.header->frame_count; f++)
        generation->frames[f] = (struct arena_frame){SSI_NONE, 0, 0};
}

/* The image's own slots of a frame, as a ring. */
static void link_resident(struct arena *arena, struct generation *generation, uint32_t frame_index)
{
    const struct ssi_frame *frame = &generation->image.frames[frame_index];
    generation->frames[frame_index] = (struct arena_frame){frame->slot, frame->copies, frame->copies};
    for (uint32_t c = 0; c < frame->copies; c++) {
        uint32_t next = c + 1 < frame->copies ? c + 1 : 0;
        uint32_t previous = c > 0 ? c - 1 : frame->copies - 1u;
        arena->slots[frame->slot + c] = (struct arena_slot){frame->slot + next, frame->slot + previous, frame_index,
                                                            0, generation->number & INT32_MAX};
    }
}

void arena_init(struct arena *arena, const struct generations *generations)
{
    struct generation *generation = generation_newest(generations);
    const struct nmio_region *region = arena->region;
    arena->generations = generations;
    arena->first_spare = arena->hand = region->resident_count;
    for (uint32_t s = 0; s < arena->slot_count; s++)
        arena->slots[s] = (struct arena_slot){s, s, SSI_NONE, 0, 0};
    arena_frames_init(generation);
    for (uint32_t f = 0; f < generation->image.header->frame_count && region->resident_count > 0; f++)
        link_resident(arena, generation, f);
}

void arena_swapped(struct arena *arena)
{
    arena->first_spare = 0;
}

static bool is_in_flight(const struct arena *arena, uint32_t slot)
{
    return arena->region->in_flight[arena_chunk(arena, slot)] != NMIO_FREE;
}

/* Takes a spare away from the frame that it holds; all that hold a frame of a generation that is gone are as if they held none. */
static void spare_unlink(struct arena *arena, uint32_t spare)
{
    struct arena_slot *slot = &arena->slots[spare];
    struct generation *generation =
        slot->frame != SSI_NONE ? generation_find(arena->generations, slot->generation) : NULL;
    if (generation == NULL)
        return;
    struct arena_frame *frame = &generation->frames[slot->frame];
    if (frame->current == spare)
        frame->current = slot->next != spare ? slot->next : SSI_NONE;
    arena->slots[slot->previous].next = slot->next;
    arena->slots[slot->next].previous = slot->previous;
    slot->frame = SSI_NONE;
    if (--frame->held > 0)
        COUNT(arena, arena_copies_reclaimed);
    else
        COUNT(arena, arena_evictions);
}

/* The next spare that is not in flight and has not been used since the hand passed it, or is of an older generation: two rounds
 * find one if there is any. Used marks are taken off on the way, so what a call passes over the next ones needn't. */
static uint32_t spare_take(struct arena *arena)
{
    uint32_t spares = arena->slot_count - arena->first_spare;
    uint32_t newest = generation_newest(arena->generations)->number;
    for (uint64_t tried = 0; tried < 2 * (uint64_t)spares; tried++) {
        uint32_t spare = arena->hand;
        arena->hand = spare + 1 < arena->slot_count ? spare + 1 : arena->first_spare;
        if (is_in_flight(arena, spare))
            continue;
        if (arena->slots[spare].used == 0 || arena->slots[spare].generation != newest) {
            spare_unlink(arena, spare);
            return spare;
        }
        arena->slots[spare].used = 0;
    }
    return SSI_NONE;
}

/* Puts a slot in front of current, so that it is used last. */
static void join(struct arena *arena, struct generation *generation, uint32_t frame_index, uint32_t slot)
{
    struct arena_frame *frame = &generation->frames[frame_index];
    uint32_t current = frame->current != SSI_NONE ? frame->current : slot;
    uint32_t before = frame->current != SSI_NONE ? arena->slots[current].previous : slot;
    arena->slots[slot] = (struct arena_slot){current, before, frame_index, 0, generation->number & INT32_MAX};
    arena->slots[before].next = slot;
    arena->slots[current].previous = slot;
    frame->current = current;
    frame->held++;
    if (frame->held > frame->high_water)
        frame->high_water = frame->held;
}

/* A spare with a copy of the frame, which has no slot, or none that is not in flight. */
static uint32_t copy_in(struct arena *arena, struct generation *generation, uint32_t frame_index)
{
    struct arena_frame *frame = &generation->frames[frame_index];
    const struct ssi_frame *built = &generation->image.frames[frame_index];
    if (frame->held == UINT16_MAX)
        return SSI_NONE;
    uint32_t spare = spare_take(arena);
    if (spare == SSI_NONE)
        return SSI_NONE;
    INVARIANT(!is_in_flight(arena, spare));
    /* A slot that was just sent from is in the cache; patches are written anew into every copy. spare_take may have
     * taken the frame's last one, so look again. */
    const uint8_t *from =
        frame->current != SSI_NONE
            ? arena_payload(arena, frame->current)
            : generation->image.slots + (size_t)built->slot * arena->region->chunk_bytes + SSI_PAYLOAD_OFFSET;
    memcpy(arena_payload(arena, spare), from, built->payload_bytes);
    if (frame->current != SSI_NONE)
        COUNT(arena, arena_copies_made);
    else
        COUNT(arena, arena_misses);
    join(arena, generation, frame_index, spare);
    return spare;
}

uint32_t arena_acquire_spare(struct arena *arena, struct generation *generation, uint32_t frame_index)
{
    uint32_t slot = copy_in(arena, generation, frame_index);
    if (slot == SSI_NONE) {
        COUNT(arena, arena_stalls);
        return NMIO_NONE;
    }
    uint32_t chunk = arena_chunk(arena, slot);
    INVARIANT(arena->region->in_flight[chunk] == NMIO_FREE);
    arena->slots[slot].used = 1;
    arena->region->in_flight[chunk] = NMIO_SLOT_IN_FLIGHT;
    return chunk;
}
