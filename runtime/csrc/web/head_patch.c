#include "head_patch.h"

#include <string.h>

#include "image/date.h"
#include "image/decimal.h"
#include "state.h"
#include "wire/checksum.h"

static uint8_t *put_text(uint8_t *at, const char *text)
{
    while (*text != '\0')
        *at++ = (uint8_t)*text++;
    return at;
}

static uint8_t *put_number(uint8_t *at, uint64_t number)
{
    return at + decimal_put(at, number);
}

/* Content-Range, RFC 9110 section 14.4; of a 416 with an asterisk. An image may say a width that is too small for it. */
static void put_range(uint8_t *field, uint32_t field_bytes, const struct head_values *values, uint64_t content_bytes)
{
    uint8_t text[SSI_RANGE_BYTES_MAX];
    uint8_t *at = put_text(text, "bytes ");
    if (values->range_first > values->range_last) {
        at = put_text(at, "*");
    } else {
        at = put_number(at, values->range_first);
        at = put_text(at, "-");
        at = put_number(at, values->range_last);
    }
    at = put_text(at, "/");
    at = put_number(at, content_bytes);
    text_put_right(field, field_bytes, text, (uint32_t)(at - text));
}

/* Writes the bytes of a patch that few heads have. Never inline: those that all heads have would be the slower for it. */
__attribute__((noinline)) static uint64_t put_rare(const struct image *image, const struct response_slice *slice,
                                                   const struct ssi_patch *patch, uint8_t *at)
{
    const struct head_values *values = head_values_of(slice);
    /* An image that lies may patch a range into an answer that is none of a variant's, and have no variant. */
    const struct ssi_variant none = {0};
    const struct ssi_variant *variant =
        values->variant < image->header->variant_count ? &image->variants[values->variant] : &none;
    switch (patch->kind) {
    case SSI_PATCH_CONTENT_LENGTH:
        decimal_put_right(at, patch->bytes, values->range_last - values->range_first + 1);
        break;
    case SSI_PATCH_CONTENT_RANGE:
        put_range(at, patch->bytes, values, variant->content_bytes);
        break;
    case SSI_PATCH_ETAG:
        memcpy(at, image->strings + variant->etag_offset, SSI_ETAG_BYTES);
        break;
    default:
        date_format(variant->last_modified_s, at);
        break;
    }
    return checksum_sum(at, patch->bytes);
}

static uint64_t put_date(const struct web *web, uint32_t date_s, uint8_t *at)
{
    if ((int64_t)date_s == web->date_s) {
        memcpy(at, web->date_text, SSI_DATE_BYTES);
        return web->date_sum;
    }
    date_format(date_s, at);
    return checksum_sum(at, SSI_DATE_BYTES);
}

static const uint8_t connection_texts[2][SSI_CONNECTION_BYTES] = {"keep-alive", "     close"};

void head_patch_init(struct web *web)
{
    for (uint32_t close = 0; close < 2; close++)
        web->connection_sums[close] = checksum_sum(connection_texts[close], SSI_CONNECTION_BYTES);
}

static uint64_t put_connection(const struct web *web, bool close, uint8_t *at)
{
    memcpy(at, connection_texts[close], SSI_CONNECTION_BYTES);
    return web->connection_sums[close];
}

static const struct image *image_of(const struct web *web, const struct response_slice *slice)
{
    return &web->tcpip->generations.of[slice->generation]->image;
}

/* Writes the bytes of a patch; their sum where they are. */
__attribute__((always_inline)) static inline uint64_t put(const struct web *web, const struct response_slice *slice,
                                                          const struct ssi_patch *patch, uint8_t *at)
{
    uint64_t sum;
    if (patch->kind == SSI_PATCH_DATE)
        sum = put_date(web, head_values_of(slice)->date_s, at);
    else if (patch->kind == SSI_PATCH_CONNECTION)
        sum = put_connection(web, head_values_of(slice)->close, at);
    else
        sum = put_rare(image_of(web, slice), slice, patch, at);
    return (patch->offset & 1) == 0 ? sum : checksum_at(sum, patch->offset);
}

/* Writes what of patches is in [offset, offset + len_bytes) of the stream. */
__attribute__((noinline)) static void put_parts(const struct web *web, const struct response_slice *slice,
                                                const struct ssi_patch *patch, const struct ssi_patch *end,
                                                uint64_t offset, uint8_t *dst, uint32_t len_bytes)
{
    for (; patch < end; patch++) {
        uint8_t text[UINT8_MAX];
        uint32_t patch_end = (uint32_t)patch->offset + patch->bytes;
        uint64_t from = patch->offset > offset ? patch->offset : offset;
        uint64_t to = patch_end < offset + len_bytes ? patch_end : offset + len_bytes;
        if (from >= to)
            continue;
        put(web, slice, patch, text);
        memcpy(dst + (from - offset), text + (from - patch->offset), to - from);
    }
}

uint64_t head_patch(const struct tcpip *tcpip, const struct response_slice *slice, uint64_t offset, uint8_t *dst,
                    uint32_t len_bytes)
{
    const struct web *web = tcpip->app_state;
    const struct image *image = image_of(web, slice);
    const struct ssi_response *response = &image->responses[head_values_of(slice)->response];
    const struct ssi_patch *patch = image->patches + response->first_patch, *end = patch + response->patch_count;
    uint64_t sum = 0;
    /* They are in order. */
    if (offset != 0 || (patch < end && (uint32_t)end[-1].offset + end[-1].bytes > len_bytes)) {
        put_parts(web, slice, patch, end, offset, dst, len_bytes);
        return 0;
    }
    for (; patch < end; patch++)
        sum += put(web, slice, patch, dst + patch->offset);
    return sum;
}
