/* Many TCP clients over a perfect wire, for the in-memory benchmark: keep-alive connections that ask for files again and
 * again, acknowledge every second segment, and compare what they get with the image. */
#ifndef BENCH_CLIENTS_H
#define BENCH_CLIENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "image/image.h"
#include "libnmio/nmio.h"

#define CLIENT_FRAME_BYTES 512
#define CLIENT_TARGETS_MAX 300000

/* What is asked for. */
struct target {
    const struct ssi_response *response;
    char request[256];
    uint32_t request_bytes;
};

struct client {
    uint64_t received; /* of the response */
    const struct target *target;
    uint32_t seq, ack; /* host byte order */
    uint32_t ts_echo;
    uint16_t unacked; /* segments */
    bool connected, queued, checks;
};

struct clients {
    const struct image *image;
    struct client *client; /* [count] */
    uint32_t count;
    uint32_t first_number; /* apart from those of other workers */
    const struct target *targets; /* [target_count], asked for in turn from a random one on */
    uint32_t target_count, next_target;
    uint32_t *queue; /* [count], a ring: clients that have something to say */
    uint32_t queue_first, queue_count;
    uint32_t now_ms;
    uint64_t left; /* requests still to be made */
    uint64_t check_every; /* one answer in so many is compared with the image: that fills the caches with payload */
    uint64_t requests, bytes, segments, mismatches;
};

/* The request for a path of the image's first site, and its answer. False: there is no such route. */
bool target_make(struct target *target, const struct image *image, const char *path);

void clients_open(struct clients *clients, const struct image *image, uint32_t count, uint32_t first_number);

/* Gives the idle ones work: requests for targets. */
void clients_start(struct clients *clients, const struct target *targets, uint32_t target_count, uint64_t requests);

/* Writes the next frame to send, with no checksum, into frame. Returns its bytes; 0: nobody has anything to say. */
uint32_t clients_say(struct clients *clients, uint8_t *frame);

/* Takes in what the server sent. */
void clients_hear(struct clients *clients, const struct nmio_tx *tx, const struct nmio_tx_desc *desc);

#endif
