/* What all workers of one process serve: an image is handed to all of them (libtcpip/swap.h), and is done with when none needs it.
 * By whoever swaps in that process, always the same thread. */
#ifndef SANDSTORM_SWAPS_H
#define SANDSTORM_SWAPS_H

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

/* Before anything is swapped: what the workers serve is image 0. NULL without memory. */
struct swaps *swaps_create(const struct swaps_workers *workers, const struct swaps_mapping *first);
/* Workers must not run any more. Mappings stay. */
void swaps_destroy(struct swaps *swaps);

/* Hands an image to all workers. number: the caller's own, never the same again. What the image points to must outlive it, up to
 * swaps_give_back, which unmaps mappings (SWAPS_MAPPINGS, or NULL). Returns 0, -ENOMEM, -ENOSPC: too many are still needed, or
 * -EBUSY: the one before is not taken up by all yet. */
int swaps_begin(struct swaps *swaps, uint32_t number, const struct image *image,
                const struct swaps_mapping *mappings);
/* GENERATION_NEW until all have taken it up, GENERATION_SERVED up to when none needs it any more, then GENERATION_GONE;
 * GENERATION_REFUSED for one that does not fit. */
uint32_t swaps_state(const struct swaps *swaps, uint32_t number);
/* While older ones are needed, now and then: workers look whether they are as they go round, and one that sleeps does not. */
void swaps_poke(const struct swaps *swaps);
/* Connections of all workers that need another than the newest. */
uint32_t swaps_need_older(const struct swaps *swaps);
/* Connections that still need this one are to be reset. */
void swaps_end(struct swaps *swaps, uint32_t number);
/* Of one that is gone or refused: its memory. */
void swaps_give_back(struct swaps *swaps, uint32_t number);

#endif
