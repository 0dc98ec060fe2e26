/* For the compiler: payloads become slots. */
#ifndef SANDSTORM_FRAME_BUILD_H
#define SANDSTORM_FRAME_BUILD_H

#include <stddef.h>
#include <stdint.h>

#include "image_format.h"

/* How the frames of one response are built. */
struct frame_build {
    uint32_t slot_bytes, segment_bytes;
    uint32_t copies;    /* slots for each frame */
    uint32_t ipv6;      /* the headers built in are IPv6's, else IPv4's */
    uint32_t patch_count; /* of the response, in its first frame */
    struct ssi_patch patches[SSI_PATCH_KINDS];
};

/* A response that is cut at once. */
struct frame_build_whole {
    struct frame_build build;
    uint32_t len_bytes; /* of its stream, at least 1 */
};

/* Cuts part of a response's stream into frames. stream: len_bytes bytes from stream_offset on, a multiple of
 * segment_bytes; last: the stream ends with them (else len_bytes is a multiple of segment_bytes too). slots: room for
 * copies * slot_bytes for each frame, written whole. frames: their entries, numbered from first_slot on. Returns the
 * number of frames. */
uint32_t frame_build_stream(const struct frame_build *build, const uint8_t *stream, size_t len_bytes,
                            uint64_t stream_offset, int last, uint32_t first_slot, uint8_t *slots,
                            struct ssi_frame *frames);

/* Cuts whole responses, whose streams lie one after the other: as frame_build_stream for each. */
uint32_t frame_build_streams(const struct frame_build_whole *wholes, uint32_t count, const uint8_t *streams,
                             uint32_t first_slot, uint8_t *slots, struct ssi_frame *frames);

/* Checks a slot against its frame's entry: 0, or what is wrong: 1 the IP header's checksum, 2 TCP's, 3 the lengths,
 * 4 payload_sum. */
int frame_build_check(const struct frame_build *build, const struct ssi_frame *frame, const uint8_t *slot);

/* Bytes of the headers that frame_build_stream puts in front of a payload. */
uint32_t frame_build_header_bytes(uint32_t ipv6);

#endif
