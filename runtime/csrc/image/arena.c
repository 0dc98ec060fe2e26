#include "arena.h"

#include <string.h>

static size_t slots_of(const struct nmio_region *region)
{
    return region->chunk_count - region->first_slot;
}

size_t arena_memory_bytes(const struct image *image, const struct nmio_region *region)
{
    size_t frames = image->header->frame_count;
    return slots_of(region) * sizeof(struct arena_slot) + frames * (sizeof(uint32_t) + sizeof(uint16_t)) + 8;
}

void arena_init(struct arena *arena, void *memory, const struct image *image, struct nmio_region *region)
{
    uint32_t frames = image->header->frame_count;
    *arena = (struct arena){.image = image, .region = region};
    arena->slot_count = (uint32_t)slots_of(region);
    arena->first_spare = region->first_spare - region->first_slot;
    arena->hand = arena->first_spare;
    arena->slots = memory;
    arena->current = (uint32_t *)(arena->slots + arena->slot_count);
    arena->high_water = (uint16_t *)(arena->current + frames);
    for (uint32_t s = 0; s < arena->slot_count; s++)
        arena->slots[s] = (struct arena_slot){s, s, SSI_NONE};
    for (uint32_t f = 0; f < frames; f++) {
        const struct ssi_frame *frame = &image->frames[f];
        arena->current[f] = frame->slot;
        arena->high_water[f] = 1;
        for (uint32_t c = 0; c < frame->copies; c++) {
            uint32_t next = c + 1 < frame->copies ? c + 1 : 0;
            uint32_t previous = c > 0 ? c - 1 : frame->copies - 1u;
            arena->slots[frame->slot + c] = (struct arena_slot){frame->slot + next, frame->slot + previous, f};
        }
    }
}

/* Takes a spare out of the ring of the frame that it holds. */
static void spare_unlink(struct arena *arena, uint32_t spare)
{
    struct arena_slot *slot = &arena->slots[spare];
    if (slot->frame == SSI_NONE)
        return;
    if (arena->current[slot->frame] == spare)
        arena->current[slot->frame] = slot->next;
    arena->slots[slot->previous].next = slot->next;
    arena->slots[slot->next].previous = slot->previous;
    slot->frame = SSI_NONE;
    arena->copies_reclaimed++;
}

/* The next spare that is not in flight, in clock order: those copied longest ago go first. */
static uint32_t spare_take(struct arena *arena)
{
    for (uint32_t tried = arena->first_spare; tried < arena->slot_count; tried++) {
        uint32_t spare = arena->hand;
        arena->hand = spare + 1 < arena->slot_count ? spare + 1 : arena->first_spare;
        if (!arena->region->in_flight[arena->region->first_slot + spare]) {
            spare_unlink(arena, spare);
            return spare;
        }
    }
    return SSI_NONE;
}

static void count_mark(struct arena *arena, uint32_t frame)
{
    uint16_t held = 1;
    uint32_t first = arena->current[frame];
    for (uint32_t s = arena->slots[first].next; s != first && held < UINT16_MAX; s = arena->slots[s].next)
        held++;
    if (held > arena->high_water[frame])
        arena->high_water[frame] = held;
}

/* Copies the frame at slot into a spare and puts that behind it in the ring. */
static uint32_t copy_on_demand(struct arena *arena, uint32_t frame, uint32_t slot)
{
    uint32_t spare = spare_take(arena);
    if (spare == SSI_NONE) {
        arena->stalls++;
        return SSI_NONE;
    }
    struct nmio_region *region = arena->region;
    memcpy(nmio_chunk(region, region->first_slot + spare) + SSI_PAYLOAD_OFFSET,
           nmio_chunk(region, region->first_slot + slot) + SSI_PAYLOAD_OFFSET,
           arena->image->frames[frame].payload_bytes);
    uint32_t before = arena->slots[slot].previous;
    arena->slots[spare] = (struct arena_slot){slot, before, frame};
    arena->slots[before].next = spare;
    arena->slots[slot].previous = spare;
    arena->copies_made++;
    count_mark(arena, frame);
    return spare;
}

uint32_t arena_acquire(struct arena *arena, uint32_t frame)
{
    struct nmio_region *region = arena->region;
    uint32_t slot = arena->current[frame];
    if (region->in_flight[region->first_slot + slot]) {
        /* Slots are used in turn and sent in order: if the one used longest ago is in flight, all are. */
        slot = copy_on_demand(arena, frame, slot);
        if (slot == SSI_NONE)
            return NMIO_NONE;
    } else {
        arena->current[frame] = arena->slots[slot].next;
    }
    region->in_flight[region->first_slot + slot] = 1;
    return region->first_slot + slot;
}
