/* For the compiler: the answers of many small files, whose heads differ at few places. */
#ifndef SANDSTORM_FILE_BUILD_H
#define SANDSTORM_FILE_BUILD_H

#include <stdint.h>

#include "frame_build.h"
#include "image_format.h"

#define FILE_BUILD_ETAG_BYTES 32 /* of an ETag without its quotes */

/* GET's head with gaps: a text, what is written at which places of it, and how it is cut. A place of 0: nothing is. */
struct file_build_head {
    struct frame_build build;
    uint32_t status;
    uint32_t first_patch; /* of the response */
    uint32_t text_offset, text_bytes; /* where the text is among all texts */
    uint32_t etag_offset; /* of FILE_BUILD_ETAG_BYTES */
    uint32_t last_modified_offset; /* of SSI_DATE_BYTES */
    uint32_t content_length_offset, content_length_bytes; /* the file's size, which has as many digits at most */
};

/* What files have in common that differ in content and time alone, and whose sizes have as many digits. */
struct file_build_template {
    struct file_build_head full;
    /* As in struct ssi_variant. */
    uint32_t not_modified_response, partial_response, part_response;
    uint32_t swap_offset, swap_bytes;
    uint32_t encoding;
};

/* A file. */
struct file_build_file {
    int64_t last_modified_s; /* of a year of four digits */
    uint64_t content_bytes;
    uint32_t template;
    uint8_t etag[FILE_BUILD_ETAG_BYTES];
};

/* What is written to, and what has been written of it. Numbers go on from those that the caller has set. */
struct file_build_output {
    uint8_t *slots; /* room for slots_max slots */
    struct ssi_frame *frames; /* for as many */
    struct ssi_response *responses; /* for one of each file, like those below */
    struct ssi_variant *variants;
    uint8_t *strings; /* for SSI_ETAG_BYTES of each file */
    uint8_t *stream; /* for stream_bytes_max bytes: a head and its body before they are cut */
    uint32_t slots_max, stream_bytes_max;
    uint32_t first_slot, first_frame, first_response, first_string; /* the numbers of what is written first */
    uint32_t slots_made, frames_made;
    uint64_t bodies_bytes; /* that were used */
};

/* Cuts what files answer GET with, in their order, and writes their rows. bodies: the files' bytes, one after the other,
 * bodies_bytes in all. Stops at a file that there is no room for, or that is not as its template and these sizes say. Returns
 * the number of files that are done. */
uint32_t file_build(const struct file_build_template *templates, uint32_t template_count, const uint8_t *texts,
                    uint32_t texts_bytes, const struct file_build_file *files, uint32_t file_count,
                    const uint8_t *bodies, uint64_t bodies_bytes, struct file_build_output *output);

#endif
