/* What of a request's head is logged: its first line and a few fields, as the client has written them. Nothing is decided by it, so
 * what is not quite HTTP is read as far as it goes. */
#ifndef SANDSTORM_ACCESS_HEAD_H
#define SANDSTORM_ACCESS_HEAD_H

#include <stdint.h>

#include "http_parse.h"

#define ACCESS_HEAD_BYTES 896 /* that are kept; of a longer one what is logged is picked out */

/* Data NULL: there is no such thing. */
struct access_head {
    struct http_text line; /* the first, without its end */
    struct http_text method, target, protocol;
    struct http_text host, referer, user_agent;
};

/* Copies a head into ACCESS_HEAD_BYTES; of a longer one its first line, cut if need be, and those fields. Returns the bytes. */
uint32_t access_head_keep(uint8_t *kept, const uint8_t *head, uint32_t head_bytes);
/* Reads what has been kept; behind an empty line may be anything. */
void access_head_read(const uint8_t *kept, uint32_t kept_bytes, struct access_head *head);

#endif
