/* Many TCP clients over a perfect wire, for the in-memory benchmark: connections that ask for files again and again,
 * acknowledge every second segment, or all that came at once, and compare what they get with the image. With `close` there is a new connection for
 * each request: SYN, ACK, the request, and at its end a FIN that acknowledges the server's. */
#ifndef BENCH_CLIENTS_H
#define BENCH_CLIENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "image/image.h"
#include "libnmio/nmio.h"

#define CLIENT_FRAME_BYTES 1024
#define CLIENT_TARGETS_MAX 300000

/* What is asked for. */
struct target {
    const struct ssi_response *response;
    char *request; /* never freed */
    uint32_t request_bytes;
};

struct client {
    uint64_t received; /* of the response */
    const struct target *target;
    uint32_t seq, ack; /* host byte order */
    uint32_t said; /* what it has acknowledged of ack */
    uint32_t ts_echo;
    uint16_t unacked; /* segments */
    uint16_t generation; /* of its connections, with close: each comes from another address */
    bool connected, queued, checks;
    bool greeted, finishing, finished; /* with close: the SYN-ACK is acknowledged, a FIN is due, it was sent */
};

struct clients {
    const struct image *image;
    struct client *client; /* [count] */
    uint32_t count;
    uint32_t first_number; /* apart from those of other workers */
    bool close; /* a connection for each request */
    bool random; /* clients speak in a shuffled order and ask for anything, else in turn */
    uint64_t random_state;
    const struct target *targets; /* [target_count] */
    uint32_t target_count, next_target;
    uint32_t *queue; /* [count], a ring: clients that have something to say */
    uint32_t queue_first, queue_count;
    uint32_t now_ms;
    uint64_t left; /* requests still to be made */
    uint32_t
        ack_bytes; /* so much is acknowledged by each ACK; UINT32_MAX: all that came, as behind a NIC that joins segments */
    uint64_t check_every; /* one answer in so many is compared with the image: that fills the caches with payload */
    uint64_t requests, bytes, segments, mismatches;
};

/* A number below count; a linear congruential generator (Knuth's MMIX). */
static inline uint32_t random_below(uint64_t *state, uint32_t count)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((*state >> 32) * count >> 32);
}

/* What wrk, curl, apt, Firefox and Chromium say beside Host. */
#define TARGET_PROGRAMS 5

/* The request of a program, below TARGET_PROGRAMS, for a path of the image's first site, and its answer. False: there is no such
 * route. */
bool target_make(struct target *target, const struct image *image, const char *path, uint32_t program);

void clients_open(struct clients *clients, const struct image *image, uint32_t count, uint32_t first_number);

/* Gives the idle ones work: requests for targets. */
void clients_start(struct clients *clients, const struct target *targets, uint32_t target_count, uint64_t requests);

/* Writes the next frame to send, with no checksum, into frame. Returns its bytes; 0: nobody has anything to say. */
uint32_t clients_say(struct clients *clients, uint8_t *frame);

/* Takes in what the server sent. */
void clients_hear(struct clients *clients, const struct nmio_tx *tx, const struct nmio_tx_desc *desc);

#endif
