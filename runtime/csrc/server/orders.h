/* What the server does for its supervisor while workers serve: it takes other images, leaves its connections, lets a client be traced. */
#ifndef SANDSTORM_ORDERS_H
#define SANDSTORM_ORDERS_H

#include <stdint.h>

#include "libnmio/fault.h"
#include "libnmio/trace.h"
#include "swaps.h"

/* What the server is asked: to serve another image, with two descriptors (SCM_RIGHTS), of the file that has its slots and of its
 * tables; to reset connections that still need an image; to end, and leave its connections as records (libtcpip/records.h), in
 * the file of the first descriptor; and to keep the heads of a client's frames (trace_set). */
#define SERVER_SWAP 1
#define SERVER_END 2
#define SERVER_LEAVE 3
#define SERVER_TRACE 4

/* What it tells of that, as news (server.h): a client's frames are kept from now on; number: of the session. */
#define SERVER_TRACED 7

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
    uint64_t records_bytes; /* SERVER_LEAVE: worker_records_bytes of each, one behind the other */
    uint64_t slots_offset, slots_bytes; /* in the first descriptor's file, from a page on */
    uint64_t tables_bytes;
    struct server_table tables[SERVER_TABLES];
    char fault_line[FAULT_LINE_BYTES]; /* fault_guard */
    struct trace_filter trace;
};

struct orders {
    int fd; /* they come from there */
    const struct swaps_workers *workers;
    struct swaps *swaps;
    struct trace *const *traces; /* [trace_count], of all workers */
    uint32_t trace_count;
    /* What becomes of images (SWAPS_*), and that a client is traced (SERVER_TRACED). */
    void (*tell)(const struct swaps_news *news);
};

/* Does what is asked. Returns when the other end is closed. */
void orders_obey(const struct orders *orders);

#endif
