#include "syn_cookie.h"

#include "wire/siphash.h"

/* Nothing is lost by these cookies. The initial sequence number is
 *
 *   with timestamps:  | slot:2 | mss:3 | flow mac:6 |              full mac:21              |
 *                     and the timestamp's low six bits are | ECN:1 | window scale:4 | SACK permitted:1 |
 *   without:          | slot:2 | mss:3 | window scale:4 | SACK permitted:1 | flow mac:6 | full mac:16 |
 *
 * slot counts COOKIE_SLOT_US of time; a cookie is good in its own slot and the next. The full MAC covers the flow, the
 * slot count, everything encoded in the sequence number and the client's initial one. What the timestamp says it does not
 * cover, as some peers leave timestamps out after the SYN (RFC 7323 section 3.2 wants them dropped, Linux takes them): such
 * a cookie is good all the same, and the connection goes without timestamps, scaling and SACK. A peer that says
 * something else than it was told hurts itself alone. The flow MAC stands for flow and slot: where it
 * fits and the full one does not, the segment has overtaken the first one, and is dropped without a reset.
 *
 * One keyed hash of the flow serves all: one half of it is where timestamps start, of the other and a salt the flow MAC is
 * made, and the full one covers it in the flow's place. Who guesses a flow MAC gains no more than that silence. */

#define COOKIE_SLOT_US 64000000ull
#define COOKIE_TS_MASK 63u

/* Largest first is not needed: the class is the largest that is not above what the peer announced. */
static const uint16_t mss_classes[8] = {TCP_MSS_MIN, 536, 1220, 1380, 1420, 1440, 1460, 8940};

static uint32_t mss_class(uint16_t mss)
{
    uint32_t class = 7;
    while (class > 0 && mss_classes[class] > mss)
        class --;
    return class;
}

#define FLOW_MAC_BITS 6

/* Bits of the full MAC. */
static uint32_t mac_bits(const struct cookie *c)
{
    return c->timestamps ? 21 : 16;
}

static uint64_t flow_hash_of(const struct syn_cookies *cookies, const struct tcp_flow *flow)
{
    const uint8_t *secret = cookies->flow_secret;
    const uint64_t key[2] = {load64(secret) ^ 0x55,
                             load64(secret + 8)}; /* apart from all else that is hashed with it */
    return siphash_words(key, flow, 2, siphash_last(load64(&flow->peer_port), offsetof(struct tcp_flow, zero)));
}

static uint32_t ts_offset_of(uint64_t flow_hash)
{
    return (uint32_t)flow_hash;
}

static uint32_t flow_mac(uint32_t salt, uint64_t flow_hash, uint64_t slot)
{
    /* Times an odd number, to reach the upper bits. */
    uint32_t mixed = ((uint32_t)(flow_hash >> 32) ^ (uint32_t)slot ^ salt) * 0x9e3779b1;
    return mixed >> (32 - FLOW_MAC_BITS);
}

static uint32_t salt_of(const uint8_t *secret)
{
    static const uint8_t what[] = "flow";
    return (uint32_t)siphash(secret, what, sizeof(what));
}

void syn_cookies_rotate(struct syn_cookies *cookies, const uint8_t *secret)
{
    memcpy(cookies->secrets[1], cookies->secrets[0], SYN_COOKIE_SECRET_BYTES);
    memcpy(cookies->secrets[0], secret, SYN_COOKIE_SECRET_BYTES);
    cookies->salts[1] = cookies->salts[0];
    cookies->salts[0] = salt_of(secret);
}

static uint32_t cookie_encode(const struct syn_cookies *cookies, int generation, uint64_t flow_hash, uint64_t slot,
                              uint32_t irs, uint32_t class, const struct cookie *c)
{
    uint32_t options = c->timestamps ? 2 : (uint32_t)c->wscale << 2 | (c->sack ? 1 : 0);
    /* What the full MAC covers. Of the slots' count 22 bits are years. */
    uint64_t encoded = slot << 10 | class << 7 | options;
    const uint64_t input[2] = {flow_hash, encoded << 32 | irs};
    uint32_t head = (uint32_t)(slot & 3) << 30 | class << 27;
    if (!c->timestamps)
        head |= (uint32_t)c->wscale << 23 | (c->sack ? 1u << 22 : 0);
    const uint64_t key[2] = {load64(cookies->secrets[generation]), load64(cookies->secrets[generation] + 8)};
    uint64_t hash = siphash_words(key, input, 2, siphash_last(0, sizeof(input)));
    uint32_t full = (uint32_t)hash & ((1u << mac_bits(c)) - 1);
    return head | flow_mac(cookies->salts[generation], flow_hash, slot) << mac_bits(c) | full;
}

uint32_t cookie_make(const struct syn_cookies *cookies, uint64_t now_us, const struct tcp_flow *flow, uint32_t irs,
                     const struct tcp_options *options, uint32_t *ts_value)
{
    uint16_t fallback = flow->family == IP_FAMILY_V4 ? TCP_MSS_DEFAULT_IPV4 : TCP_MSS_DEFAULT_IPV6;
    struct cookie c = {.mss = options->mss != 0 ? options->mss : fallback,
                       .wscale = options->wscale,
                       .sack = options->sack_permitted,
                       .timestamps = options->timestamps};
    uint64_t flow_hash = flow_hash_of(cookies, flow);
    if (c.timestamps) {
        uint32_t now = tcp_ts_clock(now_us, ts_offset_of(flow_hash));
        uint32_t coded =
            (now & ~COOKIE_TS_MASK) | (options->ecn ? 32u : 0) | (uint32_t)c.wscale << 1 | (c.sack ? 1 : 0);
        /* Never ahead of the clock, or the connection's first timestamps would go backwards. */
        *ts_value = (int32_t)(coded - now) > 0 ? coded - (COOKIE_TS_MASK + 1) : coded;
    }
    return cookie_encode(cookies, 0, flow_hash, now_us / COOKIE_SLOT_US, irs, mss_class(c.mss), &c);
}

uint64_t cookie_expires_us(uint64_t opened_us)
{
    return (opened_us / COOKIE_SLOT_US + 2) * COOKIE_SLOT_US;
}

/* A cookie as it would be made today, of one kind or the other; with the secret in use or the one before. */
static enum cookie_verdict check_kind(const struct syn_cookies *cookies, uint64_t now_us, uint64_t flow_hash,
                                      uint32_t irs, uint32_t iss, const struct cookie *c)
{
    uint64_t now = now_us / COOKIE_SLOT_US;
    uint64_t age = (now - (iss >> 30)) & 3;
    enum cookie_verdict verdict = COOKIE_BAD;
    if (age > 1 || age > now)
        return COOKIE_BAD;
    for (int generation = 0; generation < 2; generation++) {
        uint32_t good = cookie_encode(cookies, generation, flow_hash, now - age, irs, iss >> 27 & 7, c);
        if (good == iss)
            return COOKIE_GOOD;
        if ((good ^ iss) >> mac_bits(c) == 0)
            verdict = COOKIE_EARLY;
    }
    return verdict;
}

static void decode(struct cookie *c, uint32_t coded)
{
    c->wscale = (uint8_t)(coded >> 1 & 15);
    c->sack = (coded & 1) != 0;
}

enum cookie_verdict cookie_check(const struct syn_cookies *cookies, uint64_t now_us, const struct tcp_flow *flow,
                                 const struct tcp_segment *segment, struct cookie *cookie)
{
    uint32_t iss = segment->ack - 1, irs = segment->seq - 1;
    uint64_t flow_hash = flow_hash_of(cookies, flow);
    struct cookie stamped = {.mss = mss_classes[iss >> 27 & 7],
                             .wscale = TCP_NO_WSCALE,
                             .timestamps = true,
                             .ts_offset = ts_offset_of(flow_hash)};
    struct cookie plain = stamped;
    plain.timestamps = false;
    decode(&plain, iss >> 22);
    bool stamps = segment->options.timestamps;
    if (stamps) {
        decode(&stamped, segment->options.ts_echo);
        stamped.ecn = (segment->options.ts_echo & 32) != 0;
    }
    /* The usual kind first. */
    const struct cookie *likely = stamps ? &stamped : &plain, *other = stamps ? &plain : &stamped;
    enum cookie_verdict verdict = check_kind(cookies, now_us, flow_hash, irs, iss, likely);
    *cookie = *likely;
    if (verdict == COOKIE_GOOD)
        return verdict;
    enum cookie_verdict second = check_kind(cookies, now_us, flow_hash, irs, iss, other);
    *cookie = *other;
    cookie->timestamps = false;
    return second == COOKIE_GOOD || verdict == COOKIE_BAD ? second : verdict;
}
