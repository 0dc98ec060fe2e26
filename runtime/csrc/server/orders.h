/* What the server does for its supervisor while workers serve: it takes other images. */
#ifndef SANDSTORM_ORDERS_H
#define SANDSTORM_ORDERS_H

#include <stdint.h>

#include "libnmio/fault.h"
#include "swaps.h"

/* What the server is asked: to serve another image, with two descriptors (SCM_RIGHTS), of the file that has its slots and of its
 * tables; and to reset connections that still need an image. */
#define SERVER_SWAP 1
#define SERVER_END 2

/* header, strings, hosts, sites, buckets, routes, variants, responses, patches, errors, frames */
#define SERVER_TABLES 11
struct server_table {
    uint64_t offset, bytes; /* in the second descriptor's file */
};
#define SERVER_DESCRIPTORS 2

/* The server looks at nothing in an image: whoever asks has checked it whole, and nobody can write to its tables any more. */
struct server_order {
    uint32_t kind;
    uint32_t number; /* of the image, never the same again; what was served from the start is 0 */
    uint64_t slots_offset, slots_bytes; /* in the first descriptor's file, from a page on */
    uint64_t tables_bytes;
    struct server_table tables[SERVER_TABLES];
    char fault_line[FAULT_LINE_BYTES]; /* fault_guard */
};

/* What the server tells of images, as struct server_news (server.h). */
#define SERVER_SWAPPED 4 /* an image is served by all workers; result: connections that need one before it */
#define SERVER_SWAP_REFUSED 5 /* an image is not, as result says: -errno; what was served is served on */
#define SERVER_IMAGE_GONE 6 /* an image is needed by none any more, and no longer mapped */

/* Does what is asked through fd, and tells what becomes of it: a kind, the image's number, and the result. newest: the image that is
 * served, beside image 0. Returns when the other end is closed. */
void orders_obey(int fd, struct swaps *swaps, uint32_t newest,
                 void (*tell)(uint32_t kind, uint32_t number, int result));

#endif
