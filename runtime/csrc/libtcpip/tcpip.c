#include "tcpip.h"

#include "connection.h"
#include "icmp.h"
#include "input.h"
#include "ip.h"
#include "path_mtu_input.h"
#include "swap.h"
#include "timeout.h"

#define CONNECTIONS_MAX (1u << 24)

const char *tcpip_config_error(const struct tcpip_config *c)
{
    if (c->max_connections == 0 || c->max_connections > CONNECTIONS_MAX)
        return "the number of connections is not from 1 to 16,777,216";
    if (c->max_incomplete_requests == 0 || c->max_incomplete_requests > c->max_connections)
        return "the number of incomplete requests is not from 1 to that of connections";
    if (c->gather_max == 0 || c->gather_max > NMIO_GATHER_MAX)
        return "a superframe's number of segments is not one that ports take";
    if (c->tx_memcpy && c->gather_max > 1)
        return "frames are copied and gathered at once";
    if (c->mtu_bytes < TCPIP_MTU_BYTES_MIN || c->mtu_bytes > TCPIP_MTU_BYTES_MAX)
        return "the interface's MTU is not from 576 to 65,535 bytes";
    if (c->keep_alive_ms == 0 || c->request_ms == 0 || c->send_ms == 0)
        return "a time limit is 0";
    return c->congestion < CONGESTION_COUNT ? NULL : "the congestion control is not known";
}

static void lay_out_connections(struct tcpip *tcpip, struct layout *layout, const struct tcpip_config *config,
                                const struct tcpip_parts *parts)
{
    uint32_t connections = config->max_connections;
    tcb_table_lay_out(&tcpip->connections, layout, connections);
    receive_buffers_lay_out(&tcpip->buffers, layout, config->max_incomplete_requests);
    slice_rings_lay_out(&tcpip->rings, layout, connections);
    composed_lay_out(&tcpip->composed, layout, connections);
    if (parts->app->lay_out != NULL)
        tcpip->app_state = parts->app->lay_out(layout, parts->app_data);
}

/* Behind all else, which so has the same place whatever the image (resume.h). */
static void lay_out_image(struct tcpip *tcpip, struct layout *layout, const struct tcpip_parts *parts)
{
    generation_lay_out_first(tcpip, layout, parts->app, parts->image, parts->region != NULL);
}

void tcpip_lay_out_carried(struct tcpip *tcpip, struct layout *layout, const struct tcpip_config *config,
                           const struct tcpip_parts *parts)
{
    lay_out_connections(tcpip, layout, config, parts);
    lay_out_image(tcpip, layout, parts);
}

void tcpip_lay_out(struct tcpip *tcpip, struct layout *layout, const struct tcpip_config *config,
                   const struct tcpip_parts *parts)
{
    uint32_t connections = config->max_connections;
    lay_out_connections(tcpip, layout, config, parts);
    time_waits_lay_out(&tcpip->time_waits, layout, connections);
    reassembly_lay_out(&tcpip->reassembly, layout, config->reassemble);
    path_mtus_lay_out(&tcpip->paths, layout);
    overflow_scoreboards_lay_out(&tcpip->overflow, layout, connections);
    arena_lay_out(&tcpip->arena, layout, parts->region);
    lay_out_image(tcpip, layout, parts);
}

static void init_tables(struct tcpip *tcpip, const struct tcpip_config *config)
{
    tcb_table_init(&tcpip->connections, config->max_connections, config->secret);
    receive_buffers_init(&tcpip->buffers, config->max_incomplete_requests);
    slice_rings_init(&tcpip->rings);
    composed_init(&tcpip->composed);
    ready_init(&tcpip->ready, tcpip->connections.tcbs);
    timer_init(&tcpip->wheel, tcpip->connections.tcbs, 0);
}

void tcpip_init_carried(struct tcpip *tcpip, const struct tcpip_config *config, const struct tcpip_parts *parts)
{
    tcpip->config = *config;
    tcpip->app = parts->app;
    tcpip->idle_check_us =
        (config->keep_alive_ms < config->send_ms ? config->keep_alive_ms : config->send_ms) * 1000ull;
    init_tables(tcpip, config);
    generation_init_first(tcpip);
    if (tcpip->app->init != NULL)
        tcpip->app->init(tcpip->app_state, tcpip, parts->app_data);
    if (tcpip->app->swapped != NULL)
        tcpip->app->swapped(tcpip->app_state);
}

void tcpip_init(struct tcpip *tcpip, const struct tcpip_config *config, const struct tcpip_parts *parts)
{
    tcpip->region = parts->region;
    tcpip->tx = parts->tx;
    tcpip->eth = parts->eth;
    tcpip->reset = connection_reset;
    tcpip->congestion = (struct congestion){config->congestion, config->pacing};
    memcpy(tcpip->cookies.flow_secret, config->secret, TCPIP_SECRET_BYTES);
    memcpy(tcpip->paths.secret, config->secret, TCPIP_SECRET_BYTES);
    syn_cookies_rotate(&tcpip->cookies, config->secret);
    syn_cookies_rotate(&tcpip->cookies, config->secret);
    overflow_scoreboards_init(&tcpip->overflow);
    tcpip_init_carried(tcpip, config, parts);
    arena_init(&tcpip->arena, &tcpip->generations);
}

void tcpip_clock(struct tcpip *tcpip, uint64_t now_us, int64_t wall_s)
{
    tcpip->now_us = now_us;
    if (tcpip->generations.older > 0)
        tcpip_retire(tcpip);
    if (tcpip->app->clock != NULL)
        tcpip->app->clock(tcpip->app_state, wall_s);
}

static enum tcpip_verdict take_icmp(struct tcpip *tcpip, const struct packet *packet)
{
    switch (icmp_input(tcpip, packet)) {
    case ICMP_TOO_BIG:
        path_mtu_input(tcpip, packet);
        return TCPIP_TAKEN;
    case ICMP_NEIGHBOUR:
        return TCPIP_NEIGHBOUR;
    case ICMP_LISTENER_QUERY:
        return TCPIP_LISTENER_QUERY;
    default:
        return TCPIP_TAKEN;
    }
}

/* Never inline: nearly nothing comes in fragments. A whole that says that it is a fragment again is dropped. */
static __attribute__((noinline, cold)) enum tcpip_verdict take_fragment(struct tcpip *tcpip, struct packet *packet)
{
    struct nmio_rx whole = {0};
    if (tcpip->taking_whole) {
        COUNT(tcpip, ip_drop_fragment);
        return TCPIP_TAKEN;
    }
    if (!ip_reassemble(tcpip, packet, &whole))
        return TCPIP_TAKEN;
    tcpip->taking_whole = true;
    enum tcpip_verdict verdict = tcpip_input(tcpip, &whole, packet);
    tcpip->taking_whole = false;
    return verdict;
}

enum tcpip_verdict tcpip_input(struct tcpip *tcpip, const struct nmio_rx *frame, struct packet *packet)
{
    switch (ip_input(tcpip, frame, packet)) {
    case IP_TCP:
        tcp_input(tcpip, packet);
        return TCPIP_TAKEN;
    case IP_ICMP:
        return take_icmp(tcpip, packet);
    case IP_FRAGMENT:
        return take_fragment(tcpip, packet);
    default:
        return TCPIP_TAKEN;
    }
}

/* Until none is ready or tx is full. */
static void send_ready(struct tcpip *tcpip)
{
    struct tcb *tcb;
    while ((tcb = ready_front(&tcpip->ready)) != NULL) {
        enum tcpip_sent sent = tcp_output(tcpip, tcb);
        if (sent == TCPIP_NO_SPACE)
            return;
        ready_next(&tcpip->ready, tcb, sent == TCPIP_TURN_OVER);
    }
}

static void run_timers(struct tcpip *tcpip)
{
    struct tcb *tcb;
    while ((tcb = timer_pop(&tcpip->wheel, tcpip->now_us)) != NULL)
        tcp_timeout(tcpip, tcb);
}

void tcpip_output(struct tcpip *tcpip)
{
    if (timer_is_due(&tcpip->wheel, tcpip->now_us))
        run_timers(tcpip);
    send_ready(tcpip);
}

uint64_t tcpip_deadline_us(const struct tcpip *tcpip)
{
    return tcpip->generations.moves ? 0 : timer_next_us(&tcpip->wheel);
}

bool tcpip_waits_for_space(const struct tcpip *tcpip)
{
    return ready_front(&tcpip->ready) != NULL;
}

static bool has_part_of_a_request(const struct tcb *tcb)
{
    return tcb->buffer != TCB_NONE && !tcb->fin_queued;
}

static bool is_unfinished(const struct tcpip *tcpip, const struct tcb *tcb)
{
    return tcb->state != 0 &&
           (tcb->snd_una < tcb->snd_end || has_pending_response(tcpip, tcb) || has_part_of_a_request(tcb));
}

void tcpip_drain(struct tcpip *tcpip)
{
    tcpip->draining = true;
    for (uint32_t i = 0; i < tcpip->connections.touched; i++) {
        struct tcb *tcb = &tcpip->connections.tcbs[i];
        if (tcb->state != 0 && !tcb->fin_queued && !has_pending_response(tcpip, tcb) && !has_part_of_a_request(tcb)) {
            tcpip_finish(tcpip, tcb);
            receive_buffer_release(&tcpip->buffers, tcb);
            tcb->progress_us = tcpip->now_us; /* the peer has its time to close */
        }
    }
}

uint32_t tcpip_unfinished(const struct tcpip *tcpip)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < tcpip->connections.touched && tcb_table_count(&tcpip->connections) > 0; i++)
        count += is_unfinished(tcpip, &tcpip->connections.tcbs[i]);
    return count;
}

bool tcpip_abort(struct tcpip *tcpip)
{
    for (uint32_t i = 0; i < tcpip->connections.touched && tcb_table_count(&tcpip->connections) > 0; i++) {
        struct tcb *tcb = &tcpip->connections.tcbs[i];
        if (!is_unfinished(tcpip, tcb))
            continue;
        if (tcpip->tx != NULL && tcpip->tx->space == 0)
            return false;
        connection_abort(tcpip, tcb);
    }
    return true;
}
