/* When a request is due. Closed: as soon as a connection is free. Open: at times of its own, whether the server keeps up
 * or not, so that a latency counted from then leaves nothing out. */
#ifndef LOADGEN_LOAD_H
#define LOADGEN_LOAD_H

#include <stdbool.h>
#include <stdint.h>

#define LOAD_NEVER UINT64_MAX

struct load {
    double interval_ns; /* between requests, in the mean; 0: closed */
    bool poisson; /* else evenly */
    bool stopped;
    double next_ns; /* when the next one is due */
    uint64_t random_state; /* not zero */
};

/* Takes a request that is due; *scheduled_ns: since when. They come in the order of their times. */
bool load_take(struct load *load, uint64_t now_ns, uint64_t *scheduled_ns);

/* When the next one is due. LOAD_NEVER: none will be; 0: always. */
uint64_t load_next_ns(const struct load *load);

#endif
