#include "file_build.h"

#include <stdbool.h>
#include <string.h>

#include "date.h"
#include "decimal.h"

_Static_assert(FILE_BUILD_ETAG_BYTES + 2 == SSI_ETAG_BYTES, "an ETag is its digits in quotes");

static uint32_t digits_of(uint64_t value)
{
    uint8_t digits[DECIMAL_BYTES_MAX];
    return decimal_put(digits, value);
}

static bool place_fits(const struct file_build_head *head, uint32_t offset, uint32_t len_bytes)
{
    return offset <= head->text_bytes && len_bytes <= head->text_bytes - offset;
}

static bool patches_fit(const struct file_build_head *head)
{
    const struct frame_build *build = &head->build;
    if (build->patch_count > SSI_PATCH_KINDS)
        return false;
    for (uint32_t i = 0; i < build->patch_count; i++)
        if (!place_fits(head, build->patches[i].offset, build->patches[i].bytes))
            return false;
    return true;
}

/* Does all that will be written or patched lie in the head's text? */
static bool head_fits(const struct file_build_head *head, uint32_t texts_bytes)
{
    const struct frame_build *build = &head->build;
    return head->text_offset <= texts_bytes && head->text_bytes <= texts_bytes - head->text_offset &&
           head->text_bytes > 0 && build->segment_bytes > 0 && build->copies > 0 &&
           build->slot_bytes >= SSI_PAYLOAD_OFFSET + build->segment_bytes &&
           place_fits(head, head->etag_offset, FILE_BUILD_ETAG_BYTES) &&
           place_fits(head, head->last_modified_offset, SSI_DATE_BYTES) &&
           place_fits(head, head->content_length_offset, head->content_length_bytes) && patches_fit(head);
}

static uint32_t slots_of(const struct file_build_head *head, uint64_t stream_bytes)
{
    return (uint32_t)((stream_bytes + head->build.segment_bytes - 1) / head->build.segment_bytes) *
           head->build.copies;
}

/* Is a file as its template says, and is there room for its answer? */
static bool file_fits(const struct file_build_head *head, uint32_t texts_bytes, const struct file_build_file *file,
                      uint64_t bodies_left, const struct file_build_output *out)
{
    if (file->content_bytes > bodies_left || file->content_bytes > out->stream_bytes_max)
        return false;
    if (!head_fits(head, texts_bytes) ||
        (head->content_length_offset != 0 && digits_of(file->content_bytes) > head->content_length_bytes))
        return false;
    uint64_t stream_bytes = head->text_bytes + file->content_bytes;
    return stream_bytes <= out->stream_bytes_max && slots_of(head, stream_bytes) <= out->slots_max - out->slots_made;
}

/* A file's head into the stream. */
static void put_head(const struct file_build_head *head, const uint8_t *texts, const struct file_build_file *file,
                     uint8_t *stream)
{
    memcpy(stream, texts + head->text_offset, head->text_bytes);
    if (head->etag_offset != 0)
        memcpy(stream + head->etag_offset, file->etag, FILE_BUILD_ETAG_BYTES);
    if (head->last_modified_offset != 0)
        date_format(file->last_modified_s, stream + head->last_modified_offset);
    if (head->content_length_offset != 0)
        decimal_put_right(stream + head->content_length_offset, head->content_length_bytes, file->content_bytes);
}

/* Cuts the head and body that lie in the stream and writes their response's row. */
static void cut(const struct file_build_head *head, uint64_t body_bytes, struct ssi_response *row,
                struct file_build_output *out)
{
    const struct frame_build *build = &head->build;
    uint32_t stream_bytes = head->text_bytes + (uint32_t)body_bytes;
    uint8_t *slots = out->slots + (size_t)out->slots_made * build->slot_bytes;
    uint32_t frames = frame_build_stream(build, out->stream, stream_bytes, 0, 1, out->first_slot + out->slots_made,
                                         slots, out->frames + out->frames_made);
    *row = (struct ssi_response){
        .stream_bytes = stream_bytes,
        .first_frame = out->first_frame + out->frames_made,
        .head_bytes = head->text_bytes,
        .first_patch = head->first_patch,
        .status = (uint16_t)head->status,
        .patch_count = (uint16_t)build->patch_count,
    };
    out->frames_made += frames;
    out->slots_made += frames * build->copies;
}

/* The answers of the file with this index. */
static void put_file(const struct file_build_template *template, const uint8_t *texts,
                     const struct file_build_file *file, const uint8_t *body, uint32_t index,
                     struct file_build_output *out)
{
    const struct file_build_head *full = &template->full;
    put_head(full, texts, file, out->stream);
    memcpy(out->stream + full->text_bytes, body, file->content_bytes);
    cut(full, file->content_bytes, &out->responses[index], out);
    uint8_t *etag = out->strings + (size_t)index * SSI_ETAG_BYTES;
    etag[0] = etag[SSI_ETAG_BYTES - 1] = '"';
    memcpy(etag + 1, file->etag, FILE_BUILD_ETAG_BYTES);
    out->variants[index] = (struct ssi_variant){
        .get_response = out->first_response + index,
        .not_modified_response = template->not_modified_response,
        .partial_response = template->partial_response,
        .part_response = template->part_response,
        .swap_offset = template->swap_offset,
        .swap_bytes = template->swap_bytes,
        .etag_offset = out->first_string + index * SSI_ETAG_BYTES,
        .etag_bytes = SSI_ETAG_BYTES,
        .encoding = (uint16_t)template->encoding,
        .last_modified_s = file->last_modified_s,
        .content_bytes = file->content_bytes,
    };
}

uint32_t file_build(const struct file_build_template *templates, uint32_t template_count, const uint8_t *texts,
                    uint32_t texts_bytes, const struct file_build_file *files, uint32_t file_count,
                    const uint8_t *bodies, uint64_t bodies_bytes, struct file_build_output *output)
{
    output->slots_made = output->frames_made = 0;
    output->bodies_bytes = 0;
    for (uint32_t index = 0; index < file_count; index++) {
        const struct file_build_file *file = &files[index];
        uint64_t used = output->bodies_bytes;
        if (file->template >= template_count ||
            !file_fits(&templates[file->template].full, texts_bytes, file, bodies_bytes - used, output))
            return index;
        put_file(&templates[file->template], texts, file, bodies + used, index, output);
        output->bodies_bytes = used + file->content_bytes;
    }
    return file_count;
}
