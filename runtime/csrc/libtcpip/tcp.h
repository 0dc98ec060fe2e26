/* What TCP's files share. */
#ifndef SANDSTORM_TCP_H
#define SANDSTORM_TCP_H

#include "stack_internal.h"
#include "wire/probe.h"
#include "wire/wire.h"

#define TCP_MSS_DEFAULT_IPV4 536  /* RFC 9293 section 3.7.1 */
#define TCP_MSS_DEFAULT_IPV6 1220
#define TCP_MSS_MIN 88            /* RFC 791's least IPv4 datagram, 68, leaves less; Linux's least is 88 too */
#define TCP_TIMESTAMPS_BYTES 12
#define TCP_RTO_INITIAL_US 1000000 /* RFC 6298 section 2 */
#define TCP_RTO_MIN_US 200000      /* as Linux */
#define TCP_RTO_MAX_US 60000000    /* RFC 6298 section 2.5 */
#define TCP_RETRIES_MAX 10
#define TCP_PERSIST_BACKOFF_MAX 9  /* doublings of the least RTO until it is the largest */
#define TCP_FIN_WAIT_2_US 60000000 /* as Linux's sysctl tcp_fin_timeout */
/* What a peer may still send when it is answered and nothing more is read; a reset then. A reset at once would take the answer
 * away from it, RFC 9112 section 9.6. */
#define TCP_LINGER_BYTES (8u << 20)
#define TCP_DUPACKS 3 /* RFC 5681 section 3.2 */

struct tcp_options {
    uint16_t mss; /* 0: not given */
    uint8_t wscale; /* COOKIE_NO_WSCALE: not given */
    bool sack_permitted;
    bool ecn; /* it is an ECN-setup SYN, RFC 3168 section 6.1.1 */
    bool timestamps;
    uint32_t ts_value, ts_echo;
    uint32_t sack_count;
    uint32_t sacks[4][2]; /* [start, end) */
};

/* A received segment, in host byte order. */
struct tcp_segment {
    uint32_t seq, ack;
    uint32_t window; /* as sent, not scaled */
    uint8_t flags;
    uint8_t *data;
    uint32_t data_bytes;
    struct tcp_options options;
};

/* Nothing but an ACK, or a reset. */
static inline bool tcp_is_bare(const struct tcp_segment *segment)
{
    return segment->data_bytes == 0 && (segment->flags & (TCP_SYN | TCP_FIN)) == 0;
}

/* cookie.c: all that a connection needs, kept in the SYN-ACK's sequence number and timestamp. */
#define COOKIE_NO_WSCALE 15
struct cookie {
    uint16_t mss;
    uint8_t wscale; /* or COOKIE_NO_WSCALE */
    bool sack;
    bool ecn;
    bool timestamps;
    uint32_t ts_offset; /* our timestamps of the flow start from here, so that they tell nothing of our uptime */
};
uint32_t cookie_salt(const uint8_t *secret);
uint32_t cookie_make(const struct stack *stack, const struct tcp_flow *flow, uint32_t irs,
                     const struct tcp_options *options, uint32_t *ts_value);
enum cookie_verdict {
    COOKIE_BAD,
    COOKIE_EARLY, /* of a peer that has our SYN-ACK, but not the first segment behind it */
    COOKIE_GOOD,
};
/* When the cookie of a connection that was opened at a time is no longer good, at the latest. */
uint64_t cookie_expires_us(uint64_t opened_us);
enum cookie_verdict cookie_check(const struct stack *stack, const struct tcp_flow *flow,
                                 const struct tcp_segment *segment, struct cookie *cookie);

/* Has a segment come as it was sent, by its checksum or by what the port says? */
bool tcp_checksum_good(const struct packet *packet);

static inline uint32_t tcp_ts_clock(const struct stack *stack, uint32_t ts_offset)
{
    return (uint32_t)(stack->now_us / 1000) + ts_offset; /* a tick a millisecond, RFC 7323 section 5.4 */
}

/* The ECN field of a received packet. */
static inline uint8_t ip_ecn(const struct packet *packet)
{
    return packet->family == SSI_FAMILY_IPV4 ? packet->ip[1] & 3 : packet->ip[1] >> 4 & 3;
}

/* fsm.c */
static inline void tcp_state_set(struct tcb *tcb, enum tcp_state state)
{
    PROBE(tcp_state, tcb, tcb->state, state);
    tcb->state = (uint8_t)state;
}

void tcpip_fsm(struct stack *stack, struct tcb *tcb, const struct packet *packet, struct tcp_segment *segment);
void tcp_abort(struct stack *stack, struct tcb *tcb); /* RST to the peer, and gone */
void tcp_evict_idle(struct stack *stack); /* the longest idle of some connections makes room for another */
/* Fills in what does not come from the cookie itself: headers, windows, timers. mss: the peer's. */
void tcp_connection_start(struct stack *stack, struct tcb *tcb, const struct packet *packet, uint16_t mss,
                          const struct tcp_segment *segment);

/* output.c */
void tcp_snd_mss_set(struct tcb *tcb); /* when mss or snd_wnd_max have changed */
void tcp_send_ack(struct stack *stack, struct tcb *tcb);
void tcp_send_probe(struct stack *stack, struct tcb *tcb);
void tcp_send_rst(struct stack *stack, struct tcb *tcb);

/* reply.c: segments that belong to no connection */
void tcp_reply(struct stack *stack, const struct packet *packet, const struct wire_tcp *headers,
               const uint8_t *options, uint32_t options_bytes);
void tcp_reply_rst(struct stack *stack, const struct packet *packet, const struct tcp_segment *segment);
void tcp_reply_syn_ack(struct stack *stack, const struct packet *packet, const struct tcp_flow *flow,
                       const struct tcp_segment *segment);
void tcp_reply_time_wait(struct stack *stack, const struct packet *packet, const struct time_wait *wait);

/* recovery.c: what to send again and when */
void recovery_ack(struct stack *stack, struct tcb *tcb, const struct tcp_segment *segment, uint64_t ack,
                  bool repeated);
void recovery_timeout(struct stack *stack, struct tcb *tcb);
void recovery_rtt_sample(struct tcb *tcb, uint64_t rtt_us);
void recovery_rtt_guess(struct tcb *tcb, uint64_t rtt_us); /* an upper bound, before any sample */
uint32_t recovery_pipe(const struct tcb *tcb);
void recovery_arm(struct stack *stack, struct tcb *tcb, bool restart);
void recovery_rearm(struct stack *stack, struct tcb *tcb); /* after an ACK without progress */
void recovery_persist(struct stack *stack, struct tcb *tcb); /* starts the persist timer */
void recovery_disarm(struct tcb *tcb);

static inline uint32_t tcp_flight(const struct tcb *tcb)
{
    return (uint32_t)(tcb->snd_nxt - tcb->snd_una);
}

/* Does congestion control look at a flight that begins? Not in slow start, if the one before was sent just now. */
static inline bool congestion_cares(const struct stack *stack, const struct tcb *tcb)
{
    return tcb->ssthresh != UINT32_MAX || stack->now_us - tcb->last_sent_us > tcb->rto_us;
}

#endif
