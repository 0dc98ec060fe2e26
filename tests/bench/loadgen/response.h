/* An HTTP/1.1 response as it comes in, piece by piece: its head, then as many bytes as Content-Length says. */
#ifndef LOADGEN_RESPONSE_H
#define LOADGEN_RESPONSE_H

#include <stdbool.h>
#include <stdint.h>

#define RESPONSE_LINE_BYTES 48 /* of a line that came in two parts; all that matters of one fits */

enum response_phase { RESPONSE_STATUS_LINE, RESPONSE_FIELDS, RESPONSE_BODY };
enum response_progress { RESPONSE_MORE, RESPONSE_DONE, RESPONSE_BAD };

struct response {
    const uint8_t *wanted; /* what the body must be; NULL: not compared */
    uint64_t wanted_bytes;
    uint64_t body_bytes, body_at; /* Content-Length, and what has come of that */
    uint16_t status;
    uint8_t phase, line_bytes;
    bool has_length, closes, differs;
    char line[RESPONSE_LINE_BYTES];
};

/* A new one. wanted: NULL if its body shall not be compared. */
void response_begin(struct response *response, const uint8_t *wanted, uint64_t wanted_bytes);

/* Takes what came next. RESPONSE_BAD: it is no response that has a Content-Length, or there is more than that. */
enum response_progress response_take(struct response *response, const uint8_t *data, uint32_t bytes);

#endif
