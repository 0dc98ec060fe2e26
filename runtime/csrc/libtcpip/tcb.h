/* The transmission control block and its table. RFC 9293's names are kept; positions (snd_una, snd_nxt, ...) are
 * 64-bit counts whose low half is the sequence number (seq.h). */
#ifndef SANDSTORM_TCB_H
#define SANDSTORM_TCB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/probe.h"
#include "wire/wire.h"

#define TCB_NONE 0xffffffff
#define TCB_SLICES 4 /* responses queued in a connection (a power of two); more wait as unread requests */
#define TCB_RANGES 24 /* of the scoreboard in a TCB, */
#define SCOREBOARD_RANGES 1024 /* and in an overflow scoreboard */
#define TCB_HEADER_BYTES 64 /* up to the ports in an IPv6 packet */
#define TCB_TURN_BYTES 32768 /* a connection sends in its turn; what begins within it is sent whole, */
#define TCB_SEND_BYTES_MAX 65536 /* at most so much */
#define TCB_RECEIVE_BYTES 16384 /* unread bytes a connection may hold: the window we advertise */

/* RFC 9293 section 3.3.2, without those that need no TCB here: LISTEN, SYN-RECEIVED (cookies), TIME-WAIT (a table of
 * its own) and CLOSED. */
enum tcp_state {
    TCP_ESTABLISHED = 1,
    TCP_CLOSE_WAIT,
    TCP_FIN_WAIT_1,
    TCP_FIN_WAIT_2,
    TCP_CLOSING,
    TCP_LAST_ACK,
};

enum tcp_timer_kind { TCP_TIMER_RTO, TCP_TIMER_REORDER, TCP_TIMER_PROBE, TCP_TIMER_PERSIST };

/* Sequence numbers [start, end). */
struct seq_range {
    uint32_t start, end;
};

/* What is in flight, scoreboard.h: bytes that were sent at about the same time and share a state. */
#define RANGE_SACKED 1 /* the peer has it, RFC 2018 */
#define RANGE_LOST 2 /* to be sent again */
#define RANGE_RESENT 4 /* has been sent again */

struct sent_range {
    uint32_t start, end; /* [start, end) */
    uint32_t first_us, last_us; /* when the sending of it began and ended */
    uint32_t flags;
};

/* When something was sent. */
struct sending {
    uint32_t sent_us;
    uint32_t end;
    bool resent;
};

/* RFC 9438's variables; windows in bytes. */
struct cubic {
    double w_max, w_est, k, fraction;
    uint64_t epoch_us; /* 0: a new epoch begins with the next ACK */
    uint64_t counted_us; /* up to when time has been counted as growth */
};

/* RFC 9406's: round trips in slow start. */
struct hystart {
    uint64_t round_end;
    uint32_t round_min_us, last_min_us, css_baseline_us;
    uint32_t samples, css_rounds;
};

/* Addresses of a connection, as they are compared and hashed. */
struct tcp_flow {
    uint8_t peer[16]; /* network order; IPv4 in the first four, then zeros */
    uint16_t peer_port; /* network order */
    uint8_t local; /* index of our address */
    uint8_t family; /* SSI_FAMILY_* */
    uint32_t zero; /* so that it is hashed as whole words */
};
#define TCP_FLOW_WORDS 3 /* of 64 bits */
_Static_assert(sizeof(struct tcp_flow) == 8 * TCP_FLOW_WORDS, "a flow is hashed and compared as whole words");

/* A response, or a slice of one, in the stream of a connection: [start, end) are the positions of its bytes. All that
 * is needed to send any of them again, the same. */
struct response_slice {
    uint64_t start, end;
    uint64_t skip; /* bytes of the response in front of a slice's first; such a slice is not patched */
    uint32_t first_frame; /* the response's, or the buffer */
    uint32_t at_end : 24; /* what is to be done when it goes: SLICE_*; 0: nothing */
    uint32_t generation : 8; /* the place of the one that the frames are of (frames/generation.h) */
    uint64_t app[4]; /* the application's own, for its patch */
};
#define SLICE_APP_BYTES sizeof(((struct response_slice *)0)->app)
#define SLICE_COMPOSED 1u /* it lies in a buffer, which is given back (composed.h) */
#define SLICE_FOLLOWED 2u /* the application is told (app.h), with its number, which is in the bits above */
#define SLICE_NUMBER_SHIFT 2
#define SLICE_NUMBERS_MAX 0x400000

/* It is followed too, by a number below SLICE_NUMBERS_MAX. */
static inline void slice_follow(struct response_slice *slice, uint32_t number)
{
    slice->at_end = (slice->at_end | SLICE_FOLLOWED | number << SLICE_NUMBER_SHIFT) & 0xffffff;
}

/* What most segments touch comes first, line by line (TCB_HOT_BYTES); what only loss or a second answer needs is behind. */
struct tcb {
    struct tcp_flow flow;
    uint32_t table_hash;
    uint32_t ready_next;
    uint8_t state; /* enum tcp_state */
    uint8_t ip_bytes; /* of our header: 20 or 40 */
    uint8_t snd_wscale;
    bool timestamps, sack, ecn;
    uint8_t ecn_flags; /* TCP_ECE and TCP_CWR, as they are to be sent */
    bool ect; /* the header says ECT(0) */
    bool ack_now; /* the peer is owed an ACK */
    bool fin_queued; /* no more will be written: FIN follows snd_end */
    bool fin_received;
    bool peer_done; /* the application knows that the peer will send no more, though its FIN has not come */
    bool ready; /* in the FIFO of those that may have something to send */
    bool in_recovery; /* until recover is acknowledged */
    bool in_loss; /* and it began with a timeout */
    bool request_begun; /* progress_us is when a request began, and it is not whole */
    uint8_t retries; /* timeouts since the last progress */
    uint8_t persist_backoff; /* persist timeouts since something was sent */
    uint8_t dupacks;
    uint8_t timer_kind; /* enum tcp_timer_kind: what rto_deadline_us stands for */
    bool tlp_resent, tlp_now; /* the probe sends old data; it is to go out whatever cwnd says */
    bool persist_now; /* the persist timer lets a segment go however small */
    bool undo; /* the Eifel response is possible */
    bool reordering;
    uint8_t slice_first, slice_count, slice_mask; /* of the ring slices */
    uint16_t mss; /* payload of the largest segment to send: the peer's and the path's, options taken off, and never
                         * more than the image's segments hold */
    uint16_t snd_mss; /* mss, or less where the peer's window is small */
    uint16_t range_count, range_capacity;
    bool ranges_packed; /* no two neighbours share a state */
    uint16_t lost_first; /* no range before it is lost */
    uint32_t overflow; /* an overflow scoreboard of the pool, or TCB_NONE */
    uint32_t slice_ring; /* likewise, slice_ring.h */
    struct response_slice *slices; /* few_slices, or the ring's */

    uint64_t snd_una, snd_nxt; /* oldest unacknowledged, next to send for the first time */
    uint64_t snd_end; /* end of what was written */
    uint32_t snd_wnd, snd_wnd_max, snd_wl1, snd_wl2;
    uint32_t rcv_nxt;
    uint32_t ts_recent, ts_offset;
    uint32_t last_ack_sent;
    uint32_t cwnd, ssthresh; /* bytes */
    uint64_t last_sent_us; /* when new data was sent last */
    uint64_t rtt_end; /* the segment being timed ends here; 0: none */
    uint64_t rtt_sent_us;
    uint32_t srtt_us, rttvar_us, rto_us, min_rtt_us;
    uint32_t buffer; /* of unread bytes, receive_buffer.h, or TCB_NONE */
    uint32_t buffered_bytes; /* in it */
    uint64_t app; /* the application's own */
    uint32_t sacked_bytes, lost_bytes; /* of what is in flight: held by the peer, and to be sent again */
    struct sent_range *ranges; /* few_ranges, or the overflow scoreboard's */

    uint64_t rto_at_us; /* retransmission timeout; 0: not running */
    uint64_t rto_deadline_us; /* 0: not running */
    uint64_t idle_deadline_us; /* when progress_us is to be looked at */
    uint64_t progress_us; /* when a request or its answer went on last */
    uint64_t pace_at_us; /* nothing is sent before */
    uint64_t timer_at_us; /* where the wheel holds us; may be earlier than needed */
    uint32_t timer_next, timer_previous, timer_bucket;
    uint32_t reorder_wait_us; /* until the next range may be taken for lost; 0: none waits */
    bool paced; /* something waits for pace_at_us */
    int32_t turn_bytes; /* that may go before it is the turn of the next in the FIFO */

    /* RACK, RFC 8985 section 5: of the segment sent last among those that arrived. */
    struct sending rack;
    uint32_t rack_rtt_us, rack_fack;
    uint32_t prr_delivered, prr_out, prr_flight; /* RFC 6937 */
    uint64_t recover; /* recovery ends when this is acknowledged */
    uint64_t tlp_end; /* a probe is out up to here; 0: none */
    /* Ethernet, IP and TCP ports as every segment of ours begins; the peer's MAC is the last one seen. */
    uint8_t header[TCB_HEADER_BYTES];
    uint64_t pseudo_sum; /* of addresses and protocol */
    uint64_t ip_sum; /* of the IPv4 header's constant part */
    struct hystart hystart;

    struct cubic cubic;
    uint64_t challenge_after_us; /* no challenge ACK before */
    uint64_t dsack_round_end; /* one step a round trip */
    uint32_t irs;
    struct seq_range dsack; /* what has come twice and the peer is to hear of, RFC 2883; empty: nothing */
    uint64_t ecn_end; /* what was sent before has been answered for by a reduction */
    uint32_t unread_bytes; /* that came when nothing more was read */
    uint32_t opened_s; /* when, in the stack's time */
    uint32_t resent_segments;
    uint32_t undo_cwnd, undo_ssthresh, undo_ts;
    uint8_t reorder_steps; /* quarters of the RTT beyond the first that reordering has needed */
    uint8_t reorder_persist; /* recoveries until they are forgotten */

    /* From here on nothing is cleared for a new connection. */
    struct response_slice few_slices[TCB_SLICES] __attribute__((aligned(64)));
    struct sent_range few_ranges[TCB_RANGES];
} __attribute__((aligned(64)));
#define TCB_CLEARED_BYTES offsetof(struct tcb, few_slices)
#define TCB_HOT_BYTES offsetof(struct tcb, cubic)

/* Brings the part of a TCB that most segments touch into the cache. Always inline: see arena_prefetch. */
__attribute__((always_inline)) static inline void tcb_prefetch(const struct tcb *tcb)
{
    for (uint32_t at = 0; at < TCB_HOT_BYTES; at += 64)
        __builtin_prefetch((const uint8_t *)tcb + at, 1);
    __builtin_prefetch(tcb->few_slices, 1);
    __builtin_prefetch(tcb->few_ranges, 1);
}

/* The slice that is number i in the queue. */
static inline struct response_slice *tcb_slice(const struct tcb *tcb, uint32_t i)
{
    return &tcb->slices[(tcb->slice_first + i) & tcb->slice_mask];
}

/* The ring is that of the TCB, and empty. */
static inline void tcb_few_slices(struct tcb *tcb)
{
    tcb->slices = tcb->few_slices;
    tcb->slice_first = 0;
    tcb->slice_mask = TCB_SLICES - 1;
    tcb->slice_ring = TCB_NONE;
}

static inline void tcp_state_set(struct tcb *tcb, enum tcp_state state)
{
    PROBE(tcp_state, tcb, tcb->state, state);
    tcb->state = (uint8_t)state;
}

/* Bytes in flight, whatever has become of them. */
static inline uint32_t tcp_flight(const struct tcb *tcb)
{
    return (uint32_t)(tcb->snd_nxt - tcb->snd_una);
}

#endif
