/* The arena: slots that one worker owns and its port can send from. One operation, "a free slot that holds this
 * frame", covers everything. A frame's slots form a ring and are used in turn; when all are in flight a spare slot
 * takes a copy and joins the ring (the frame's high-water mark). Spares of one TX ring's size always suffice, as no
 * more frames are in flight than the ring has descriptors. */
#ifndef SANDSTORM_ARENA_H
#define SANDSTORM_ARENA_H

#include "image.h"
#include "libnmio/nmio.h"

struct arena_slot {
    uint32_t next, previous; /* ring of the slots that hold the same frame; slot numbers */
    uint32_t frame;          /* SSI_NONE: a spare not yet used */
};

struct arena {
    const struct image *image;
    struct nmio_region *region;
    struct arena_slot *slots;    /* [region chunks from first_slot on] */
    uint32_t *current;           /* [frame_count] the slot to use next */
    uint16_t *high_water;        /* [frame_count] most slots held at once */
    uint32_t first_spare;        /* slot number */
    uint32_t slot_count;         /* with spares */
    uint32_t hand;               /* where the search for a spare goes on */
    uint64_t copies_made, copies_reclaimed, stalls;
};

/* Bytes of the tables; they are laid out in memory by arena_init (8-byte aligned). */
size_t arena_memory_bytes(const struct image *image, const struct nmio_region *region);
void arena_init(struct arena *arena, void *memory, const struct image *image, struct nmio_region *region);

/* A chunk that holds the frame's payload, now in flight and the caller's to patch; NMIO_NONE if every spare is in
 * flight. */
uint32_t arena_acquire(struct arena *arena, uint32_t frame);

#endif
