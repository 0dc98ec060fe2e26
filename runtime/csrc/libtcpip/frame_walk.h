/* Which prebuilt frames hold a part of a response, and which of them are written into when they are sent. */
#ifndef SANDSTORM_FRAME_WALK_H
#define SANDSTORM_FRAME_WALK_H

#include "state.h"

/* Where in its frames' stream a slice has a position. */
static inline uint64_t stream_offset(const struct response_slice *slice, uint64_t position)
{
    return position - slice->start + slice->skip;
}

/* The generation that a slice is of. */
static inline struct generation *slice_generation(const struct tcpip *tcpip, const struct response_slice *slice)
{
    return tcpip->generations.of[slice->generation];
}

/* Does the application write into a frame that is sent? Into a response's first only, and never into a slice. */
static inline bool is_patched(const struct ssi_frame *frames, const struct response_slice *slice,
                              uint32_t frame_index)
{
    return frame_index == slice->first_frame && slice->skip == 0 &&
           (frames[frame_index].flags & SSI_FRAME_PATCHED) != 0;
}

/* What one frame has of a part of a response; the walk over the frames of it goes from one to the next. */
struct frame_part {
    const struct image *image;
    uint32_t frame_index;
    uint32_t within; /* the payload, where it begins */
    uint32_t bytes; /* 0: there is no more */
    uint32_t left; /* behind it */
};

static inline void frame_part_take(struct frame_part *part)
{
    uint32_t there = part->left > 0 ? part->image->frames[part->frame_index].payload_bytes - part->within : 0;
    part->bytes = part->left < there ? part->left : there;
    part->left -= part->bytes;
}

/* Of len_bytes from an offset on. */
static inline struct frame_part frame_part_first(const struct tcpip *tcpip, const struct response_slice *slice,
                                                 uint64_t offset, uint32_t len_bytes)
{
    uint32_t segment_bytes = tcpip->segment_bytes;
    struct frame_part part = {.image = &slice_generation(tcpip, slice)->image,
                              .frame_index = slice->first_frame + (uint32_t)(offset / segment_bytes),
                              .within = (uint32_t)(offset % segment_bytes),
                              .left = len_bytes};
    frame_part_take(&part);
    return part;
}

static inline void frame_part_next(struct frame_part *part)
{
    part->frame_index++;
    part->within = 0;
    frame_part_take(part);
}

/* A frame's payload to read from. */
static inline const uint8_t *image_payload(const struct image *image, uint32_t frame_index)
{
    return image->slots + (size_t)image->frames[frame_index].slot * image->header->slot_bytes + SSI_PAYLOAD_OFFSET;
}

#endif
