/* The server: a process of its own that runs workers and does nothing else, with no more rights than that takes (confine.h). Who forks it,
 * the supervisor, has opened all that workers use, and goes on to read and to steer them through the memory that both share. */
#ifndef SANDSTORM_SERVER_H
#define SANDSTORM_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "swaps.h"

struct server_options {
    struct worker *const *workers; /* [worker_count] */
    const int32_t *cpus; /* for each a processor, or -1: any */
    uint32_t worker_count; /* at most SERVER_WORKERS_MAX */
    bool change_user;
    uint32_t uid, gid;
    const struct tcpip_app *app; /* of the workers */
    struct trace *const *traces; /* [trace_count], of the workers' ports */
    uint32_t trace_count;
    struct swaps_mapping mappings[SWAPS_MAPPINGS]; /* where the image is that they are laid out for */
    const struct image *swapped; /* and the one that they are to serve instead, from the first round on; or NULL */
    uint32_t swapped_number;
    struct swaps_mapping swapped_mappings[SWAPS_MAPPINGS];
};
#define SERVER_WORKERS_MAX 1024

/* What the server tells, beside SWAPS_* (swaps.h) and SERVER_TRACED (orders.h). */
#define SERVER_READY 1 /* workers run; confined: SERVER_* bits */
#define SERVER_REFUSED 2 /* it has ended, as result says why: -errno of what it could not give up or make */
#define SERVER_WORKER_ENDED 3 /* a worker; result as worker_run's */

#define SERVER_FILES_CONFINED 1 /* by Landlock */
#define SERVER_CALLS_CONFINED 2 /* by seccomp */

struct server_news {
    uint32_t kind;
    uint32_t number; /* of the worker, or the image */
    int32_t result;
    uint32_t confined;
};

/* Forks it. Returns its process id, or -errno; the supervisor reads struct server_news from *fd, a message each, and the end of it when
 * the server is no more, and sends struct server_order (orders.h). When the supervisor closes it, or dies, workers stop and the server ends. */
int server_fork(const struct server_options *options, int *fd);

#endif
