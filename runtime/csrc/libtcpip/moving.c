#include "moving.h"

#include "image/date.h"
#include "image/decimal.h"
#include "stack_internal.h"
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
static void put_range(uint8_t *field, uint32_t field_bytes, const struct tcp_span *span)
{
    uint8_t text[SSI_RANGE_BYTES_MAX];
    uint8_t *at = put_text(text, "bytes ");
    if (span->range_first > span->range_last) {
        at = put_text(at, "*");
    } else {
        at = put_number(at, span->range_first);
        at = put_text(at, "-");
        at = put_number(at, span->range_last);
    }
    at = put_text(at, "/");
    at = put_number(at, span->content_bytes);
    text_put_right(field, field_bytes, text, (uint32_t)(at - text));
}

static uint16_t sum_at(const uint8_t *text, uint32_t len_bytes, uint32_t offset)
{
    return checksum_at(checksum_sum(text, len_bytes), offset);
}

/* How long a 206 is, and what of the file it or a 416 is of. Never inline: what all heads have would be the slower for it. */
__attribute__((noinline)) static void range_fields_of(const struct tcp_span *span, struct moving_fields *fields)
{
    const struct ssi_response *response = fields->response;
    if (response->length_offset != 0) {
        decimal_put_right(fields->length_text, response->length_bytes, span->range_last - span->range_first + 1);
        fields->sum += sum_at(fields->length_text, response->length_bytes, response->length_offset);
    }
    if (response->range_offset != 0) {
        put_range(fields->range_text, response->range_bytes, span);
        fields->sum += sum_at(fields->range_text, response->range_bytes, response->range_offset);
    }
}

/* Which file a 206 or 304 is of. */
static void validators_of(const struct image *image, const struct tcp_span *span, struct moving_fields *fields)
{
    const struct ssi_response *response = fields->response;
    const struct ssi_variant *variant = &image->variants[span->variant];
    fields->etag = NULL;
    if (response->etag_offset != 0) {
        fields->etag = image->strings + variant->etag_offset;
        fields->sum += sum_at(fields->etag, SSI_ETAG_BYTES, response->etag_offset);
    }
    if (response->last_modified_offset != 0) {
        date_format(variant->last_modified_s, fields->last_modified_text);
        fields->sum += sum_at(fields->last_modified_text, SSI_DATE_BYTES, response->last_modified_offset);
    }
}

void moving_fields_of(struct stack *stack, const struct tcp_span *span, struct moving_fields *fields)
{
    static const uint8_t keep_alive[SSI_CONNECTION_BYTES] = "keep-alive";
    static const uint8_t close[SSI_CONNECTION_BYTES] = "     close";
    const struct ssi_response *response = &stack->image->responses[span->response];
    fields->response = response;
    fields->connection = span->close ? close : keep_alive;
    fields->more = (response->length_offset | response->range_offset | response->etag_offset |
                    response->last_modified_offset) != 0;
    fields->sum = 0;
    if (response->connection_offset != 0)
        fields->sum += sum_at(fields->connection, SSI_CONNECTION_BYTES, response->connection_offset);
    if (fields->more) {
        range_fields_of(span, fields);
        validators_of(stack->image, span, fields);
    }
    if (response->date_offset == 0)
        return;
    fields->date = stack->date_text;
    uint64_t date_sum = stack->date_sum;
    if ((int64_t)span->date_s != stack->date_s) {
        date_format(span->date_s, fields->date_text);
        fields->date = fields->date_text;
        date_sum = checksum_sum(fields->date_text, SSI_DATE_BYTES);
    }
    fields->sum += checksum_at(date_sum, response->date_offset);
}

static void patch_more(const struct moving_fields *fields, uint8_t *payload)
{
    const struct ssi_response *response = fields->response;
    if (response->length_offset != 0)
        memcpy(payload + response->length_offset, fields->length_text, response->length_bytes);
    if (response->range_offset != 0)
        memcpy(payload + response->range_offset, fields->range_text, response->range_bytes);
    if (response->etag_offset != 0)
        memcpy(payload + response->etag_offset, fields->etag, SSI_ETAG_BYTES);
    if (response->last_modified_offset != 0)
        memcpy(payload + response->last_modified_offset, fields->last_modified_text, SSI_DATE_BYTES);
}

void moving_patch(const struct moving_fields *fields, uint8_t *payload)
{
    const struct ssi_response *response = fields->response;
    if (response->connection_offset != 0)
        memcpy(payload + response->connection_offset, fields->connection, SSI_CONNECTION_BYTES);
    if (response->date_offset != 0)
        memcpy(payload + response->date_offset, fields->date, SSI_DATE_BYTES);
    if (fields->more)
        patch_more(fields, payload);
}

static void overlay(uint8_t *dst, uint64_t offset, uint32_t len, const uint8_t *field, uint32_t at, uint32_t bytes)
{
    uint64_t from = at > offset ? at : offset;
    uint64_t to = at + bytes < offset + len ? at + bytes : offset + len;
    if (at != 0 && from < to)
        memcpy(dst + (from - offset), field + (from - at), to - from);
}

void moving_overlay(const struct moving_fields *fields, uint8_t *dst, uint64_t offset, uint32_t len_bytes)
{
    const struct ssi_response *response = fields->response;
    overlay(dst, offset, len_bytes, fields->date, response->date_offset, SSI_DATE_BYTES);
    overlay(dst, offset, len_bytes, fields->connection, response->connection_offset, SSI_CONNECTION_BYTES);
    if (!fields->more)
        return;
    overlay(dst, offset, len_bytes, fields->length_text, response->length_offset, response->length_bytes);
    overlay(dst, offset, len_bytes, fields->range_text, response->range_offset, response->range_bytes);
    overlay(dst, offset, len_bytes, fields->etag, response->etag_offset, SSI_ETAG_BYTES);
    overlay(dst, offset, len_bytes, fields->last_modified_text, response->last_modified_offset, SSI_DATE_BYTES);
}
