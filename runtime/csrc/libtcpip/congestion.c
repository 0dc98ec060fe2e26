/* How much may be in flight: NewReno (RFC 5681, RFC 6582). */
#include "tcp.h"

/* RFC 6928 section 2. */
void congestion_init(struct tcb *tcb)
{
    uint32_t mss = tcb->mss;
    uint32_t floor = mss * 2 > 14600 ? mss * 2 : 14600;
    tcb->cwnd = mss * 10 < floor ? mss * 10 : floor;
    tcb->ssthresh = UINT32_MAX;
}

void congestion_acked(struct tcb *tcb, uint32_t acked_bytes)
{
    /* A window that the sender does not fill proves nothing, RFC 7661: grow only when at least half was in use. */
    if (tcp_flight(tcb) + acked_bytes < tcb->cwnd / 2)
        return;
    if (tcb->cwnd < tcb->ssthresh) {
        tcb->cwnd += acked_bytes;
        return;
    }
    uint64_t grown = (uint64_t)tcb->mss * acked_bytes / tcb->cwnd;
    tcb->cwnd += grown > 0 ? (uint32_t)grown : 1;
}

void congestion_lost(struct tcb *tcb)
{
    uint32_t half = tcp_flight(tcb) / 2;
    uint32_t least = 2u * tcb->mss;
    tcb->ssthresh = half > least ? half : least;
}
