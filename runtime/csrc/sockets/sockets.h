/* The same applications over the kernel's TCP: a worker with listening sockets of its own and epoll, one thread. Requests are read and
 * answers chosen by the very hooks that the stack has (libtcpip/app.h), and answers leave from where the image is mapped. It needs no
 * privilege. Nothing is allocated after sockets_create. */
#ifndef SANDSTORM_SOCKETS_H
#define SANDSTORM_SOCKETS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image/image.h"
#include "sockets_config.h"

struct sockets;
struct generation;

/* What of the configuration is out of bounds, for an operator; NULL: nothing. */
const char *sockets_config_error(const struct sockets_config *config, const struct image *image);

/* A worker; the image must outlive it. Returns NULL and sets errno without memory or descriptors. */
struct sockets *sockets_create(const struct sockets_config *config, const struct image *image);
/* Closes all connections. */
void sockets_destroy(struct sockets *sockets);

/* Serves until sockets_stop. Returns 0, or -errno if there is no going on; -EFAULT: the image can't be read any more. */
int sockets_run(struct sockets *sockets);
/* From any thread or signal handler. */
void sockets_stop(struct sockets *sockets);
/* Has it go round once at least, though nothing comes; and how often it has. From any thread. */
void sockets_poke(struct sockets *sockets);
uint64_t sockets_rounds(const struct sockets *sockets);
/* Hands over a generation (libtcpip/swap.h), for it to take up in its next round. False while the one before this is not taken up
 * yet. From one thread. */
bool sockets_swap(struct sockets *sockets, struct generation *generation);
/* The one that is served, from any thread while none is handed over; and connections that need an older one, from any thread. */
struct generation *sockets_generation(const struct sockets *sockets);
uint32_t sockets_need_older(const struct sockets *sockets);
/* Accepts no more, ends idle connections, and the others with the answer that they are in. From any thread. */
void sockets_drain(struct sockets *sockets);
/* Connections that have an answer which is not all the kernel's, or a part of a request; UINT32_MAX: sockets_drain has not been
 * taken up yet. From any thread. */
uint32_t sockets_unfinished(const struct sockets *sockets);

/* What sockets_run does over and over, with the time as an argument: waits for at most timeout_ms (-1: for anything); and takes what
 * has come, at now_ns of a monotonic clock and wall_s seconds since 1970-01-01 UTC. Return 0, or -errno. */
int sockets_wait(struct sockets *sockets, int timeout_ms);
int sockets_round(struct sockets *sockets, uint64_t now_ns, int64_t wall_s);

void *sockets_app_state(struct sockets *sockets); /* what the application keeps, for functions of its own */

/* From any thread. */
uint64_t sockets_memory_bytes(const struct sockets *sockets);
uint32_t sockets_connections(const struct sockets *sockets); /* open now */
uint32_t sockets_response_uses(const struct sockets *sockets, uint32_t response); /* how often it has been begun */

/* Of the worker, of its connections (as the stack's) and of the application. */
uint32_t sockets_counter_count(const struct sockets *sockets);
const char *sockets_counter_name(const struct sockets *sockets, uint32_t index); /* NULL beyond the last */
uint64_t sockets_counter(const struct sockets *sockets, uint32_t index);

#endif
