/* What all workers of one process serve: an image is handed to all of them (libtcpip/swap.h), and is done with when none needs it.
 * By whoever swaps in that process, always the same thread, which looks for news now and then. */
#ifndef SANDSTORM_SWAPS_H
#define SANDSTORM_SWAPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image/image.h"
#include "libtcpip/app.h"

struct worker;
struct sockets;
struct swaps;

/* Either kind of worker; the other is NULL. */
struct swaps_workers {
    struct worker *const *workers; /* [count] */
    struct sockets *const *sockets; /* [count] */
    uint32_t count;
    const struct tcpip_app *app;
};

/* Memory that is an image's, to be unmapped with it. */
struct swaps_mapping {
    void *address; /* NULL: nothing is to be unmapped */
    size_t bytes;
};
#define SWAPS_MAPPINGS 2

#define SWAPS_IMAGES_MAX 16 /* that can be needed at once */

/* Beside SERVER_*: of one server's news. */
#define SWAPS_SERVED 4 /* by all workers; result: connections that need one before it */
#define SWAPS_REFUSED 5 /* it is not, as result says: -errno; what was served is served on */
#define SWAPS_GONE 6 /* it is needed by none any more, and no longer mapped */
struct swaps_news {
    uint32_t kind; /* SWAPS_* */
    uint32_t number; /* of the image */
    int32_t result;
};

/* Before anything is swapped: what the workers serve is image 0. NULL without memory. */
struct swaps *swaps_create(const struct swaps_workers *workers, const struct swaps_mapping *first);
/* Workers must not run any more. Mappings stay. */
void swaps_destroy(struct swaps *swaps);

/* Hands an image to all workers. number: the caller's own, never the same again. What the image points to must outlive it, up to
 * when it is told that it is gone or refused; then mappings (SWAPS_MAPPINGS, or NULL) are unmapped. Returns 0, -ENOMEM, -ENOSPC:
 * too many are still needed, or -EBUSY: it has not been told yet what became of the one before. */
int swaps_begin(struct swaps *swaps, uint32_t number, const struct image *image,
                const struct swaps_mapping *mappings);
/* Can another one be handed over, as to what became of the last? */
bool swaps_takes(const struct swaps *swaps);
/* What has become of an image: the next of what has not been told yet. False: nothing now. Of the one handed over last it is told
 * first whether it is served: whoever is told that another one is gone knows by then what took its place. */
bool swaps_news(struct swaps *swaps, struct swaps_news *news);
/* When to look for news next, in ms; -1: there is none to come. */
int swaps_look_ms(const struct swaps *swaps);
/* Connections that still need this one are to be reset. */
void swaps_end(struct swaps *swaps, uint32_t number);

#endif
