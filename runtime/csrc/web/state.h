/* What the web keeps. */
#ifndef SANDSTORM_WEB_STATE_H
#define SANDSTORM_WEB_STATE_H

#include "head_memo.h"
#include "image/image.h"
#include "libtcpip/tcpip.h"
#include "wire/counters.h"

#define WEB_COUNTERS(X)                                                                                              \
    X(http_requests)                                                                                                 \
    X(http_heads_known)                                                                                              \
    X(http_bad_requests)                                                                                             \
    X(http_queries_left_out)                                                                                         \
    X(http_redirects_refused)                                                                                        \
    X(http_status_2xx)                                                                                               \
    X(http_status_3xx)                                                                                               \
    X(http_status_4xx)                                                                                               \
    X(http_status_5xx)                                                                                               \
    X(log_records)                                                                                                   \
    X(log_dropped)

struct web_counters COUNTERS_DEFINE(WEB_COUNTERS);

struct access_log;
struct access_tables;

/* What belongs to an image, of a generation's. */
struct web_tables {
    uint32_t *response_uses; /* [response_count] */
    struct head_place *places; /* [HEAD_MEMO_PLACES] */
    struct access_tables *followed; /* NULL: answers are not followed */
};

struct web {
    /* What answers are taken from: the newest generation, but while one goes on that was begun before. */
    const struct image *image;
    uint32_t *response_uses; /* [response_count] */
    uint32_t generation; /* its place */
    struct tcpip *tcpip;
    int64_t wall_s; /* seconds since 1970-01-01 UTC */
    /* The Date field of this second, and its sum at an even offset. */
    int64_t date_s;
    uint8_t date_text[32];
    uint64_t date_sum;
    uint64_t connection_sums[2]; /* of what Connection says, at an even offset: keep-alive, close */
    struct head_memo memo;
    struct head_answer answer; /* written last; response SSI_NONE: none of the image's whole */
    uint32_t site; /* of the request that was parsed last */
    struct access_log *log; /* NULL: answers are not followed */
    bool lasts; /* the same head will be answered so for as long as the image is served */
    struct web_counters counters;
};

#endif
