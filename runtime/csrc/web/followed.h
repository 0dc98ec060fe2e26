/* How a web_followed_app (web.h) follows its answers until their last byte is acknowledged or their connection is gone, and what it tells of
 * them. */
#ifndef SANDSTORM_FOLLOWED_H
#define SANDSTORM_FOLLOWED_H

#include <stdbool.h>
#include <stdint.h>

#define WEB_FOLLOWED_MAX 4194303

/* Its data, which must outlive it. */
struct web_config {
    uint32_t
        followed_max; /* answers at once, WEB_FOLLOWED_MAX at most; those beyond are counted as dropped. 0: none is followed */
    bool log_read; /* somebody takes what became of them (access_line.h) */
    bool log_heads; /* and wants of requests' heads more than what the answer follows from */
};

struct access_log;
struct access_log *web_access_log(void *state); /* of the state of a web_followed_app */

/* Where it counts. To be opened before anybody who is not trusted may write there: from then on no pointer from there is followed. */
struct access_site;
struct access_latency;
struct web_site_places;
struct web_followed {
    const struct web_site_places *places;
    const struct access_site *sites; /* [WEB_SITE_PLACES] */
    const struct access_latency *latencies; /* [WEB_LATENCIES] */
};
void web_followed_open(struct web_followed *followed, const void *state);

/* The hash of the name of the site at a place (site_places.h). False: there is none. */
bool web_site_at(const struct web_followed *followed, uint32_t place, uint64_t *hash);
/* How many answers each site has given, by its place (site_places.h) and the hundreds of their status (0: the connection was closed
 * instead), and how many bytes of them have arrived. From any thread or process. */
#define WEB_STATUS_CLASSES 6
uint64_t web_site_answers(const struct web_followed *followed, uint32_t site, uint32_t status_class);
uint64_t web_site_bytes(const struct web_followed *followed, uint32_t site);

/* How long answers have taken from when their request was whole: WEB_LATENCY_*. A bucket counts those
 * below 2^(bucket + 1) microseconds that are in none before; the last one all the others. */
#define WEB_LATENCY_FIRST_BYTE 0 /* until the first byte was sent */
#define WEB_LATENCY_LAST_ACK 1 /* until the last byte was acknowledged; only of those where it was */
#define WEB_LATENCIES 2
#define WEB_LATENCY_BUCKETS 28
uint64_t web_latency_count(const struct web_followed *followed, uint32_t latency, uint32_t bucket);
uint64_t web_latency_sum_us(const struct web_followed *followed, uint32_t latency);

#endif
