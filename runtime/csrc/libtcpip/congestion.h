/* Congestion control: one small interface, an algorithm chosen in the configuration. */
#ifndef SANDSTORM_CONGESTION_H
#define SANDSTORM_CONGESTION_H

#include <stdint.h>

struct stack;
struct tcb;

struct congestion_ops {
    const char *name;
    /* A loss: the new ssthresh, in bytes. cwnd is still what it was. */
    uint32_t (*lost)(struct stack *stack, struct tcb *tcb);
    /* Grows cwnd in congestion avoidance. */
    void (*acked)(struct stack *stack, struct tcb *tcb, uint32_t acked_bytes);
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

void congestion_init(struct stack *stack, struct tcb *tcb);
/* acked_bytes have newly arrived; flight: bytes in flight before. */
void congestion_acked(struct stack *stack, struct tcb *tcb, uint32_t acked_bytes, uint32_t flight);
/* Something is sent, and nothing was in flight. */
void congestion_flight_begins(struct stack *stack, struct tcb *tcb);
/* Sets ssthresh after a loss; cwnd is the caller's. */
void congestion_lost(struct stack *stack, struct tcb *tcb);

#endif
