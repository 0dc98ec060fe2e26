/* A client's connection, for the files that move it: connection.c its life, client_hear.c what comes in, client_say.c what
 * goes out, client.c time. */
#ifndef LOADGEN_CONNECTION_H
#define LOADGEN_CONNECTION_H

#include "client.h"
#include "response.h"

#define CONNECTION_RTO_INITIAL_MS 1000 /* RFC 6298 section 2; the least is Linux's */
#define CONNECTION_RTO_MIN_MS 200
#define CONNECTION_RTO_MAX_MS 60000
#define CONNECTION_FIN_PATIENCE_MS 1000 /* for the server's FIN, where it has said that it closes */

struct connection {
    const struct target *target; /* NULL: no request */
    uint64_t scheduled_ns;
    struct response response;
    struct reassembly *store;
    uint32_t flow;
    uint32_t snd_una, snd_nxt, request_seq, fin_seq; /* fin_seq: of our FIN */
    uint32_t rcv_nxt, rcv_fin, ack_sent; /* rcv_fin: of the server's */
    uint32_t ts_recent;
    uint32_t peer_window;
    uint32_t rto_at_ms, ack_at_ms, heard_ms; /* rto_at_ms, ack_at_ms: 0 for never */
    uint32_t srtt_ms, rttvar_ms, rto_ms;
    uint32_t mss; /* of what we are sent */
    struct reassembly_range d_sack; /* start == end: none */
    uint16_t acks_owed, unacked; /* unacked: segments */
    uint8_t state, retries, peer_scale;
    bool works; /* counts as active; else it only waits for its end */
    bool timestamps, sack, scaled, fin_came;
    bool say_syn, say_request, say_fin;
    bool queued, listed; /* in the rings; these outlive the connection */
};

static inline uint32_t connection_index(const struct clients *clients, const struct connection *c)
{
    return (uint32_t)(c - clients->connection);
}

static inline uint64_t clients_age_ns(const struct clients *clients, uint64_t since_ns)
{
    return clients->now_ns > since_ns ? clients->now_ns - since_ns : 0;
}

/* It has something to say. */
void connection_enqueue(struct clients *clients, struct connection *c);
void connection_owe_ack(struct clients *clients, struct connection *c);
void clients_say_orphan(struct clients *clients, struct orphan orphan);

/* A time from now, as timers have it: never 0. */
uint32_t connection_in_ms(const struct clients *clients, uint32_t delay_ms);
/* Its timers have to be looked at then, or before; 0: no matter. */
void connection_arm(struct clients *clients, const struct connection *c, uint32_t at_ms);
void connection_start_rto(struct clients *clients, struct connection *c);

/* Opens connections and sends requests, as they are due. */
void clients_begin(struct clients *clients);
/* Sends the request for its target. */
void connection_ask(struct clients *clients, struct connection *c);
/* It is free for a request: takes one that is due, or waits for one. */
void connection_next_request(struct clients *clients, struct connection *c);
/* Nothing is asked on it any more. */
void connection_stop_working(struct clients *clients, struct connection *c);
void connection_return_store(struct clients *clients, struct connection *c);
/* These leave it free. */
void connection_forget(struct clients *clients, struct connection *c);
void connection_reset(struct clients *clients, struct connection *c);
void connection_fail(struct clients *clients, struct connection *c, enum client_error error);

#endif
