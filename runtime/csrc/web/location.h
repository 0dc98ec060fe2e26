/* What of a request goes into a redirect's Location: its path behind a route's prefix, and its query. Nothing of it can end the
 * field, or make another host of what stands in front. */
#ifndef SANDSTORM_LOCATION_H
#define SANDSTORM_LOCATION_H

#include <stdbool.h>
#include <stdint.h>

#include "http_parse.h"

/* A text in the making. */
struct location_text {
    uint8_t *data;
    uint32_t len_bytes, room_bytes;
    bool full; /* there was more than room for it */
};

/* Room for so many bytes behind what there is, which are part of it then; NULL: it is full. */
uint8_t *location_take(struct location_text *text, uint32_t bytes);
/* The path from its byte skip_bytes on, with its escapes as they came where no dots and no slashes were taken out of it, and made
 * anew where they were. Slashes in front are left out: behind a slash another one begins a host (RFC 3986 section 4.2). */
void location_put_path(struct location_text *text, const struct http_request *request, uint32_t skip_bytes);
/* The query with its question mark. */
void location_put_query(struct location_text *text, struct http_text query);

#endif
