/* libtcpip as a whole: IP, ICMP and TCP over the frames that libeth lets through, and one application on top (app.h). A deterministic
 * function of frames, time and randomness: it makes no system call, reads no clock and allocates nothing after tcpip_init. What
 * an application calls is in connection.h and output.h. */
#ifndef SANDSTORM_TCPIP_H
#define SANDSTORM_TCPIP_H

#include "connection.h"
#include "output.h"
#include "state.h"

/* What it works on; all of it must outlive it. */
struct tcpip_parts {
    const struct image *image; /* of prebuilt frames; may have none */
    struct nmio_region *region;
    struct nmio_tx *tx;
    struct eth *eth;
    const struct tcpip_app *app;
    const void *app_data; /* what the application reads from beside the image, or NULL */
};

/* What of the configuration is out of bounds, for an operator; NULL: nothing. */
const char *tcpip_config_error(const struct tcpip_config *config);
/* Lays the tables out, and the application's; tcpip is zeroed, or scratch while layout only counts. */
void tcpip_lay_out(struct tcpip *tcpip, struct layout *layout, const struct tcpip_config *config,
                   const struct tcpip_parts *parts);
/* After tcpip_lay_out in zeroed memory. */
void tcpip_init(struct tcpip *tcpip, const struct tcpip_config *config, const struct tcpip_parts *parts);

/* The same for what serves connections that others carry alone (carried.h): of the parts it needs no region, tx and eth. tcpip->reset
 * is the caller's to set. */
void tcpip_lay_out_carried(struct tcpip *tcpip, struct layout *layout, const struct tcpip_config *config,
                           const struct tcpip_parts *parts);
void tcpip_init_carried(struct tcpip *tcpip, const struct tcpip_config *config, const struct tcpip_parts *parts);

/* Time, before anything else in a round, which begins with it: microseconds of a monotonic clock; seconds since 1970-01-01 UTC. */
void tcpip_clock(struct tcpip *tcpip, uint64_t now_us, int64_t wall_s);

/* What of a frame is left for others, in *packet. */
enum tcpip_verdict {
    TCPIP_TAKEN,
    TCPIP_NEIGHBOUR, /* for libeth's nd_input */
    TCPIP_LISTENER_QUERY, /* for libeth's mld_input */
};
/* A frame for which eth_input said ETH_IP. */
enum tcpip_verdict tcpip_input(struct tcpip *tcpip, const struct nmio_rx *frame, struct packet *packet);

/* Runs due timers, and sends for the connections that have something to send. Call it once a round, after all input, and again
 * when tx has space. */
void tcpip_output(struct tcpip *tcpip);
/* When tcpip_output must run next; UINT64_MAX: not before a frame arrives. */
uint64_t tcpip_deadline_us(const struct tcpip *tcpip);
/* Do connections wait for space in tx? */
bool tcpip_waits_for_space(const struct tcpip *tcpip);

/* Accepts no more connections and closes idle ones; the others end with the answer they are in, or with that to the request
 * of which they have a part. */
void tcpip_drain(struct tcpip *tcpip);
/* Connections that have an answer which the peer has not acknowledged whole, or a part of a request. */
uint32_t tcpip_unfinished(const struct tcpip *tcpip);
/* Resets those, as far as tx has space. True: there is none left. */
bool tcpip_abort(struct tcpip *tcpip);

#endif
