#include "stack.h"

#include "libeth/acd.h"
#include "libeth/mld.h"
#include "libeth/neighbour.h"
#include "libtcpip/ack_coalesce.h"
#include "libtcpip/recovery.h"
#include "libtcpip/swap.h"
#include "libtcpip/tcb_prefetch.h"
#include "stack_state.h"
#include "wake.h"

static struct tcpip_parts parts_of(const struct stack_config *config, const struct image *image,
                                   struct nmio_region *region)
{
    return (struct tcpip_parts){.image = image, .region = region, .app = config->app, .app_data = config->app_data};
}

/* scratch: where tables are noted while they are only counted. */
static struct stack *lay_out(struct layout *layout, const struct stack_config *config,
                             const struct tcpip_parts *parts, struct stack *scratch)
{
    struct stack *stack = layout_take(layout, sizeof(*stack));
    tcpip_lay_out(stack != NULL ? &stack->tcpip : &scratch->tcpip, layout, &config->tcpip, parts);
    return stack;
}

/* What of the region is not as the image's slots need it, or NULL. */
static const char *region_error(const struct nmio_region *region, const struct image *image)
{
    const struct ssi_header *header = image->header;
    if (region->chunk_bytes != header->slot_bytes)
        return "the port's chunks are not as long as the image's slots";
    if (region->buffer_count == 0)
        return "the port has no buffers";
    if (image->slots == NULL)
        return "the image has no slots";
    if (region->resident_count != 0 && region->resident_count != header->slot_count)
        return "the port has some of the image's slots, but not all";
    if (region->slot_count < region->resident_count)
        return "the port has fewer slots than the image";
    if (region->slot_count > region->chunk_count)
        return "the port has more slots than chunks";
    if (region->slot_chunks == NULL && region->first_slot > region->chunk_count - region->slot_count)
        return "the port's slots are not among its chunks";
    return NULL;
}

static const char *eth_config_error(const struct eth_config *eth)
{
    if (eth->address_count == 0)
        return "there is no address to serve";
    if (eth->address_count > ETH_ADDRESSES_MAX)
        return "there are more addresses than 32";
    return eth->acd <= ETH_ACD_FOLLOW ? NULL : "how addresses are come by is not known";
}

const char *stack_config_error(const struct stack_config *config, const struct image *image,
                               const struct nmio_region *region)
{
    const char *error = config->app == NULL ? "there is no application" : eth_config_error(&config->eth);
    if (error == NULL)
        error = tcpip_config_error(&config->tcpip);
    return error == NULL ? region_error(region, image) : error;
}

size_t stack_memory_bytes(const struct stack_config *config, const struct image *image,
                          const struct nmio_region *region)
{
    struct layout layout = {NULL, 0};
    struct stack scratch;
    if (stack_config_error(config, image, region) != NULL)
        return 0;
    struct tcpip_parts parts = parts_of(config, image, (struct nmio_region *)(uintptr_t)region);
    lay_out(&layout, config, &parts, &scratch);
    return layout.used_bytes;
}

struct stack *stack_init(void *memory, size_t memory_bytes, const struct stack_config *config,
                         const struct image *image, struct nmio_region *region, struct nmio_tx *tx)
{
    struct layout layout = {memory, 0};
    size_t needed = stack_memory_bytes(config, image, region);
    if (needed == 0 || memory_bytes < needed)
        return NULL;
    struct tcpip_parts parts = parts_of(config, image, region);
    struct stack *stack = lay_out(&layout, config, &parts, NULL);
    parts.tx = tx;
    parts.eth = &stack->eth;
    eth_init(&stack->eth, &config->eth, config->tcpip.secret, region, tx);
    tcpip_init(&stack->tcpip, &config->tcpip, &parts);
    acd_init(&stack->eth);
    return stack;
}

void stack_clock(struct stack *stack, uint64_t now_ns, int64_t wall_s)
{
    stack->eth.now_us = now_ns / 1000;
    tcpip_clock(&stack->tcpip, now_ns / 1000, wall_s);
}

#define INPUT_FRAMES 64 /* taken together: a bit for each */
/* With more connections than this their TCBs don't stay in the caches, and are fetched ahead. */
#define PREFETCH_CONNECTIONS 512
#define TCB_PREFETCH_STEP 2 /* of prefetch */

/* A frame through all layers: each says whose it is, and the next one takes it. */
static inline void frame_input(struct stack *stack, struct nmio_rx *frame)
{
    struct packet packet;
    switch (eth_input(&stack->eth, frame)) {
    case ETH_ARP:
        arp_input(&stack->eth, frame->data, frame->len_bytes);
        return;
    case ETH_IP:
        break;
    default:
        return;
    }
    enum tcpip_verdict verdict = tcpip_input(&stack->tcpip, frame, &packet);
    if (verdict == TCPIP_NEIGHBOUR)
        nd_input(&stack->eth, &packet);
    else if (verdict == TCPIP_LISTENER_QUERY)
        mld_input(&stack->eth, &packet);
}

/* The frames of a batch that are to be taken: all but ACKs that another one stands for. */
static uint32_t choose(struct stack *stack, struct nmio_rx *batch, uint32_t count, uint8_t *chosen)
{
    uint64_t superseded = ack_coalesce(&stack->eth, batch, count);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++) {
        chosen[kept] = (uint8_t)i;
        kept += (superseded >> i & 1) == 0;
    }
    COUNT_BY(&stack->eth, eth_rx_frames, count - kept);
    COUNT_BY(&stack->tcpip, tcp_rx_segments, count - kept);
    COUNT_BY(&stack->tcpip, tcp_rx_acks_coalesced, count - kept);
    return kept;
}

/* One step of what is fetched ahead for a segment: first the table's entry, when that is there the TCB that it points to, and
 * all the time what the application will look at. */
static void prefetch(const struct stack *stack, const struct nmio_rx *rx, struct tcpip_prefetch *ahead, uint32_t step,
                     uint32_t app_steps)
{
    if (step == 0)
        *ahead = tcp_prefetch_entry(&stack->tcpip, rx);
    else if (step == TCB_PREFETCH_STEP)
        tcp_prefetch_tcb(&stack->tcpip, ahead->flow_hash);
    if (ahead->data_bytes > 0 && step < app_steps && !stack->tcpip.app->prefetch(&stack->tcpip, ahead, step))
        ahead->data_bytes = 0;
}

/* With each frame that is taken those behind it go on by a step. */
static void input_ahead(struct stack *stack, struct nmio_rx *batch, const uint8_t *chosen, uint32_t count)
{
    struct tcpip_prefetch ahead[TCPIP_PREFETCH_STEPS_MAX] = {{0}}; /* a ring: no more are under way */
    uint32_t app_steps = stack->tcpip.prefetch_steps;
    uint32_t steps = app_steps > TCB_PREFETCH_STEP + 1 ? app_steps : TCB_PREFETCH_STEP + 1;
    for (uint32_t at = 0; at < count + steps; at++) {
        uint32_t first = at < steps ? 0 : at - steps + 1; /* that has steps to go */
        for (uint32_t i = first; i <= at && i < count; i++)
            prefetch(stack, &batch[chosen[i]], &ahead[i % TCPIP_PREFETCH_STEPS_MAX], at - i, app_steps);
        if (at >= steps)
            frame_input(stack, &batch[chosen[at - steps]]);
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
        frame_input(stack, &batch[chosen[i]]);
}

void stack_input(struct stack *stack, struct nmio_rx *batch, uint32_t count)
{
    for (uint32_t first = 0; first < count; first += INPUT_FRAMES)
        batch_input(stack, batch + first, count - first < INPUT_FRAMES ? count - first : INPUT_FRAMES);
}

void stack_output(struct stack *stack)
{
    if (stack->eth.now_us >= stack->eth.due_us)
        acd_run(&stack->eth);
    tcpip_output(&stack->tcpip);
}

uint64_t stack_deadline_ns(const struct stack *stack)
{
    uint64_t us = tcpip_deadline_us(&stack->tcpip);
    us = stack->eth.due_us < us ? stack->eth.due_us : us;
    return us == UINT64_MAX ? UINT64_MAX : us * 1000;
}

bool stack_waits_for_space(const struct stack *stack)
{
    return tcpip_waits_for_space(&stack->tcpip);
}

void stack_rotate_secret(struct stack *stack, const uint8_t *secret)
{
    syn_cookies_rotate(&stack->tcpip.cookies, secret);
}

void stack_drain(struct stack *stack)
{
    tcpip_drain(&stack->tcpip);
}

uint32_t stack_unfinished(const struct stack *stack)
{
    return tcpip_unfinished(&stack->tcpip);
}

bool stack_abort(struct stack *stack)
{
    return tcpip_abort(&stack->tcpip);
}

void stack_swap(struct stack *stack, struct generation *generation)
{
    tcpip_swap(&stack->tcpip, generation);
}

struct generation *stack_generation(const struct stack *stack)
{
    return generation_newest(&stack->tcpip.generations);
}

uint32_t stack_need_older(const struct stack *stack)
{
    return tcpip_need_older(&stack->tcpip);
}

void stack_addresses_confirmed(struct stack *stack)
{
    acd_confirmed(&stack->eth);
}

uint32_t stack_address_state(const struct stack *stack, uint32_t index)
{
    return acd_state(&stack->eth, index);
}

uint32_t stack_address_conflicts(const struct stack *stack, uint32_t index, uint8_t *mac)
{
    return acd_conflicts(&stack->eth, index, mac);
}

void *stack_app_state(struct stack *stack)
{
    return stack->tcpip.app_state;
}

uint32_t stack_connections(const struct stack *stack)
{
    return tcb_table_count(&stack->tcpip.connections);
}

void stack_seen(const struct stack *stack, struct wake_seen *seen)
{
    const struct tcpip_counters *counters = &stack->tcpip.counters;
    *seen = (struct wake_seen){.requests = counters->tcp_rx_data,
                               .releasing = counters->tcp_rx_releasing_acks,
                               .prompt = counters->tcp_rx_prompt,
                               .connections = stack_connections(stack)};
}

bool stack_connection_at(const struct stack *stack, uint32_t index, struct stack_connection *connection)
{
    const struct tcb *tcb = &stack->tcpip.connections.tcbs[index];
    if (index >= stack->tcpip.connections.touched || tcb->state == 0)
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

void stack_view(const struct stack *stack, struct stack_view *view)
{
    const struct tcpip *tcpip = &stack->tcpip;
    const struct generation *generation = generation_newest(&tcpip->generations);
    const struct ssi_header *header = generation->image.header;
    *view = (struct stack_view){.stack = stack,
                                .app = tcpip->app,
                                .frames = generation->frames,
                                .response_count = header->response_count,
                                .frame_count = header->frame_count};
    if (tcpip->app->counters != NULL)
        view->app_counters = tcpip->app->counters(tcpip->app_state);
    if (tcpip->app->response_uses != NULL)
        view->response_uses = tcpip->app->response_uses(tcpip->app_state);
}

uint32_t stack_response_uses(const struct stack_view *view, uint32_t response)
{
    return view->response_uses != NULL && response < view->response_count ? view->response_uses[response] : 0;
}

uint32_t stack_frame_high_water(const struct stack_view *view, uint32_t frame)
{
    return frame < view->frame_count ? view->frames[frame].high_water : 0;
}

static const char *const eth_names[] = {ETH_COUNTERS(COUNTER_NAME)};
static const char *const tcpip_names[] = {TCPIP_COUNTERS(COUNTER_NAME)};
static const char *const arena_names[] = {ARENA_COUNTERS(COUNTER_NAME)};
#define LENGTH(array) ((uint32_t)(sizeof(array) / sizeof((array)[0])))

/* The layers' counters one after the other, the application's last. */
struct counter_group {
    const char *const *names;
    const uint64_t *values;
    uint32_t count;
};
#define COUNTER_GROUPS 4

static void counter_groups(const struct stack_view *view, struct counter_group groups[COUNTER_GROUPS])
{
    const struct tcpip *tcpip = &view->stack->tcpip;
    groups[0] = (struct counter_group){eth_names, (const uint64_t *)&view->stack->eth.counters, LENGTH(eth_names)};
    groups[1] = (struct counter_group){tcpip_names, (const uint64_t *)&tcpip->counters, LENGTH(tcpip_names)};
    groups[2] = (struct counter_group){arena_names, (const uint64_t *)&tcpip->arena.counters, LENGTH(arena_names)};
    groups[3] = (struct counter_group){view->app->counter_names, view->app_counters, view->app->counter_count};
}

uint32_t stack_counter_count(const struct stack_view *view)
{
    return LENGTH(eth_names) + LENGTH(tcpip_names) + LENGTH(arena_names) + view->app->counter_count;
}

const char *stack_counter_name(const struct stack_view *view, uint32_t index)
{
    struct counter_group groups[COUNTER_GROUPS];
    counter_groups(view, groups);
    for (uint32_t g = 0; g < COUNTER_GROUPS; index -= groups[g++].count)
        if (index < groups[g].count)
            return groups[g].names[index];
    return NULL;
}

uint64_t stack_counter(const struct stack_view *view, uint32_t index)
{
    struct counter_group groups[COUNTER_GROUPS];
    counter_groups(view, groups);
    for (uint32_t g = 0; g < COUNTER_GROUPS; index -= groups[g++].count)
        if (index < groups[g].count)
            return groups[g].values[index];
    return 0;
}
