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

/* Does what is asked through fd, and tells what becomes of images (SWAPS_*). Returns when the other end is closed. */
void orders_obey(int fd, struct swaps *swaps, void (*tell)(const struct swaps_news *news));

#endif
