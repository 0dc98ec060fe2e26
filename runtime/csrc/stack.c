#include "stack.h"

#include "image/date.h"
#include "libtcpip/tcp.h"
#include "stack_internal.h"
#include "wire/checksum.h"

#define TIME_WAIT_SETS_MAX 16384

/* Hands out parts of one block, or only counts when there is none: the same code sizes and lays out. */
struct layout {
    uint8_t *base; /* NULL: count */
    size_t used;
};

static void *take(struct layout *layout, size_t bytes)
{
    layout->used = (layout->used + 63) & ~(size_t)63;
    void *at = layout->base != NULL ? layout->base + layout->used : NULL;
    layout->used += bytes;
    return at;
}

static uint32_t power_of_two_at_least(uint32_t value)
{
    uint32_t power = 1;
    while (power < value)
        power *= 2;
    return power;
}

/* Connections that may have a large scoreboard at once; the others make do with the few runs of their TCB. */
static uint32_t boards_of(const struct stack_config *config)
{
    uint32_t share = config->max_connections / 64;
    return share > 16 ? share : 16;
}

static struct stack *lay_out(struct layout *layout, const struct stack_config *config, const struct image *image,
                             const struct nmio_region *region, void **arena_memory)
{
    uint32_t entries = 2 * power_of_two_at_least(config->max_connections);
    uint32_t sets = power_of_two_at_least(config->max_connections / TIME_WAIT_WAYS + 1);
    sets = sets < TIME_WAIT_SETS_MAX ? sets : TIME_WAIT_SETS_MAX;
    struct stack *stack = take(layout, sizeof(*stack));
    struct stack parts;
    parts.tcbs = take(layout, config->max_connections * sizeof(struct tcb));
    parts.tcb_free = take(layout, config->max_connections * sizeof(uint32_t));
    parts.table = take(layout, entries * sizeof(struct tcb_entry));
    parts.time_waits = take(layout, (size_t)sets * TIME_WAIT_WAYS * sizeof(struct time_wait));
    parts.requests = take(layout, (size_t)config->max_half_requests * TCB_REQUEST_BYTES);
    parts.request_buffers = take(layout, config->max_half_requests * sizeof(struct request_buffer));
    parts.fragments = take(layout, (config->reassemble ? FRAGMENT_PACKETS : 0) * sizeof(struct fragment_packet));
    parts.paths = take(layout, PMTU_PATHS * sizeof(struct pmtu_path));
    parts.boards = take(layout, (size_t)boards_of(config) * SCOREBOARD_RUNS * sizeof(struct tcp_run));
    parts.board_free = take(layout, boards_of(config) * sizeof(uint32_t));
    uint32_t rings = span_rings(config->max_connections);
    parts.span_rings = take(layout, (size_t)rings * SPAN_RING_SPANS * sizeof(struct tcp_span));
    parts.span_ring_free = take(layout, rings * sizeof(uint32_t));
    uint32_t buffers = composed_buffers(config->max_connections);
    parts.composed = take(layout, (size_t)buffers * COMPOSED_BYTES);
    parts.composed_free = take(layout, buffers * sizeof(uint32_t));
    parts.composed_uses = take(layout, buffers * sizeof(struct composed_use));
    parts.response_uses = take(layout, image->header->response_count * sizeof(uint32_t));
    *arena_memory = take(layout, arena_memory_bytes(image, region));
    if (stack == NULL)
        return NULL;
    stack->tcbs = parts.tcbs;
    stack->tcb_free = parts.tcb_free;
    stack->table = parts.table;
    stack->time_waits = parts.time_waits;
    stack->requests = parts.requests;
    stack->request_buffers = parts.request_buffers;
    stack->fragments = parts.fragments;
    stack->paths = parts.paths;
    stack->boards = parts.boards;
    stack->board_free = parts.board_free;
    stack->span_rings = parts.span_rings;
    stack->span_ring_free = parts.span_ring_free;
    stack->composed = parts.composed;
    stack->composed_free = parts.composed_free;
    stack->composed_uses = parts.composed_uses;
    stack->response_uses = parts.response_uses;
    stack->table_mask = entries - 1;
    stack->time_wait_mask = sets - 1;
    return stack;
}

static bool in_bounds(const struct stack_config *c, const struct image *image, const struct nmio_region *region)
{
    bool addresses = c->address_count > 0 && c->address_count <= STACK_ADDRESSES_MAX;
    bool limits = c->max_connections > 0 && c->max_connections <= 1u << 24 && c->max_half_requests > 0 &&
                  c->max_half_requests <= c->max_connections && c->gather_max >= 1 &&
                  c->gather_max <= NMIO_GATHER_MAX && !(c->tx_memcpy && c->gather_max > 1) &&
                  c->mtu_bytes >= STACK_MTU_BYTES_MIN && c->mtu_bytes <= STACK_MTU_BYTES_MAX &&
                  c->keep_alive_ms > 0 && c->request_ms > 0 && c->send_ms > 0 && c->congestion < CONGESTION_COUNT &&
                  c->claim <= STACK_CLAIM_WATCH;
    const struct ssi_header *h = image->header;
    bool slots = region->chunk_bytes == h->slot_bytes && region->buffer_count > 0 && image->slots != NULL &&
                 (region->resident_count == 0 || region->resident_count == h->slot_count) &&
                 region->slot_count >= region->resident_count && region->slot_count <= region->chunk_count &&
                 (region->slot_chunks != NULL || region->first_slot <= region->chunk_count - region->slot_count);
    return c->app != NULL && addresses && limits && slots;
}

size_t stack_memory_bytes(const struct stack_config *config, const struct image *image,
                          const struct nmio_region *region)
{
    struct layout layout = {NULL, 0};
    void *arena_memory;
    if (!in_bounds(config, image, region))
        return 0;
    lay_out(&layout, config, image, region, &arena_memory);
    return layout.used;
}

static void fill_pools(struct stack *stack)
{
    const struct stack_config *config = &stack->config;
    for (uint32_t i = 0; i < config->max_connections; i++)
        stack->tcb_free[i] = config->max_connections - 1 - i;
    request_init(stack);
    composed_init(stack);
    span_rings_init(stack);
    stack->board_free_count = boards_of(config);
    for (uint32_t i = 0; i < stack->board_free_count; i++)
        stack->board_free[i] = i;
    for (uint32_t i = 0; i <= stack->table_mask; i++)
        stack->table[i].index = TCB_NONE;
    stack->tcb_free_count = config->max_connections;
    stack->ready_first = stack->ready_last = TCB_NONE;
}

struct stack *stack_init(void *memory, size_t memory_bytes, const struct stack_config *config,
                         const struct image *image, struct nmio_region *region, struct nmio_tx *tx)
{
    struct layout layout = {memory, 0};
    void *arena_memory;
    size_t needed = stack_memory_bytes(config, image, region);
    if (needed == 0 || memory_bytes < needed)
        return NULL;
    struct stack *stack = lay_out(&layout, config, image, region, &arena_memory);
    stack->config = *config;
    stack->image = image;
    stack->region = region;
    stack->tx = tx;
    stack->date_s = -1;
    stack->idle_check_us =
        (config->keep_alive_ms < config->send_ms ? config->keep_alive_ms : config->send_ms) * 1000ull;
    stack_rotate_secret(stack, config->secret);
    stack_rotate_secret(stack, config->secret);
    fill_pools(stack);
    arena_init(&stack->arena, arena_memory, image, region);
    timer_init(&stack->wheel, 0);
    claim_init(stack);
    ip_init(stack);
    return stack;
}

void stack_clock(struct stack *stack, uint64_t now_ns, int64_t wall_s)
{
    stack->now_us = now_ns / 1000;
    stack->wall_s = wall_s;
    if (stack->date_s != wall_s) {
        stack->date_s = wall_s;
        date_format(wall_s, stack->date_text);
        stack->date_sum = checksum_sum(stack->date_text, SSI_DATE_BYTES);
    }
}

#define INPUT_FRAMES 64 /* taken together: a bit for each */
/* With more connections than this their TCBs don't stay in the caches, and are fetched ahead. */
#define PREFETCH_CONNECTIONS 512
#define TCB_AHEAD_STEP 2 /* of look_ahead */

/* The frames of a batch that are to be taken: all but ACKs that another one stands for. */
static uint32_t choose(struct stack *stack, struct nmio_rx *batch, uint32_t count, uint8_t *chosen)
{
    uint64_t overtaken = tcp_acks_overtaken(stack, batch, count);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++) {
        chosen[kept] = (uint8_t)i;
        kept += (overtaken >> i & 1) == 0;
    }
    COUNT_BY(stack, eth_rx_frames, count - kept);
    COUNT_BY(stack, tcp_rx_segments, count - kept);
    COUNT_BY(stack, tcp_rx_acks_joined, count - kept);
    return kept;
}

/* One step of what is fetched ahead for a segment: first the table's entry, when that is there the TCB that it points to, and
 * all the time what the application will look at. */
static void look_ahead(const struct stack *stack, const struct nmio_rx *rx, struct stack_ahead *ahead, uint32_t step,
                       uint32_t app_steps)
{
    if (step == 0)
        *ahead = tcp_prefetch_entry(stack, rx);
    else if (step == TCB_AHEAD_STEP)
        tcp_prefetch_tcb(stack, ahead->flow_hash);
    if (ahead->data_bytes > 0 && step < app_steps && !stack->config.app->look_ahead(stack, ahead, step))
        ahead->data_bytes = 0;
}

/* With each frame that is taken those behind it go on by a step. */
static void input_ahead(struct stack *stack, struct nmio_rx *batch, const uint8_t *chosen, uint32_t count)
{
    struct stack_ahead ahead[STACK_AHEAD_STEPS_MAX] = {{0}}; /* a ring: no more are under way */
    const struct stack_app *app = stack->config.app;
    uint32_t app_steps = stack->image->header->route_count >= app->ahead_routes_min ? app->ahead_steps : 0;
    uint32_t steps = app_steps > TCB_AHEAD_STEP + 1 ? app_steps : TCB_AHEAD_STEP + 1;
    for (uint32_t at = 0; at < count + steps; at++) {
        uint32_t first = at < steps ? 0 : at - steps + 1; /* that has steps to go */
        for (uint32_t i = first; i <= at && i < count; i++)
            look_ahead(stack, &batch[chosen[i]], &ahead[i % STACK_AHEAD_STEPS_MAX], at - i, app_steps);
        if (at >= steps)
            eth_input(stack, &batch[chosen[at - steps]]);
    }
}

/* Up to INPUT_FRAMES of them. */
static void batch_input(struct stack *stack, struct nmio_rx *batch, uint32_t count)
{
    uint8_t chosen[INPUT_FRAMES] = {0};
    count = choose(stack, batch, count, chosen);
    if (stack_connections(stack) > PREFETCH_CONNECTIONS) {
        input_ahead(stack, batch, chosen, count);
        return;
    }
    for (uint32_t i = 0; i < count; i++)
        eth_input(stack, &batch[chosen[i]]);
}

void stack_input(struct stack *stack, struct nmio_rx *batch, uint32_t count)
{
    for (uint32_t first = 0; first < count; first += INPUT_FRAMES)
        batch_input(stack, batch + first, count - first < INPUT_FRAMES ? count - first : INPUT_FRAMES);
}

/* The FIFO of connections with something to send, until it is empty or tx is full. Deficit round robin (Shreedhar and Varghese,
 * SIGCOMM 1995): whose turn is over goes to the end, and where tx is full the first goes on with what is left of its turn. */
static void run_ready(struct stack *stack)
{
    while (stack->ready_first != TCB_NONE) {
        struct tcb *tcb = &stack->tcbs[stack->ready_first];
        enum tcpip_sent sent = tcpip_output(stack, tcb);
        if (sent == TCPIP_NO_SPACE)
            return;
        stack->ready_first = tcb->ready_next;
        if (stack->ready_first == TCB_NONE)
            stack->ready_last = TCB_NONE;
        tcb->ready = false;
        if (sent == TCPIP_TURN_OVER)
            tcpip_ready(stack, tcb);
    }
}

void stack_output(struct stack *stack)
{
    if (stack->now_us >= stack->claim_next_us)
        claim_run(stack);
    timer_run(stack);
    run_ready(stack);
}

uint64_t stack_deadline_ns(const struct stack *stack)
{
    uint64_t us = timer_next_us(&stack->wheel);
    us = stack->claim_next_us < us ? stack->claim_next_us : us;
    return us == UINT64_MAX ? UINT64_MAX : us * 1000;
}

bool stack_waits_for_space(const struct stack *stack)
{
    return stack->ready_first != TCB_NONE;
}

void stack_rotate_secret(struct stack *stack, const uint8_t *secret)
{
    memcpy(stack->secrets[1], stack->secrets[0], STACK_SECRET_BYTES);
    memcpy(stack->secrets[0], secret, STACK_SECRET_BYTES);
    stack->cookie_salts[1] = stack->cookie_salts[0];
    stack->cookie_salts[0] = cookie_salt(secret);
}

void stack_drain(struct stack *stack)
{
    stack->draining = true;
    for (uint32_t i = 0; i < stack->config.max_connections; i++) {
        struct tcb *tcb = &stack->tcbs[i];
        if (tcb->state != 0 && !tcb->fin_queued && !stack->config.app->is_writing(tcb)) {
            tcpip_finish(stack, tcb);
            request_release(stack, tcb);
            tcb->progress_us = stack->now_us; /* the peer has its time to close */
        }
    }
}

uint32_t stack_connections(const struct stack *stack)
{
    return stack->config.max_connections - stack->tcb_free_count;
}

bool stack_connection_at(const struct stack *stack, uint32_t index, struct stack_connection *connection)
{
    const struct tcb *tcb = &stack->tcbs[index];
    if (index >= stack->config.max_connections || tcb->state == 0)
        return false;
    *connection = (struct stack_connection){.state = tcb->state,
                                            .peer_port = be16(tcb->flow.peer_port),
                                            .mss_bytes = tcb->mss,
                                            .snd_una = tcb->snd_una,
                                            .snd_nxt = tcb->snd_nxt,
                                            .snd_end = tcb->snd_end,
                                            .snd_wnd = tcb->snd_wnd,
                                            .cwnd = tcb->cwnd,
                                            .ssthresh = tcb->ssthresh,
                                            .pipe = recovery_pipe(tcb),
                                            .srtt_us = tcb->srtt_us,
                                            .rto_us = tcb->rto_us,
                                            .family = tcb->flow.family,
                                            .in_recovery = tcb->in_recovery};
    memcpy(connection->peer, tcb->flow.peer, sizeof(connection->peer));
    return true;
}

uint32_t stack_response_uses(const struct stack *stack, uint32_t response)
{
    return response < stack->image->header->response_count ? stack->response_uses[response] : 0;
}

uint32_t stack_frame_high_water(const struct stack *stack, uint32_t frame)
{
    return frame < stack->image->header->frame_count ? stack->arena.frames[frame].high_water : 0;
}

static const char *const counter_names[COUNTER_COUNT] = {
#define COUNTER_NAME(name) #name,
    COUNTERS(COUNTER_NAME)
#undef COUNTER_NAME
};

/* Those that the arena keeps follow the stack's own. */
static const char *const arena_names[] = {"arena_copies_made", "arena_copies_reclaimed", "arena_misses",
                                          "arena_evictions", "arena_stalls"};
#define ARENA_COUNTERS (sizeof(arena_names) / sizeof(arena_names[0]))

uint32_t stack_counter_count(void)
{
    return COUNTER_COUNT + ARENA_COUNTERS;
}

const char *stack_counter_name(uint32_t index)
{
    if (index < COUNTER_COUNT)
        return counter_names[index];
    return index < stack_counter_count() ? arena_names[index - COUNTER_COUNT] : NULL;
}

uint64_t stack_counter(const struct stack *stack, uint32_t index)
{
    const struct arena *a = &stack->arena;
    const uint64_t arena[ARENA_COUNTERS] = {a->copies_made, a->copies_reclaimed, a->misses, a->evictions, a->stalls};
    if (index < COUNTER_COUNT)
        return stack->counters[index];
    return index < stack_counter_count() ? arena[index - COUNTER_COUNT] : 0;
}
