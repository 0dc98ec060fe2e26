#include "connection.h"

static struct connection *dequeue(struct clients *clients)
{
    struct connection *c = &clients->connection[clients->queue[clients->queue_first]];
    clients->queue_first = (clients->queue_first + 1) % clients->capacity;
    clients->queue_count--;
    c->queued = false;
    return c;
}

static uint32_t sacks_of(const struct connection *c, struct reassembly_range *sacks)
{
    uint32_t count = 0;
    if (!c->sack)
        return 0;
    if (c->d_sack.start != c->d_sack.end)
        sacks[count++] = c->d_sack; /* RFC 2883 */
    for (uint32_t i = 0; c->store != NULL && i < c->store->count && count < SEGMENT_SACKS_MAX; i++)
        sacks[count++] = c->store->range[i];
    return count;
}

static uint32_t write_segment(struct clients *clients, struct segment *segment, const struct connection *c,
                              uint8_t *frame)
{
    struct reassembly_range sacks[SEGMENT_SACKS_MAX] = {0};
    uint32_t sack_count = c != NULL ? sacks_of(c, sacks) : 0;
    segment->options.ts_value = clients->now_ms;
    return segment_write(&clients->config.ends, segment, sacks, sack_count, frame);
}

/* As it stands in a segment. */
static uint32_t window_of(const struct clients *clients, const struct connection *c)
{
    uint32_t window = clients->config.window_bytes >> (c->scaled ? clients->window_scale : 0);
    return window < UINT16_MAX ? window : UINT16_MAX;
}

static uint32_t say_syn(struct clients *clients, struct connection *c, uint8_t *frame)
{
    struct segment segment = {.flow = c->flow,
                              .seq = c->snd_una,
                              .window = window_of(clients, c),
                              .flags = TCP_SYN,
                              .options = {.mss = clients->config.mss, .window_scale = clients->window_scale}};
    c->say_syn = false;
    c->snd_nxt = c->snd_una + 1;
    connection_start_rto(clients, c);
    return write_segment(clients, &segment, NULL, frame);
}

/* A window too small for the request is probed with it when the timer says so. */
static bool may_send_request(struct clients *clients, struct connection *c)
{
    if (c->peer_window >= c->target->request_bytes || c->retries > 0)
        return true;
    if (c->rto_at_ms == 0)
        connection_start_rto(clients, c);
    return false;
}

static void add_request(struct clients *clients, struct connection *c, struct segment *segment)
{
    segment->seq = c->request_seq;
    segment->flags |= TCP_PSH;
    segment->data = (const uint8_t *)c->target->request;
    segment->data_bytes = c->target->request_bytes;
    c->say_request = false;
    c->snd_nxt = c->request_seq + segment->data_bytes;
    connection_start_rto(clients, c);
}

static void add_fin(struct clients *clients, struct connection *c, struct segment *segment)
{
    segment->seq = c->fin_seq;
    segment->flags |= TCP_FIN;
    c->say_fin = false;
    c->snd_nxt = c->fin_seq + 1;
    connection_start_rto(clients, c);
}

static uint32_t say_connected(struct clients *clients, struct connection *c, uint8_t *frame)
{
    struct segment segment = {.flow = c->flow,
                              .seq = c->snd_nxt,
                              .ack = c->rcv_nxt,
                              .window = window_of(clients, c),
                              .flags = TCP_ACK,
                              .options = {.has_timestamps = c->timestamps, .ts_echo = c->ts_recent}};
    if (c->say_request && may_send_request(clients, c))
        add_request(clients, c, &segment);
    else if (c->say_fin)
        add_fin(clients, c, &segment);
    else if (c->acks_owed > 0)
        clients->counters.acks_out++;
    else
        return 0;
    uint32_t bytes = write_segment(clients, &segment, c, frame);
    c->acks_owed = c->acks_owed > 0 ? (uint16_t)(c->acks_owed - 1) : 0;
    c->d_sack.end = c->d_sack.start;
    c->ack_sent = c->rcv_nxt;
    c->ack_at_ms = 0;
    c->unacked = 0;
    return bytes;
}

static uint32_t say_next_orphan(struct clients *clients, uint8_t *frame)
{
    const struct orphan *orphan = &clients->orphan[clients->orphan_first];
    struct segment segment = {.flow = orphan->flow, .seq = orphan->seq, .ack = orphan->ack, .flags = orphan->flags};
    clients->orphan_first = (clients->orphan_first + 1) % clients->capacity;
    clients->orphan_count--;
    return write_segment(clients, &segment, NULL, frame);
}

uint32_t clients_say(struct clients *clients, uint8_t *frame)
{
    if (clients->orphan_count > 0)
        return say_next_orphan(clients, frame);
    while (clients->queue_count > 0) {
        struct connection *c = dequeue(clients);
        uint32_t bytes = 0;
        if (c->state == CONNECTION_SYN_SENT && c->say_syn)
            bytes = say_syn(clients, c, frame);
        else if (c->state > CONNECTION_SYN_SENT)
            bytes = say_connected(clients, c, frame);
        if (bytes == 0)
            continue;
        if (c->acks_owed > 0 || c->say_fin || c->say_request)
            connection_enqueue(clients, c);
        return bytes;
    }
    return 0;
}
