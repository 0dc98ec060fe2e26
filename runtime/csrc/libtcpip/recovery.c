/* What to send again and when: RTO (RFC 6298), fast retransmit and recovery (RFC 5681, RFC 6582). Nothing is kept
 * for it but positions, since every byte can be made again from the image. */
#include "tcp.h"

void recovery_rtt_sample(struct tcb *tcb, uint64_t rtt_us)
{
    uint32_t rtt = rtt_us > TCP_RTO_MAX_US ? TCP_RTO_MAX_US : (uint32_t)rtt_us;
    if (tcb->srtt_us == 0) {
        tcb->srtt_us = rtt > 0 ? rtt : 1;
        tcb->rttvar_us = rtt / 2;
    } else {
        uint32_t error = rtt > tcb->srtt_us ? rtt - tcb->srtt_us : tcb->srtt_us - rtt;
        tcb->rttvar_us = tcb->rttvar_us - tcb->rttvar_us / 4 + error / 4;
        tcb->srtt_us = tcb->srtt_us - tcb->srtt_us / 8 + rtt / 8;
    }
    uint64_t rto = (uint64_t)tcb->srtt_us + 4ull * tcb->rttvar_us;
    rto = rto < TCP_RTO_MIN_US ? TCP_RTO_MIN_US : rto;
    tcb->rto_us = rto > TCP_RTO_MAX_US ? TCP_RTO_MAX_US : (uint32_t)rto;
}

static void leave_recovery(struct tcb *tcb)
{
    uint32_t flight = tcp_flight(tcb) + tcb->mss;
    tcb->in_recovery = false;
    tcb->cwnd = tcb->ssthresh < flight ? tcb->ssthresh : flight;
    if (tcb->cwnd < 2u * tcb->mss)
        tcb->cwnd = 2u * tcb->mss;
}

/* snd_una has just moved to ack. */
void recovery_acked(struct stack *stack, struct tcb *tcb, uint64_t ack, uint32_t acked_bytes)
{
    tcb->dupacks = 0;
    tcb->retries = 0;
    if (tcb->rtt_end != 0 && ack >= tcb->rtt_end) {
        recovery_rtt_sample(tcb, stack->now_us - tcb->rtt_sent_us);
        tcb->rtt_end = 0;
    }
    if (!tcb->in_recovery) {
        congestion_acked(tcb, acked_bytes);
        return;
    }
    if (ack >= tcb->recover) {
        leave_recovery(tcb);
        return;
    }
    /* A partial ACK: the next hole begins at snd_una, RFC 6582 section 3.2 step 3. */
    tcb->retransmit_una = true;
    tcb->cwnd = tcb->cwnd > acked_bytes ? tcb->cwnd - acked_bytes : 0;
    tcb->cwnd += tcb->mss;
}

void recovery_duplicate(struct stack *stack, struct tcb *tcb)
{
    if (tcb->dupacks < UINT8_MAX)
        tcb->dupacks++;
    if (tcb->in_recovery) {
        tcb->cwnd += tcb->mss;
        return;
    }
    if (tcb->dupacks < TCP_DUPACKS || tcb->snd_una < tcb->recover)
        return;
    COUNT(stack, tcp_retransmit_fast);
    congestion_lost(tcb);
    tcb->in_recovery = true;
    tcb->recover = tcb->snd_max;
    tcb->retransmit_una = true;
    tcb->rtt_end = 0; /* Karn's algorithm */
    tcb->cwnd = tcb->ssthresh + TCP_DUPACKS * tcb->mss;
}

void recovery_timeout(struct stack *stack, struct tcb *tcb)
{
    COUNT(stack, tcp_retransmit_timeout);
    if (tcb->retries == 1)
        congestion_lost(tcb);
    tcb->cwnd = tcb->mss;
    tcb->in_recovery = false;
    tcb->dupacks = 0;
    tcb->recover = tcb->snd_max;
    tcb->rtt_end = 0;
    tcb->snd_nxt = tcb->snd_una;
}
