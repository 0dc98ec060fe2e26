#include "connection.h"
#include "wire/seq.h"

#define ACK_DELAY_MS 40
#define ACK_SEGMENTS 2 /* RFC 9293 section 3.8.6.3 */

/* RFC 6298 section 2, from the echo of a timestamp. */
static void take_rtt(struct connection *c, uint32_t rtt_ms)
{
    if (rtt_ms > CONNECTION_RTO_MAX_MS)
        return;
    if (c->srtt_ms == 0 && c->rttvar_ms == 0) {
        c->srtt_ms = rtt_ms;
        c->rttvar_ms = rtt_ms / 2;
    } else {
        uint32_t error_ms = rtt_ms > c->srtt_ms ? rtt_ms - c->srtt_ms : c->srtt_ms - rtt_ms;
        c->rttvar_ms = (3 * c->rttvar_ms + error_ms) / 4;
        c->srtt_ms = (7 * c->srtt_ms + rtt_ms) / 8;
    }
    c->rto_ms = c->srtt_ms + 4 * c->rttvar_ms;
    c->rto_ms = c->rto_ms > CONNECTION_RTO_MIN_MS ? c->rto_ms : CONNECTION_RTO_MIN_MS;
}

/* Does a segment end within what the flow's last connection had received? */
static bool is_late(const struct clients *clients, const struct segment *s)
{
    uint32_t ended_at = s->flow < clients->flow_count ? clients->ended_at[s->flow] : 0;
    return ended_at != 0 && seq_leq(s->seq + s->data_bytes + ((s->flags & TCP_FIN) != 0), ended_at);
}

static void refuse(struct clients *clients, const struct segment *s)
{
    if (is_late(clients, s))
        clients->counters.late++;
    else
        clients->counters.unknown++;
    if ((s->flags & TCP_RST) == 0)
        clients_say_orphan(clients, (struct orphan){s->flow, s->ack, 0, TCP_RST});
}

static void take_options(const struct clients *clients, struct connection *c, const struct segment_options *options)
{
    c->peer_scale = options->window_scale;
    c->scaled = options->has_window_scale;
    c->timestamps = options->has_timestamps;
    c->sack = options->sack_permitted;
    c->mss = clients->config.mss - (c->timestamps ? (uint32_t)sizeof(struct wire_tcp_timestamps) : 0);
    c->ts_recent = options->ts_value;
    if (c->timestamps)
        take_rtt(c, clients->now_ms - options->ts_echo);
}

static void establish(struct clients *clients, struct connection *c, const struct segment *s)
{
    c->state = CONNECTION_OPEN;
    c->snd_una = s->ack;
    c->rcv_nxt = c->ack_sent = s->seq + 1;
    c->peer_window = s->window;
    c->say_syn = false;
    c->retries = 0;
    c->rto_at_ms = 0;
    take_options(clients, c, &s->options);
    clients->half_open--;
    clients->counters.opened++;
    connection_owe_ack(clients, c);
    if (c->target != NULL)
        connection_ask(clients, c);
    else
        connection_next_request(clients, c);
}

static void hear_syn_ack(struct clients *clients, struct connection *c, const struct segment *s)
{
    if ((s->flags & TCP_ACK) == 0)
        return;
    if (s->ack != c->snd_nxt || c->snd_nxt == c->snd_una) /* of an older connection: it has to go first */
        refuse(clients, s);
    else if ((s->flags & TCP_RST) != 0)
        connection_fail(clients, c, CLIENT_REFUSED);
    else if ((s->flags & TCP_SYN) != 0)
        establish(clients, c, s);
}

static void count_response(struct clients *clients, const struct connection *c)
{
    const struct response *response = &c->response;
    struct client_counters *counters = &clients->counters;
    if (c->scheduled_ns >= clients->measured_from_ns)
        histogram_add(&clients->latency, clients_age_ns(clients, c->scheduled_ns));
    if (response->status != 200)
        counters->errors[CLIENT_STATUS]++;
    else if (response->differs)
        counters->errors[CLIENT_MISMATCH]++;
    else
        counters->requests++;
    counters->checked += response->wanted != NULL || response->differs;
}

static void end_response(struct clients *clients, struct connection *c)
{
    count_response(clients, c);
    if (!clients->config.close && !c->response.closes) {
        connection_next_request(clients, c);
        return;
    }
    connection_stop_working(clients, c);
    connection_arm(clients, c, connection_in_ms(clients, CONNECTION_FIN_PATIENCE_MS));
}

/* Bytes that are next in order. False: the connection is gone. */
static bool deliver(struct clients *clients, struct connection *c, const uint8_t *data, uint32_t bytes)
{
    c->rcv_nxt += bytes;
    clients->counters.bytes += bytes;
    bool asked = c->target != NULL && c->snd_nxt != c->request_seq;
    enum response_progress progress = asked ? response_take(&c->response, data, bytes) : RESPONSE_BAD;
    if (progress == RESPONSE_BAD)
        connection_fail(clients, c, CLIENT_MALFORMED);
    else if (progress == RESPONSE_DONE)
        end_response(clients, c);
    return progress != RESPONSE_BAD;
}

/* What has been kept is next in order now. False: the connection is gone. */
static bool deliver_kept(struct clients *clients, struct connection *c)
{
    const uint8_t *data;
    uint32_t bytes;
    while (c->store != NULL && (bytes = reassembly_peek(c->store, c->rcv_nxt, &data)) > 0)
        if (!deliver(clients, c, data, bytes))
            return false;
    if (c->store == NULL)
        return true;
    reassembly_drop(c->store, c->rcv_nxt);
    if (c->store->count == 0)
        connection_return_store(clients, c);
    return true;
}

static void keep(struct clients *clients, struct connection *c, const struct segment *s)
{
    clients->counters.out_of_order++;
    if (c->store == NULL && clients->free_store_count > 0) {
        c->store = clients->free_store[--clients->free_store_count];
        c->store->count = 0;
    }
    bool fits = seq_leq(s->seq + s->data_bytes, c->rcv_nxt + clients->config.window_bytes);
    if (!fits || c->store == NULL || !reassembly_put(c->store, s->seq, s->data, s->data_bytes))
        clients->counters.not_kept++;
    if (c->acks_owed < UINT16_MAX)
        c->acks_owed++; /* one for each, RFC 5681 section 4.2 */
    connection_enqueue(clients, c);
}

static void hear_again(struct clients *clients, struct connection *c, const struct segment *s)
{
    clients->counters.duplicates++;
    if (s->data_bytes > 0)
        c->d_sack = (struct reassembly_range){s->seq, s->seq + s->data_bytes};
    connection_owe_ack(clients, c);
}

static void hear_in_order(struct clients *clients, struct connection *c, const struct segment *s)
{
    uint32_t skip = c->rcv_nxt - s->seq, bytes = s->data_bytes - skip;
    uint32_t segments = 1 + (bytes - 1) / c->mss;
    bool had_hole = c->store != NULL;
    if (bytes > clients->config.window_bytes) {
        clients->counters.not_kept++;
        bytes = clients->config.window_bytes;
    }
    clients->counters.segments_in += segments;
    if (!deliver(clients, c, s->data + skip, bytes) || !deliver_kept(clients, c))
        return;
    c->unacked = (uint16_t)(c->unacked + segments);
    if (c->unacked >= ACK_SEGMENTS || had_hole) {
        connection_owe_ack(clients, c);
    } else if (!c->queued && c->ack_at_ms == 0) {
        c->ack_at_ms = connection_in_ms(clients, ACK_DELAY_MS);
        connection_arm(clients, c, c->ack_at_ms);
    }
}

/* False: the connection is gone. */
static bool hear_data(struct clients *clients, struct connection *c, const struct segment *s)
{
    uint32_t end = s->seq + s->data_bytes;
    if (s->data_bytes == 0)
        return true;
    if (seq_leq(end, c->rcv_nxt))
        hear_again(clients, c, s);
    else if (seq_lt(c->rcv_nxt, s->seq))
        keep(clients, c, s);
    else
        hear_in_order(clients, c, s);
    return c->state != CONNECTION_FREE;
}

/* All up to the server's FIN has come. */
static void end_of_stream(struct clients *clients, struct connection *c)
{
    c->rcv_nxt++;
    if (c->state == CONNECTION_FIN_WAIT) {
        clients_say_orphan(clients, (struct orphan){c->flow, c->snd_nxt, c->rcv_nxt, TCP_ACK});
        connection_forget(clients, c);
        return;
    }
    if (c->target != NULL)
        clients->counters.errors[CLIENT_CLOSED]++;
    connection_stop_working(clients, c);
    c->state = CONNECTION_LAST_ACK;
    c->say_request = false;
    c->say_fin = true;
    c->fin_seq = c->snd_nxt;
    c->retries = 0;
    connection_owe_ack(clients, c);
}

static void hear_fin(struct clients *clients, struct connection *c, const struct segment *s)
{
    if ((s->flags & TCP_FIN) != 0) {
        c->fin_came = true;
        c->rcv_fin = s->seq + s->data_bytes;
    }
    if (!c->fin_came)
        return;
    if (c->rcv_fin == c->rcv_nxt && c->state != CONNECTION_LAST_ACK)
        end_of_stream(clients, c);
    else if ((s->flags & TCP_FIN) != 0)
        connection_owe_ack(clients, c); /* something before it is missing, or our ACK was lost */
}

/* False: the connection is gone. */
static bool hear_ack(struct clients *clients, struct connection *c, const struct segment *s)
{
    if (seq_lt(c->snd_nxt, s->ack)) {
        connection_owe_ack(clients, c);
        return true;
    }
    c->peer_window = s->window << c->peer_scale;
    if (c->say_request)
        connection_enqueue(clients, c); /* it may have waited for a window */
    if (seq_leq(s->ack, c->snd_una))
        return true;
    c->snd_una = s->ack;
    c->retries = 0;
    c->rto_at_ms = 0;
    if (c->timestamps)
        take_rtt(c, clients->now_ms - s->options.ts_echo);
    if (c->snd_una != c->snd_nxt)
        connection_start_rto(clients, c);
    else if (c->snd_nxt != c->request_seq)
        c->say_request = false; /* it was to be sent again */
    if (c->state != CONNECTION_LAST_ACK || c->snd_una != c->fin_seq + 1)
        return true;
    connection_forget(clients, c);
    return false;
}

static void hear_reset(struct clients *clients, struct connection *c, const struct segment *s)
{
    if (s->seq == c->rcv_nxt)
        connection_fail(clients, c, CLIENT_RESET);
    else if (s->seq - c->rcv_nxt < clients->config.window_bytes)
        connection_owe_ack(clients, c); /* RFC 5961 section 3.2 */
}

/* RFC 7323 section 5. False: it is an old one. */
static bool hear_timestamp(struct clients *clients, struct connection *c, const struct segment *s)
{
    if (!c->timestamps || !s->options.has_timestamps)
        return true;
    if (seq_lt(s->options.ts_value, c->ts_recent)) {
        connection_owe_ack(clients, c);
        return false;
    }
    if (seq_leq(s->seq, c->ack_sent))
        c->ts_recent = s->options.ts_value;
    return true;
}

static void hear_connected(struct clients *clients, struct connection *c, const struct segment *s)
{
    if ((s->flags & TCP_RST) != 0) {
        hear_reset(clients, c, s);
        return;
    }
    if (!hear_timestamp(clients, c, s))
        return;
    if ((s->flags & TCP_SYN) != 0) { /* our ACK was lost; or RFC 5961 section 4.2 */
        connection_owe_ack(clients, c);
        return;
    }
    if ((s->flags & TCP_ACK) != 0 && hear_ack(clients, c, s) && hear_data(clients, c, s))
        hear_fin(clients, c, s);
}

void clients_hear(struct clients *clients, const uint8_t *frame, uint32_t len_bytes, uint32_t rx_flags)
{
    struct segment segment;
    enum segment_verdict verdict = segment_read(&clients->config.ends, frame, len_bytes, rx_flags, &segment);
    clients->counters.damaged += verdict == SEGMENT_DAMAGED;
    if (verdict != SEGMENT_OURS)
        return;
    clients->counters.frames_in++;
    uint32_t index = segment.flow < clients->flow_count ? clients->connection_of[segment.flow] : CLIENT_NOBODY;
    if (index == CLIENT_NOBODY) {
        refuse(clients, &segment);
        return;
    }
    struct connection *c = &clients->connection[index];
    c->heard_ms = clients->now_ms;
    if (c->state == CONNECTION_SYN_SENT)
        hear_syn_ack(clients, c, &segment);
    else
        hear_connected(clients, c, &segment);
}
