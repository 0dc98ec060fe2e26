/* What became of each answer. It is noted in an entry of a bounded pool when the answer is chosen, and finished when the last byte is
 * acknowledged or the connection is gone. Finished entries go to a reader, who may be another thread or process, over a ring of their
 * numbers, and come back over another: one writer and one reader each, and neither ever waits for the other. When no entry is free,
 * answers are not noted, and counted. The reader's side is in access_line.h. */
#ifndef SANDSTORM_ACCESS_LOG_H
#define SANDSTORM_ACCESS_LOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "access_head.h"
#include "followed.h"
#include "image/image.h"
#include "libtcpip/tcpip.h"
#include "site_places.h"
#include "wire/layout.h"

struct web;

#define ACCESS_NONE UINT32_MAX

struct access_entry {
    uint64_t begun_us; /* when the request was whole */
    uint64_t first_sent_us; /* when the first byte of the answer was sent; 0: that was not seen */
    uint64_t ended_us;
    uint64_t start, end; /* where the answer is in the connection's stream */
    uint64_t acked_bytes; /* of it; over another's TCP those that that has taken */
    uint32_t response_head_bytes;
    uint32_t request_bytes; /* its head */
    uint32_t resent_before; /* segments of the connection, when it was begun */
    uint32_t resent_segments; /* while it was under way */
    uint32_t rtt_us; /* 0: not known */
    uint32_t site; /* that it was for: its place */
    uint16_t status; /* 0: the connection was closed without an answer */
    uint16_t head_bytes; /* in head */
    uint16_t slices; /* that it has in the connection's queue */
    uint32_t number; /* in the pool, while it is in use */
    struct tcp_flow flow; /* of the connection */
    uint8_t encoding; /* SSI_ENCODING_*, or SSI_ENCODING_COUNT: it has none */
    uint8_t in_use; /* these are 0 or 1; no bool, as a reader may find anything here */
    uint8_t incomplete; /* more slices are to come */
    uint8_t whole; /* all of it has arrived */
    uint8_t head[ACCESS_HEAD_BYTES] __attribute__((aligned(64)));
};
_Static_assert(sizeof(struct access_entry) == 1024, "a power of two, so that no multiplication finds one");

/* A ring of entries' numbers, with room for all of them. */
struct access_ring {
    uint32_t *numbers; /* [mask + 1] */
    uint32_t mask;
    atomic_uint written; /* how many there have been */
    uint32_t read; /* the reader's: how many of them it has taken */
} __attribute__((aligned(64)));

struct access_latency {
    uint64_t counts[64]; /* by the logarithm of microseconds */
    uint64_t sum_us;
};

/* What an answer is by its response, all of it in one place. */
struct access_response {
    uint32_t head_bytes;
    uint16_t status;
    uint8_t status_class;
    uint8_t encoding;
    bool is_rare; /* it does not say all of an answer */
};

struct access_site {
    uint64_t answers[WEB_STATUS_CLASSES];
    uint64_t acked_bytes;
    uint64_t unused; /* a cache line each */
};

/* What belongs to an image, of a generation's tables. What is noted of an answer is taken from there when it begins: it may end when
 * that generation is gone. */
struct access_tables {
    struct access_response *responses; /* [response_count] */
    uint32_t *site_places; /* [site_count] */
};

struct access_log {
    /* Of the newest generation: what answers begin from. */
    const struct image *image;
    const struct access_response *responses;
    const uint32_t *site_places;
    struct access_entry *entries;
    struct index_pool pool;
    bool read, heads; /* as struct web_config has them */
    uint32_t resumes; /* an incomplete answer of which all so far has arrived, or ACCESS_NONE */
    struct web_site_places places;
    struct access_site *sites; /* [WEB_SITE_PLACES] */
    struct access_latency *latencies; /* [WEB_LATENCIES] */
    struct access_ring ended, returned;
};

/* Of a request that has been looked at. */
struct access_request {
    const uint8_t *head;
    uint32_t head_bytes; /* all of it, or what there is */
    uint32_t slices; /* that were queued before */
    bool resumed; /* the answer had been begun before */
    bool complete; /* and is written to its end */
};

/* log is scratch while layout only counts. */
void access_log_lay_out(struct access_log *log, struct layout *layout, const struct web_config *config);
void access_log_init(struct access_log *log, const struct web_config *config);
struct access_tables *access_tables_lay_out(struct layout *layout, const struct image *image);
/* Answers begin from this image from now on. */
void access_log_swapped(struct access_log *log, const struct image *image, struct access_tables *tables);
/* Once a round: entries that the reader has given back are free. */
void access_log_take_back(struct access_log *log);
/* Notes the answer to a request, if there was one, to be followed: web->site is whose it was. */
void access_log_answer(struct web *web, struct tcb *tcb, const struct access_request *request);
/* What a struct tcpip_app has for that. */
void access_log_slice_end(struct tcpip *tcpip, const struct tcb *tcb, uint32_t number);

#endif
