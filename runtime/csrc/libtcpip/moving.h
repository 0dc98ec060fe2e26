/* The fields of a head that move, RFC 9110: Date, Connection, in a 206 Content-Length and Content-Range, and in a 206 and
 * a 304, which files share, ETag and Last-Modified. Their text follows from the span alone, so that a retransmission
 * carries the same bytes. */
#ifndef SANDSTORM_MOVING_H
#define SANDSTORM_MOVING_H

#include "image/image_format.h"
#include "tcb.h"

struct stack;

struct moving_fields {
    const struct ssi_response *response;
    const uint8_t *date;
    const uint8_t *connection;
    uint64_t sum; /* of all of them, where they lie in the frame */
    bool more; /* than Date and Connection: those below */
    uint8_t date_text[SSI_DATE_BYTES + 3];
    const uint8_t *etag;
    uint8_t length_text[SSI_LENGTH_BYTES_MAX];
    uint8_t range_text[SSI_RANGE_BYTES_MAX];
    uint8_t last_modified_text[SSI_DATE_BYTES + 3];
};

/* What the span's fields say now and whenever it is sent again. */
void moving_fields_of(struct stack *stack, const struct tcp_span *span, struct moving_fields *fields);
/* Puts them where they belong in a copy of the first frame's payload. */
void moving_patch(const struct moving_fields *fields, uint8_t *payload);
/* Lays what [offset, offset + len_bytes) of the stream has of them over dst, a copy of those bytes. */
void moving_overlay(const struct moving_fields *fields, uint8_t *dst, uint64_t offset, uint32_t len_bytes);

#endif
