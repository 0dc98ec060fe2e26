#include "connection.h"

#include <stdlib.h>
#include <string.h>

#include "wire/seq.h"

#define SYN_RETRIES_MAX 6
#define RETRIES_MAX 8
#define PATIENCE_MS 10000 /* for a response of which nothing comes */
#define SCAN_MS 4
#define STORES 256 /* connections that may miss something at once */

/* --- time --- */

static void time_out(struct clients *clients, struct connection *c)
{
    struct client_counters *counters = &clients->counters;
    c->rto_at_ms = 0;
    if (c->state == CONNECTION_SYN_SENT && c->retries == SYN_RETRIES_MAX) {
        connection_fail(clients, c, CLIENT_UNREACHABLE);
        return;
    }
    if (c->retries == RETRIES_MAX) {
        if (c->works)
            connection_fail(clients, c, CLIENT_TIMEOUT);
        else
            connection_reset(clients, c);
        return;
    }
    c->retries++;
    if (c->state == CONNECTION_SYN_SENT) {
        counters->retransmitted_syns++;
        c->say_syn = true;
    } else if (c->state == CONNECTION_OPEN) {
        counters->retransmitted_requests++;
        c->say_request = c->target != NULL;
    } else {
        counters->retransmitted_fins++;
        c->say_fin = true;
    }
    connection_enqueue(clients, c);
}

/* What a connection does that has waited for the server too long. */
static void lose_patience(struct clients *clients, struct connection *c)
{
    if (c->works) {
        connection_fail(clients, c, CLIENT_TIMEOUT);
    } else if (c->state == CONNECTION_OPEN) {
        c->state = CONNECTION_FIN_WAIT;
        c->say_fin = true;
        c->fin_seq = c->snd_nxt;
        c->heard_ms = clients->now_ms;
        connection_enqueue(clients, c);
    } else {
        connection_reset(clients, c);
    }
}

static bool waits_for_server(const struct connection *c)
{
    return c->state != CONNECTION_SYN_SENT && (!c->works || c->target != NULL);
}

static uint32_t patience_ends_ms(const struct connection *c)
{
    return (c->heard_ms + (c->works ? PATIENCE_MS : CONNECTION_FIN_PATIENCE_MS)) | 1;
}

static void look_at_timers(struct clients *clients, struct connection *c)
{
    uint32_t now_ms = clients->now_ms;
    clients->due_ms[connection_index(clients, c)] = 0;
    if (c->state == CONNECTION_FREE)
        return;
    if (c->ack_at_ms != 0 && seq_leq(c->ack_at_ms, now_ms)) {
        c->ack_at_ms = 0;
        connection_owe_ack(clients, c);
    }
    if (c->rto_at_ms != 0 && seq_leq(c->rto_at_ms, now_ms))
        time_out(clients, c);
    else if (c->rto_at_ms == 0 && waits_for_server(c) && seq_leq(patience_ends_ms(c), now_ms))
        lose_patience(clients, c);
    if (c->state == CONNECTION_FREE)
        return;
    connection_arm(clients, c, c->ack_at_ms);
    connection_arm(clients, c, c->rto_at_ms);
    if (waits_for_server(c))
        connection_arm(clients, c, patience_ends_ms(c));
}

static void scan_timers(struct clients *clients)
{
    clients->scanned_ms = clients->now_ms;
    for (uint32_t i = 0; i < clients->capacity; i++)
        if (clients->due_ms[i] != 0 && seq_leq(clients->due_ms[i], clients->now_ms))
            look_at_timers(clients, &clients->connection[i]);
}

void clients_clock(struct clients *clients, uint64_t now_ns)
{
    clients->now_ns = now_ns;
    clients->now_ms = (uint32_t)(now_ns / 1000000);
    if (clients->now_ms - clients->scanned_ms >= SCAN_MS)
        scan_timers(clients);
    clients_begin(clients);
}

uint64_t clients_next_ns(const struct clients *clients)
{
    uint64_t scan_ns = clients->now_ns + SCAN_MS * 1000000ull, load_ns = load_next_ns(&clients->config.load);
    bool can_ask = clients->config.close ? clients->active < clients->config.connections : clients->idle_count > 0;
    return can_ask && load_ns > clients->now_ns && load_ns < scan_ns ? load_ns : scan_ns;
}

/* --- beginning and end --- */

static bool open_stores(struct clients *clients)
{
    uint32_t ring_bytes = 1, count = clients->config.connections < STORES ? clients->config.connections : STORES;
    while (ring_bytes < clients->config.window_bytes)
        ring_bytes *= 2;
    clients->store = calloc(count, sizeof(*clients->store));
    clients->free_store = calloc(count, sizeof(*clients->free_store));
    uint8_t *rings = calloc(count, ring_bytes); /* touched only as it is needed */
    if (clients->store == NULL || clients->free_store == NULL || rings == NULL) {
        free(rings);
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        clients->store[i] = (struct reassembly){.ring = rings + (size_t)i * ring_bytes, .ring_bytes = ring_bytes};
        clients->free_store[i] = &clients->store[i];
    }
    clients->store_count = clients->free_store_count = count;
    return true;
}

static bool open_tables(struct clients *clients)
{
    clients->connection = calloc(clients->capacity, sizeof(*clients->connection));
    clients->due_ms = calloc(clients->capacity, sizeof(*clients->due_ms));
    clients->free_index = calloc(clients->capacity, sizeof(*clients->free_index));
    clients->queue = calloc(clients->capacity, sizeof(*clients->queue));
    clients->idle = calloc(clients->capacity, sizeof(*clients->idle));
    clients->orphan = calloc(clients->capacity, sizeof(*clients->orphan));
    clients->connection_of = calloc(clients->flow_count, sizeof(*clients->connection_of));
    clients->ended_at = calloc(clients->flow_count, sizeof(*clients->ended_at));
    return clients->connection != NULL && clients->due_ms != NULL && clients->free_index != NULL &&
           clients->queue != NULL && clients->idle != NULL && clients->orphan != NULL &&
           clients->connection_of != NULL && clients->ended_at != NULL;
}

bool clients_open(struct clients *clients, const struct client_config *config)
{
    *clients = (struct clients){.config = *config};
    /* Beside those that work are those that wait for their last ACK. */
    clients->capacity = 2 * config->connections + 1024;
    clients->flow_count = config->ends.address_count * SEGMENT_PORTS;
    while (config->window_bytes >> clients->window_scale > UINT16_MAX)
        clients->window_scale++;
    if (clients->capacity >= clients->flow_count || !open_tables(clients) || !open_stores(clients)) {
        clients_free(clients);
        return false;
    }
    for (uint32_t i = 0; i < clients->capacity; i++)
        clients->free_index[clients->free_count++] = clients->capacity - 1 - i;
    clients->next_flow = (uint32_t)(config->load.random_state % clients->flow_count);
    memset(clients->connection_of, 0xff, clients->flow_count * sizeof(*clients->connection_of));
    return true;
}

void clients_free(struct clients *clients)
{
    if (clients->store != NULL)
        free(clients->store[0].ring);
    free(clients->store);
    free(clients->free_store);
    free(clients->connection);
    free(clients->due_ms);
    free(clients->free_index);
    free(clients->queue);
    free(clients->idle);
    free(clients->orphan);
    free(clients->connection_of);
    free(clients->ended_at);
}

bool clients_are_open(const struct clients *clients)
{
    const struct client_config *config = &clients->config;
    return config->close || (clients->begun >= config->connections && clients->half_open == 0);
}

void clients_measure(struct clients *clients)
{
    clients->counters = (struct client_counters){0};
    clients->latency = (struct histogram){0};
    clients->measured_from_ns = clients->now_ns;
}

uint64_t clients_stop(struct clients *clients)
{
    uint64_t scheduled_ns, count = 0;
    for (uint32_t i = 0; i < clients->capacity; i++) {
        const struct connection *c = &clients->connection[i];
        if (c->state == CONNECTION_FREE || c->target == NULL || c->scheduled_ns < clients->measured_from_ns)
            continue;
        histogram_add(&clients->latency, clients_age_ns(clients, c->scheduled_ns));
        count++;
    }
    while (clients->config.load.interval_ns > 0 && load_take(&clients->config.load, clients->now_ns, &scheduled_ns)) {
        if (scheduled_ns < clients->measured_from_ns)
            continue;
        histogram_add(&clients->latency, clients_age_ns(clients, scheduled_ns));
        count++;
    }
    clients->config.load.stopped = true;
    return count;
}

void clients_abort(struct clients *clients)
{
    for (uint32_t i = 0; i < clients->capacity; i++) {
        struct connection *c = &clients->connection[i];
        if (c->state != CONNECTION_FREE)
            connection_reset(clients, c);
    }
}
