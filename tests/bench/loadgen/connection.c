#include "connection.h"

#include "wire/seq.h"

#define REFUSED_PAUSE_NS 10000000
#define HALF_OPEN_MAX 64 /* until all have been opened once: a listener's queue is short */

/* --- rings and lists --- */

void connection_enqueue(struct clients *clients, struct connection *c)
{
    if (c->queued)
        return;
    c->queued = true;
    clients->queue[(clients->queue_first + clients->queue_count++) % clients->capacity] =
        connection_index(clients, c);
}

static void list_idle(struct clients *clients, struct connection *c)
{
    if (c->listed)
        return;
    c->listed = true;
    clients->idle[(clients->idle_first + clients->idle_count++) % clients->capacity] = connection_index(clients, c);
}

/* The one that has been idle longest, or NULL. */
static struct connection *take_idle(struct clients *clients)
{
    while (clients->idle_count > 0) {
        struct connection *c = &clients->connection[clients->idle[clients->idle_first]];
        clients->idle_first = (clients->idle_first + 1) % clients->capacity;
        clients->idle_count--;
        c->listed = false;
        if (c->state == CONNECTION_OPEN && c->works && c->target == NULL)
            return c;
    }
    return NULL;
}

void clients_say_orphan(struct clients *clients, struct orphan orphan)
{
    if (clients->orphan_count < clients->capacity)
        clients->orphan[(clients->orphan_first + clients->orphan_count++) % clients->capacity] = orphan;
}

void connection_owe_ack(struct clients *clients, struct connection *c)
{
    if (c->acks_owed == 0)
        c->acks_owed = 1;
    connection_enqueue(clients, c);
}

/* --- timers --- */

static uint32_t earlier(uint32_t a, uint32_t b)
{
    return a == 0 || (b != 0 && seq_lt(b, a)) ? b : a;
}

/* A connection's timers have to be looked at then, or before. */
void connection_arm(struct clients *clients, const struct connection *c, uint32_t at_ms)
{
    uint32_t *due_ms = &clients->due_ms[connection_index(clients, c)];
    *due_ms = earlier(*due_ms, at_ms);
}

uint32_t connection_in_ms(const struct clients *clients, uint32_t delay_ms)
{
    return (clients->now_ms + delay_ms) | 1; /* never 0 */
}

void connection_start_rto(struct clients *clients, struct connection *c)
{
    uint32_t rto_ms = c->rto_ms << c->retries;
    c->rto_at_ms = connection_in_ms(clients, rto_ms < CONNECTION_RTO_MAX_MS ? rto_ms : CONNECTION_RTO_MAX_MS);
    connection_arm(clients, c, c->rto_at_ms);
}

/* --- a connection's life --- */

void connection_stop_working(struct clients *clients, struct connection *c)
{
    if (!c->works)
        return;
    c->works = false;
    c->target = NULL;
    clients->active--;
}

void connection_return_store(struct clients *clients, struct connection *c)
{
    if (c->store == NULL)
        return;
    clients->free_store[clients->free_store_count++] = c->store;
    c->store = NULL;
}

void connection_forget(struct clients *clients, struct connection *c)
{
    connection_stop_working(clients, c);
    connection_return_store(clients, c);
    if (c->state == CONNECTION_SYN_SENT)
        clients->half_open--;
    else
        clients->ended_at[c->flow] = c->rcv_nxt != 0 ? c->rcv_nxt : 1;
    c->state = CONNECTION_FREE;
    clients->due_ms[connection_index(clients, c)] = 0;
    clients->connection_of[c->flow] = CLIENT_NOBODY;
    clients->free_index[clients->free_count++] = connection_index(clients, c);
}

void connection_reset(struct clients *clients, struct connection *c)
{
    clients_say_orphan(clients, (struct orphan){c->flow, c->snd_nxt, c->rcv_nxt, TCP_RST | TCP_ACK});
    connection_forget(clients, c);
}

void connection_fail(struct clients *clients, struct connection *c, enum client_error error)
{
    clients->counters.errors[error]++;
    if (error == CLIENT_REFUSED)
        clients->open_from_ns = clients->now_ns + REFUSED_PAUSE_NS;
    if (error == CLIENT_TIMEOUT || error == CLIENT_MALFORMED)
        connection_reset(clients, c);
    else
        connection_forget(clients, c);
}

static void choose_target(struct clients *clients, struct connection *c, uint64_t scheduled_ns)
{
    c->target = &clients->config.targets[clients->next_target];
    c->scheduled_ns = scheduled_ns;
    clients->next_target = clients->next_target + 1 < clients->config.target_count ? clients->next_target + 1 : 0;
}

void connection_ask(struct clients *clients, struct connection *c)
{
    const struct target *target = c->target;
    bool checks = target->body != NULL && clients->config.check_every > 0 && clients->check_in-- == 0;
    if (checks)
        clients->check_in = clients->config.check_every - 1;
    response_begin(&c->response, checks ? target->body : NULL, target->body_bytes);
    c->request_seq = c->snd_nxt;
    c->say_request = true;
    connection_enqueue(clients, c);
}

/* A connection is free for a request. */
void connection_next_request(struct clients *clients, struct connection *c)
{
    uint64_t scheduled_ns;
    c->target = NULL;
    if (!load_take(&clients->config.load, clients->now_ns, &scheduled_ns)) {
        list_idle(clients, c);
        return;
    }
    choose_target(clients, c, scheduled_ns);
    connection_ask(clients, c);
}

static uint32_t free_flow(struct clients *clients)
{
    do
        clients->next_flow = clients->next_flow + 1 < clients->flow_count ? clients->next_flow + 1 : 0;
    while (clients->connection_of[clients->next_flow] != CLIENT_NOBODY);
    return clients->next_flow;
}

static struct connection *begin(struct clients *clients)
{
    uint32_t index = clients->free_index[--clients->free_count];
    struct connection *c = &clients->connection[index];
    /* RFC 9293 section 3.4.1: from a clock, so that a port's next connection is beyond the one before. */
    uint32_t iss = (uint32_t)(clients->now_ns >> 12);
    *c = (struct connection){.state = CONNECTION_SYN_SENT,
                             .flow = free_flow(clients),
                             .snd_una = iss,
                             .snd_nxt = iss,
                             .rto_ms = CONNECTION_RTO_INITIAL_MS,
                             .heard_ms = clients->now_ms,
                             .works = true,
                             .say_syn = true,
                             .queued = c->queued,
                             .listed = c->listed};
    clients->connection_of[c->flow] = index;
    clients->active++;
    clients->half_open++;
    clients->begun++;
    connection_enqueue(clients, c);
    return c;
}

static bool may_open(const struct clients *clients)
{
    const struct client_config *config = &clients->config;
    return clients->active < config->connections && clients->free_count > 0 &&
           clients->now_ns >= clients->open_from_ns &&
           (clients->half_open < HALF_OPEN_MAX || clients->begun >= config->connections);
}

static void open_connections(struct clients *clients)
{
    uint64_t scheduled_ns;
    while (may_open(clients) && !clients->config.load.stopped) {
        if (!clients->config.close)
            begin(clients);
        else if (load_take(&clients->config.load, clients->now_ns, &scheduled_ns))
            choose_target(clients, begin(clients), scheduled_ns);
        else
            return;
    }
}

static void wake_idle(struct clients *clients)
{
    while (clients->idle_count > 0 && load_next_ns(&clients->config.load) <= clients->now_ns) {
        struct connection *c = take_idle(clients);
        if (c == NULL)
            return;
        connection_next_request(clients, c);
    }
}

void clients_begin(struct clients *clients)
{
    wake_idle(clients);
    open_connections(clients);
}
