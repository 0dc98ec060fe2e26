#include "swap.h"

#include "connection.h"

#define RETIRE_LOOKED_AT 1024 /* connections in a round, so that no round takes long */

const char *generation_error(const struct image *now, const struct image *next)
{
    const struct ssi_header *a = now->header, *b = next->header;
    if (a->mtu_bytes != b->mtu_bytes)
        return "it is built for another MTU (`mtu` of the manifest)";
    if (a->families != b->families)
        return "it is built for other address families (`families` of the manifest)";
    if (a->slot_bytes != b->slot_bytes || a->segment_bytes != b->segment_bytes)
        return "its slots or segments have another size (`slot_bytes` of the manifest)";
    return next->slots == NULL ? "it has no slots" : NULL;
}

/* The place of each table. NULL: they are only counted. */
static struct generation *lay_out(struct layout *layout, const struct tcpip_app *app, const struct image *image,
                                  bool has_arena)
{
    struct generation *generation = layout_take(layout, sizeof(*generation));
    size_t frames_bytes = has_arena ? (size_t)image->header->frame_count * sizeof(*generation->frames) : 0;
    struct arena_frame *frames = layout_take(layout, frames_bytes);
    void *tables = app->lay_out_tables != NULL ? app->lay_out_tables(layout, image) : NULL;
    if (generation != NULL)
        *generation = (struct generation){.image = *image, .frames = frames, .app = tables};
    return generation;
}

size_t generation_bytes(const struct tcpip_app *app, const struct image *image, bool has_arena)
{
    struct layout layout = {NULL, 0};
    lay_out(&layout, app, image, has_arena);
    return layout.used_bytes;
}

struct generation *generation_init(void *memory, const struct tcpip_app *app, const struct image *image,
                                   bool has_arena)
{
    struct layout layout = {memory, 0};
    struct generation *generation = lay_out(&layout, app, image, has_arena);
    if (has_arena)
        arena_frames_init(generation);
    return generation;
}

void generation_lay_out_first(struct tcpip *tcpip, struct layout *layout, const struct tcpip_app *app,
                              const struct image *image, bool has_arena)
{
    tcpip->generations.of[0] = lay_out(layout, app, image, has_arena);
}

void generation_init_first(struct tcpip *tcpip)
{
    struct generation *first = tcpip->generations.of[0];
    tcpip->generations = (struct generations){.older = 0};
    generation_add(&tcpip->generations, first);
    tcpip->segment_bytes = first->image.header->segment_bytes;
    first->state = GENERATION_SERVED;
}

/* Whoever reads the state sees all that was done before it was set. */
static void state_set(struct generation *generation, uint32_t state)
{
    __atomic_store_n(&generation->state, state, __ATOMIC_RELEASE);
}

uint32_t generation_state(const struct generation *generation)
{
    return __atomic_load_n(&generation->state, __ATOMIC_ACQUIRE);
}

void generation_end(struct generation *generation)
{
    __atomic_store_n(&generation->ended, 1, __ATOMIC_RELEASE);
}

void tcpip_swap(struct tcpip *tcpip, struct generation *generation)
{
    struct generations *generations = &tcpip->generations;
    struct generation *before = generation_newest(generations);
    bool fits = generation_error(&before->image, &generation->image) == NULL && tcpip->app->swapped != NULL;
    if (!fits || !generation_add(generations, generation)) {
        state_set(generation, GENERATION_REFUSED);
        return;
    }
    before->hand = 0;
    generations->older++;
    generations->moves = true;
    if (tcpip->region != NULL)
        arena_swapped(&tcpip->arena);
    tcpip->app->swapped(tcpip->app_state);
    state_set(generation, GENERATION_SERVED);
}

static uint32_t place_bit(uint32_t place)
{
    return 1u << (place & (GENERATIONS_MAX - 1));
}

/* The places of generations of which a connection has something that may have to be sent, or is in the middle of an answer from
 * there; a bit for each. */
static uint32_t needed(const struct tcpip *tcpip, const struct tcb *tcb)
{
    uint32_t places = 0;
    for (uint32_t i = 0; i < tcb->slice_count; i++)
        if (!is_composed(tcb_slice(tcb, i)))
            places |= place_bit(tcb_slice(tcb, i)->generation);
    if (has_pending_response(tcpip, tcb) && tcpip->app->pending_generation != NULL)
        places |= place_bit(tcpip->app->pending_generation(tcb));
    return places;
}

uint32_t tcpip_need_older(const struct tcpip *tcpip)
{
    uint32_t count = 0, newest = place_bit(tcpip->generations.newest);
    for (uint32_t i = 0; i < tcpip->connections.touched && tcpip->generations.older > 0; i++)
        if (tcpip->connections.tcbs[i].state != 0)
            count += (needed(tcpip, &tcpip->connections.tcbs[i]) & ~newest) != 0;
    return count;
}

/* Is a part of what tx still has to send read from where the image is mapped? */
static bool is_in_tx(const struct nmio_tx *tx, const struct image *image)
{
    uintptr_t start = (uintptr_t)image->slots;
    uintptr_t bytes = (uintptr_t)image->header->slot_count * image->header->slot_bytes;
    for (uint32_t i = 0; tx != NULL && i < tx->count; i++)
        for (uint32_t p = 0; p < tx->desc[i].piece_count; p++)
            if ((uintptr_t)tx->piece[tx->desc[i].first_piece + p].data - start < bytes)
                return true;
    return false;
}

/* A connection that the hand has passed never needs the generation again: what begins takes the newest. True: it has passed all.
 * *moves: it would go on at once. */
static bool hand_moves(struct tcpip *tcpip, struct generation *generation, bool *moves)
{
    const struct tcb_table *connections = &tcpip->connections;
    bool ended = __atomic_load_n(&generation->ended, __ATOMIC_ACQUIRE) != 0;
    if (tcb_table_count(connections) == 0)
        generation->hand = connections->touched;
    for (uint32_t i = 0; i < RETIRE_LOOKED_AT && generation->hand < connections->touched; i++, generation->hand++) {
        struct tcb *tcb = &connections->tcbs[generation->hand];
        if (tcb->state == 0 || (needed(tcpip, tcb) & place_bit(generation->number)) == 0)
            continue;
        if (!ended || (tcpip->tx != NULL && tcpip->tx->space == 0))
            return false;
        COUNT(tcpip, tcp_timeout_swap);
        connection_abort(tcpip, tcb);
    }
    *moves |= generation->hand < connections->touched;
    return generation->hand == connections->touched;
}

void tcpip_retire(struct tcpip *tcpip)
{
    struct generations *generations = &tcpip->generations;
    bool moves = false;
    for (uint32_t place = 0; place < GENERATIONS_MAX && generations->older > 0; place++) {
        struct generation *generation = generations->of[place];
        if (generation == NULL || place == generations->newest)
            continue;
        if (!hand_moves(tcpip, generation, &moves) || is_in_tx(tcpip->tx, &generation->image))
            continue;
        generations->of[place] = NULL;
        generations->older--;
        state_set(generation, GENERATION_GONE);
    }
    generations->moves = moves;
}
