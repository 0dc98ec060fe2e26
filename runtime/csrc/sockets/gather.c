#include "gather.h"

#include "libtcpip/frame_walk.h"

/* What has been gathered for one call. */
struct gathering {
    uint32_t vectors, patched;
    size_t bytes;
};

static bool is_full(const struct gathering *g)
{
    return g->vectors == SOCKETS_VECTORS || g->patched == SOCKETS_PATCHED || g->bytes >= SOCKETS_SEND_BYTES;
}

static void add(struct sockets *s, struct gathering *g, const uint8_t *data, uint32_t len_bytes)
{
    s->vectors[g->vectors++] = (struct iovec){(void *)(uintptr_t)data, len_bytes};
    g->bytes += len_bytes;
}

/* A frame's payload with what the application writes into it. */
static const uint8_t *patched(struct sockets *s, struct gathering *g, const struct response_slice *slice,
                              uint32_t frame_index)
{
    const struct tcpip *tcpip = &s->tcpip;
    const struct image *image = &slice_generation(tcpip, slice)->image;
    uint32_t bytes = image->frames[frame_index].payload_bytes;
    uint8_t *copy = s->patched + (size_t)g->patched++ * tcpip->segment_bytes;
    memcpy(copy, image_payload(image, frame_index), bytes);
    tcpip->app->patch(tcpip, slice, 0, copy, bytes);
    return copy;
}

/* From a position of a slice on. */
static void add_slice(struct sockets *s, struct gathering *g, const struct response_slice *slice, uint64_t position)
{
    const struct tcpip *tcpip = &s->tcpip;
    uint64_t left = slice->end - position;
    uint32_t bytes = left < SOCKETS_SEND_BYTES ? (uint32_t)left : SOCKETS_SEND_BYTES;
    if (is_composed(slice)) {
        add(s, g, composed_bytes(&tcpip->composed, slice->first_frame) + stream_offset(slice, position), bytes);
        return;
    }
    struct frame_part part = frame_part_first(tcpip, slice, stream_offset(slice, position), bytes);
    for (; part.bytes > 0 && !is_full(g); frame_part_next(&part)) {
        const uint8_t *payload = is_patched(part.image->frames, slice, part.frame_index)
                                     ? patched(s, g, slice, part.frame_index)
                                     : image_payload(part.image, part.frame_index);
        add(s, g, payload + part.within, part.bytes);
    }
}

size_t gather(struct sockets *s, const struct tcb *tcb, uint32_t *vector_count)
{
    struct gathering g = {0};
    for (uint32_t i = 0; i < tcb->slice_count && !is_full(&g); i++) {
        const struct response_slice *slice = tcb_slice(tcb, i);
        add_slice(s, &g, slice, slice->start > tcb->snd_nxt ? slice->start : tcb->snd_nxt);
    }
    *vector_count = g.vectors;
    return g.bytes;
}
