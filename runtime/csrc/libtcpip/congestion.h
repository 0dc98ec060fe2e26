/* Congestion control: one small interface, an algorithm chosen in the configuration. */
#ifndef SANDSTORM_CONGESTION_H
#define SANDSTORM_CONGESTION_H

#include "tcb.h"
#include "tcpip_config.h"

struct congestion {
    uint32_t algorithm; /* CONGESTION_* */
    bool pacing; /* windows go out spread over the round trip */
};

void congestion_init(struct tcb *tcb);
/* acked_bytes have newly arrived; flight: bytes in flight before. */
void congestion_acked(const struct congestion *congestion, struct tcb *tcb, uint32_t acked_bytes, uint32_t flight,
                      uint64_t now_us);
/* Something is sent, and nothing was in flight. */
void congestion_flight_begins(struct tcb *tcb, uint64_t now_us);
/* Sets ssthresh after a loss; cwnd is the caller's. */
void congestion_lost(const struct congestion *congestion, struct tcb *tcb);

/* Does congestion control look at a flight that begins? Not in slow start, if the one before was sent just now. */
static inline bool congestion_cares(const struct tcb *tcb, uint64_t now_us)
{
    return tcb->ssthresh != UINT32_MAX || now_us - tcb->last_sent_us > tcb->rto_us;
}

#endif
