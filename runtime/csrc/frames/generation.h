/* What is served is swapped for something else while it is served: a *generation* is an image with the tables that belong to it.
 * New requests are answered from the newest; older ones stay as long as a byte of theirs may have to be sent again. A generation
 * lies in one piece of memory, which whoever swaps lays out and the one who serves takes over, and says of it when it is
 * done with it. */
#ifndef SANDSTORM_GENERATION_H
#define SANDSTORM_GENERATION_H

#include <stdbool.h>
#include <stdint.h>

#include "image/image.h"

#define GENERATIONS_MAX 16 /* at once; a power of two */
#define GENERATION_PLACE_BITS 4
_Static_assert(GENERATIONS_MAX == 1 << GENERATION_PLACE_BITS, "a number's low bits are its place");

/* Where a frame is in the arena. */
struct arena_frame {
    uint32_t current; /* the slot to use next; SSI_NONE: it has none */
    uint16_t held; /* slots */
    uint16_t high_water; /* most slots held at once */
};

struct generation {
    struct image image;
    struct arena_frame *frames; /* [frame_count], or NULL where there is no arena */
    void *app; /* the application's tables */
    uint32_t
        number; /* never the same again (for 2^27 of them), and so says of a slot whether what it holds is still served */
    uint32_t hand; /* of an older one: no connection before this one needs it */
    uint32_t state; /* GENERATION_*; written by the one who serves, read by whoever swaps */
    uint32_t ended; /* and the other way round: connections that need it are to be reset */
};

struct generations {
    struct generation *of[GENERATIONS_MAX]; /* by place; NULL: none */
    uint32_t newest; /* place */
    uint32_t serial; /* how many there have been */
    uint32_t older; /* how many are still needed */
    bool moves; /* one of them may be done with soon: it is worth while to look again */
};

static inline uint32_t generation_place(uint32_t number)
{
    return number & (GENERATIONS_MAX - 1);
}

static inline struct generation *generation_newest(const struct generations *generations)
{
    return generations->of[generations->newest];
}

/* The generation of a number, or NULL: it is served no more. */
static inline struct generation *generation_find(const struct generations *generations, uint32_t number)
{
    struct generation *generation = generations->of[generation_place(number)];
    return generation != NULL && generation->number == number ? generation : NULL;
}

/* Makes it the newest. False: there is no place for it. */
static inline bool generation_add(struct generations *generations, struct generation *generation)
{
    for (uint32_t place = 0; place < GENERATIONS_MAX; place++) {
        if (generations->of[place] != NULL)
            continue;
        generation->number = (++generations->serial << GENERATION_PLACE_BITS | place) & INT32_MAX;
        generations->of[place] = generation;
        generations->newest = place;
        return true;
    }
    return false;
}

#endif
