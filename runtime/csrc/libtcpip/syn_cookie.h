/* SYN cookies (RFC 4987 section 3.6): all that a connection needs, kept in the SYN-ACK's sequence number and timestamp. */
#ifndef SANDSTORM_SYN_COOKIE_H
#define SANDSTORM_SYN_COOKIE_H

#include "segment.h"

#define SYN_COOKIE_SECRET_BYTES 16

struct cookie {
    uint16_t mss;
    uint8_t wscale; /* or TCP_NO_WSCALE */
    bool sack;
    bool ecn;
    bool timestamps;
    uint32_t ts_offset; /* our timestamps of the flow start from here, so that they tell nothing of our uptime */
};

struct syn_cookies {
    uint8_t flow_secret[SYN_COOKIE_SECRET_BYTES]; /* what a flow's timestamps start from, as long as we run */
    uint8_t secrets[2][SYN_COOKIE_SECRET_BYTES]; /* in use, and the one before */
    uint32_t salts[2]; /* of these */
};

enum cookie_verdict {
    COOKIE_BAD,
    COOKIE_EARLY, /* of a peer that has our SYN-ACK, but not the first segment behind it */
    COOKIE_GOOD,
};

/* A new secret; cookies made with the one before stay good until the next call. */
void syn_cookies_rotate(struct syn_cookies *cookies, const uint8_t *secret);
/* Our initial sequence number towards a flow, and with timestamps what ours must say. irs: the peer's. */
uint32_t cookie_make(const struct syn_cookies *cookies, uint64_t now_us, const struct tcp_flow *flow, uint32_t irs,
                     const struct tcp_options *options, uint32_t *ts_value);
/* Does the first segment of a connection carry a cookie of ours? *cookie: what it says. */
enum cookie_verdict cookie_check(const struct syn_cookies *cookies, uint64_t now_us, const struct tcp_flow *flow,
                                 const struct tcp_segment *segment, struct cookie *cookie);
/* When the cookie of a connection that was opened at a time is no longer good, at the latest. */
uint64_t cookie_expires_us(uint64_t opened_us);

#endif
