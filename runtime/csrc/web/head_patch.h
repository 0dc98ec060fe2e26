/* What a response's head says anew each time it is sent, RFC 9110: Date and Connection, in a 206 Content-Length and
 * Content-Range, and in a 206 and a 304, which files share, ETag and Last-Modified (struct ssi_patch). It follows from what web
 * has put into the slice alone, so that a retransmission carries the same bytes. */
#ifndef SANDSTORM_HEAD_PATCH_H
#define SANDSTORM_HEAD_PATCH_H

#include <stdint.h>

#include "libtcpip/tcpip.h"

/* The application's words of a slice, read and written where they are. */
struct __attribute__((may_alias)) head_values {
    uint64_t range_first,
        range_last; /* of Content-Range, and of Content-Length; of a 416 the first is behind the last */
    uint32_t response;
    uint32_t date_s; /* what Date says, seconds since 1970 */
    uint32_t close : 1; /* Connection: close */
    uint32_t variant : 31; /* whose ETag, Last-Modified and size a 206, 304 or 416 says */
    uint32_t zero;
};
_Static_assert(sizeof(struct head_values) == SLICE_APP_BYTES, "they are all that a slice has room for");

/* As whole words, since a slice is copied in whole vectors soon: a load of what several smaller stores have left behind would have to
 * wait for them. No range is said. */
static inline void head_values_set(struct response_slice *slice, uint32_t response, uint32_t date_s, uint32_t variant,
                                   bool close)
{
    _Static_assert(offsetof(struct head_values, response) == 16 && offsetof(struct head_values, date_s) == 20,
                   "word 2");
    slice->app[2] = response | (uint64_t)date_s << 32;
    slice->app[3] = variant << 1 | close; /* the first bit field is the low one, wire.h wants little-endian */
}

static inline const struct head_values *head_values_of(const struct response_slice *slice)
{
    return (const struct head_values *)slice->app;
}

struct web;
/* Reckons the sums of texts that never change. */
void head_patch_init(struct web *web);
/* A struct tcpip_app has this as its patch. */
uint64_t head_patch(const struct tcpip *tcpip, const struct response_slice *slice, uint64_t offset, uint8_t *dst,
                    uint32_t len_bytes);

#endif
