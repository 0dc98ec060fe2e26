/* Many HTTP/1.1 clients over a TCP of their own: a function of frames and time, without a system call.
 *
 * What they do as real ones: handshake with MSS, window scale, SACK and timestamps (RFC 7323, with PAWS); an ACK for
 * every second segment, or 40 ms late; SACK and D-SACK for what comes out of order, and reassembly of that;
 * retransmission of SYN, request and FIN with backoff (RFC 6298); challenge ACKs (RFC 5961). A superframe, or what
 * comes in one batch, is acknowledged once, as where GRO is at work. They take what comes at once, so the window never
 * shuts; they close without TIME_WAIT, for its sake ports would run out. One request at a time on a connection. */
#ifndef LOADGEN_CLIENT_H
#define LOADGEN_CLIENT_H

#include "histogram.h"
#include "load.h"
#include "segment.h"

#define CLIENT_REQUEST_BYTES 1024
#define CLIENT_NOBODY 0xffffffff

/* What is asked for. */
struct target {
    char request[CLIENT_REQUEST_BYTES];
    uint32_t request_bytes;
    uint8_t *body; /* NULL: not known */
    uint64_t body_bytes;
};

enum client_error {
    CLIENT_REFUSED,     /* RST for a SYN */
    CLIENT_UNREACHABLE, /* no answer to any SYN */
    CLIENT_TIMEOUT,     /* no answer to a request */
    CLIENT_RESET,       /* RST in a connection */
    CLIENT_CLOSED,      /* FIN before a response's end */
    CLIENT_STATUS,      /* not 200 */
    CLIENT_MALFORMED,   /* no response, or bytes that nobody asked for */
    CLIENT_MISMATCH,    /* the body is another one */
    CLIENT_ERRORS
};

struct client_counters {
    uint64_t requests, bytes; /* right answers; TCP payload received in order */
    uint64_t checked; /* answers whose body was compared */
    uint64_t opened, errors[CLIENT_ERRORS];
    uint64_t segments_in, frames_in, acks_out; /* with payload, a superframe is several; ACKs without payload */
    uint64_t retransmitted_syns, retransmitted_requests, retransmitted_fins;
    uint64_t out_of_order, duplicates, not_kept; /* segments; not_kept: too far ahead, or no room to keep it */
    uint64_t damaged, unknown; /* segments: with wrong checksums, of no connection */
    uint64_t late; /* segments of a connection that is over, which say nothing new: overtaken, or sent again */
};

struct client_config {
    struct endpoints ends;
    uint32_t connections; /* at once */
    uint32_t window_bytes;
    uint16_t mss;
    bool close; /* a connection for each request */
    uint32_t check_every; /* compare one body in so many; 0: none */
    const struct target *targets; /* [target_count], asked for in turn */
    uint32_t target_count;
    struct load load;
};

enum connection_state {
    CONNECTION_FREE,
    CONNECTION_SYN_SENT,
    CONNECTION_OPEN,
    CONNECTION_FIN_WAIT, /* our FIN is out, the server's has not come */
    CONNECTION_LAST_ACK, /* the other way round */
};

struct connection;

/* A segment that belongs to no connection: RST, or the ACK of the last FIN. */
struct orphan {
    uint32_t flow, seq, ack;
    uint8_t flags;
};

struct clients {
    struct client_config config;
    struct client_counters counters;
    struct histogram latency;
    uint64_t now_ns, measured_from_ns; /* latencies are of requests that were due since then */
    uint32_t now_ms, scanned_ms;
    uint64_t open_from_ns; /* a pause after a refusal */
    struct connection *connection; /* [capacity] */
    uint32_t capacity;
    uint32_t *due_ms; /* [capacity], when to look at its timers, or earlier; 0: never. All are scanned */
    uint32_t *connection_of; /* [flow_count], or CLIENT_NOBODY */
    uint32_t *ended_at; /* [flow_count]: where what its last connection received ends; 0: it had none */
    uint32_t flow_count, next_flow;
    uint32_t *free_index, free_count; /* a stack */
    uint32_t *queue, queue_first, queue_count; /* a ring: those that have something to say */
    uint32_t *idle, idle_first, idle_count; /* a ring: those without a request, and some that have found one since */
    struct orphan *orphan; /* [capacity], a ring */
    uint32_t orphan_first, orphan_count;
    uint32_t active, half_open; /* connections that work, or are to */
    uint64_t begun; /* connections ever */
    uint32_t next_target, check_in;
    uint8_t window_scale;
    struct reassembly *store; /* [store_count] */
    struct reassembly **free_store;
    uint32_t store_count, free_store_count;
};

/* False: without memory. */
bool clients_open(struct clients *clients, const struct client_config *config);
void clients_free(struct clients *clients);

/* The time; first of all, and before each batch. Opens connections and sends requests that are due. */
void clients_clock(struct clients *clients, uint64_t now_ns);

/* Takes in a frame that is TCP. */
void clients_hear(struct clients *clients, const uint8_t *frame, uint32_t len_bytes, uint32_t rx_flags);

/* Writes the next frame into room for SEGMENT_FRAME_BYTES_MAX. Returns its length; 0: nobody has anything to say. */
uint32_t clients_say(struct clients *clients, uint8_t *frame);

/* When clients_clock has to be called although nothing has come; LOAD_NEVER: never. */
uint64_t clients_next_ns(const struct clients *clients);

/* Has each connection been answered that is to be kept? Before that, what is measured would be their opening. */
bool clients_are_open(const struct clients *clients);

/* Forgets what was counted: what is due from now on is measured. */
void clients_measure(struct clients *clients);

/* No request any more, but for those that are out. Returns the number of requests that are due or out and have no
 * answer; with their age so far as latency, so that a server which stands still is seen. */
uint64_t clients_stop(struct clients *clients);

/* Resets all connections. */
void clients_abort(struct clients *clients);

#endif
