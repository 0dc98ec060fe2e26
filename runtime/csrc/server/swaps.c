#define _GNU_SOURCE
#include "swaps.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "frames/generation.h"
#include "libtcpip/swap.h"
#include "loop.h"
#include "sockets/sockets.h"

_Static_assert(SWAPS_IMAGES_MAX == GENERATIONS_MAX, "what is said of it is so");
#define LINE_BYTES 128 /* no two workers write to the same */
#define TAKEN_UP_MS 2 /* between two looks whether workers have taken an image up */
#define NEEDED_MS 100 /* and whether they still need one */

/* An image, with a generation for each worker: in one mapping, or, of the first, where each worker has it. */
struct served {
    bool used;
    uint32_t number;
    struct generation **of; /* [count]; begins memory */
    size_t memory_bytes;
    struct swaps_mapping mappings[SWAPS_MAPPINGS];
};

struct swaps {
    struct swaps_workers workers;
    struct served served[GENERATIONS_MAX];
    uint32_t newest; /* its place there */
    uint32_t before; /* that of the one before it, which is served on if the newest is refused */
    bool is_new; /* it has not been told yet whether the newest is served */
};

static size_t lines(size_t bytes)
{
    return (bytes + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES;
}

/* Zeroed; malloc would need calls that a confined process has not. */
static struct served *take_place(struct swaps *swaps, uint32_t number, size_t bytes)
{
    struct served *served = swaps->served;
    while (served < swaps->served + GENERATIONS_MAX && served->used)
        served++;
    if (served == swaps->served + GENERATIONS_MAX) {
        errno = ENOSPC;
        return NULL;
    }
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    *served = (struct served){.used = true, .number = number, .of = memory, .memory_bytes = bytes};
    return served;
}

static struct served *find(const struct swaps *swaps, uint32_t number)
{
    for (size_t i = 0; i < GENERATIONS_MAX; i++)
        if (swaps->served[i].used && swaps->served[i].number == number)
            return (struct served *)(uintptr_t)&swaps->served[i];
    return NULL;
}

static void set_mappings(struct served *served, const struct swaps_mapping *mappings)
{
    if (mappings != NULL)
        memcpy(served->mappings, mappings, sizeof(served->mappings));
}

struct swaps *swaps_create(const struct swaps_workers *workers, const struct swaps_mapping *first)
{
    struct swaps *swaps = mmap(NULL, sizeof(*swaps), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (swaps == MAP_FAILED)
        return NULL;
    swaps->workers = *workers;
    struct served *served = take_place(swaps, 0, lines(workers->count * sizeof(struct generation *)));
    if (served == NULL) {
        munmap(swaps, sizeof(*swaps));
        return NULL;
    }
    set_mappings(served, first);
    for (uint32_t i = 0; i < workers->count; i++)
        served->of[i] = workers->sockets != NULL ? sockets_generation(workers->sockets[i])
                                                 : stack_generation(worker_stack(workers->workers[i]));
    return swaps;
}

void swaps_destroy(struct swaps *swaps)
{
    for (size_t i = 0; i < GENERATIONS_MAX; i++)
        if (swaps->served[i].used)
            munmap(swaps->served[i].of, swaps->served[i].memory_bytes);
    munmap(swaps, sizeof(*swaps));
}

static void hand_over(const struct swaps *swaps, uint32_t worker, struct generation *generation)
{
    /* Neither says no: all that was handed over before is taken up. */
    if (swaps->workers.sockets != NULL)
        sockets_swap(swaps->workers.sockets[worker], generation);
    else
        worker_swap(swaps->workers.workers[worker], generation);
}

int swaps_begin(struct swaps *swaps, uint32_t number, const struct image *image, const struct swaps_mapping *mappings)
{
    const struct swaps_workers *workers = &swaps->workers;
    bool has_arena = workers->sockets == NULL;
    size_t places_bytes = lines(workers->count * sizeof(struct generation *));
    size_t each_bytes = lines(generation_bytes(workers->app, image, has_arena));
    if (!swaps_takes(swaps))
        return -EBUSY;
    struct served *served = take_place(swaps, number, places_bytes + workers->count * each_bytes);
    if (served == NULL)
        return -errno;
    set_mappings(served, mappings);
    uint8_t *memory = (uint8_t *)served->of + places_bytes;
    for (uint32_t i = 0; i < workers->count; i++, memory += each_bytes)
        served->of[i] = generation_init(memory, workers->app, image, has_arena);
    for (uint32_t i = 0; i < workers->count; i++)
        hand_over(swaps, i, served->of[i]);
    swaps->before = swaps->newest;
    swaps->newest = (uint32_t)(served - swaps->served);
    swaps->is_new = true;
    return 0;
}

bool swaps_takes(const struct swaps *swaps)
{
    return !swaps->is_new;
}

/* GENERATION_NEW until all have taken it up, GENERATION_SERVED up to when none needs it any more, then GENERATION_GONE;
 * GENERATION_REFUSED for one that does not fit. */
static uint32_t state_of(const struct swaps *swaps, const struct served *served)
{
    uint32_t in_state[] = {
        [GENERATION_NEW] = 0, [GENERATION_SERVED] = 0, [GENERATION_GONE] = 0, [GENERATION_REFUSED] = 0};
    for (uint32_t i = 0; i < swaps->workers.count; i++)
        in_state[generation_state(served->of[i])]++;
    if (in_state[GENERATION_NEW] > 0)
        return GENERATION_NEW; /* a worker may be about to take it up */
    if (in_state[GENERATION_REFUSED] > 0)
        return GENERATION_REFUSED;
    return in_state[GENERATION_SERVED] > 0 ? GENERATION_SERVED : GENERATION_GONE;
}

/* Connections of all workers that need another than the newest. */
static uint32_t need_older(const struct swaps *swaps)
{
    const struct swaps_workers *workers = &swaps->workers;
    uint32_t count = 0;
    for (uint32_t i = 0; i < workers->count; i++)
        count += workers->sockets != NULL ? sockets_need_older(workers->sockets[i])
                                          : stack_need_older(worker_stack(workers->workers[i]));
    return count;
}

/* Workers look whether older ones are needed as they go round, and one that sleeps does not. */
static void poke(const struct swaps *swaps)
{
    const struct swaps_workers *workers = &swaps->workers;
    for (uint32_t i = 0; i < workers->count; i++)
        if (workers->sockets != NULL)
            sockets_poke(workers->sockets[i]);
        else
            worker_poke(workers->workers[i]);
}

static void give_back(struct served *served)
{
    for (size_t i = 0; i < SWAPS_MAPPINGS; i++)
        if (served->mappings[i].address != NULL)
            munmap(served->mappings[i].address, served->mappings[i].bytes);
    munmap(served->of, served->memory_bytes);
    served->used = false;
}

/* Of the newest, which is served or refused. */
static void tell_newest(struct swaps *swaps, uint32_t state, struct swaps_news *news)
{
    struct served *newest = &swaps->served[swaps->newest];
    swaps->is_new = false;
    if (state != GENERATION_REFUSED) {
        *news = (struct swaps_news){SWAPS_SERVED, newest->number, (int32_t)need_older(swaps)};
        return;
    }
    *news = (struct swaps_news){SWAPS_REFUSED, newest->number, -EINVAL};
    give_back(newest);
    swaps->newest = swaps->before;
}

static bool has_older(const struct swaps *swaps)
{
    uint32_t used = 0;
    for (size_t i = 0; i < GENERATIONS_MAX; i++)
        used += swaps->served[i].used;
    return used > 1;
}

bool swaps_news(struct swaps *swaps, struct swaps_news *news)
{
    uint32_t state = state_of(swaps, &swaps->served[swaps->newest]);
    if (swaps->is_new && state == GENERATION_NEW)
        return false;
    if (swaps->is_new) {
        tell_newest(swaps, state, news);
        return true;
    }
    for (uint32_t i = 0; i < GENERATIONS_MAX; i++) {
        struct served *served = &swaps->served[i];
        if (!served->used || i == swaps->newest || state_of(swaps, served) != GENERATION_GONE)
            continue;
        *news = (struct swaps_news){SWAPS_GONE, served->number, 0};
        give_back(served);
        return true;
    }
    if (has_older(swaps))
        poke(swaps);
    return false;
}

int swaps_look_ms(const struct swaps *swaps)
{
    return swaps->is_new ? TAKEN_UP_MS : has_older(swaps) ? NEEDED_MS : -1;
}

void swaps_end(struct swaps *swaps, uint32_t number)
{
    const struct served *served = find(swaps, number);
    for (uint32_t i = 0; served != NULL && i < swaps->workers.count; i++)
        generation_end(served->of[i]);
    poke(swaps);
}
