#include "timeout.h"

#include "connection.h"
#include "output.h"
#include "recovery.h"
#include "wire/probe.h"

/* How long a connection may make no progress, by what it is about; and what is counted when it does not. */
static uint64_t silence_us(struct tcpip *tcpip, const struct tcb *tcb, uint64_t **counter)
{
    const struct tcpip_config *config = &tcpip->config;
    bool sending = tcb->snd_una < tcb->snd_end;
    if (tcb->state == TCP_FIN_WAIT_2) {
        *counter = &tcpip->counters.tcp_timeout_fin_wait;
        return TCP_FIN_WAIT_2_US;
    }
    if (sending || tcb->fin_queued || tcb->state != TCP_ESTABLISHED) {
        *counter = &tcpip->counters.tcp_timeout_send;
        return config->send_ms * 1000ull;
    }
    *counter = tcb->request_begun ? &tcpip->counters.tcp_timeout_request : &tcpip->counters.tcp_timeout_idle;
    return (tcb->request_begun ? config->request_ms : config->keep_alive_ms) * 1000ull;
}

/* Perhaps there has been no progress for too long. */
static void idle_timeout(struct tcpip *tcpip, struct tcb *tcb)
{
    uint64_t *counter;
    uint64_t until_us = tcb->progress_us + silence_us(tcpip, tcb, &counter);
    uint64_t check_us = tcpip->now_us + tcpip->idle_check_us; /* by then it may be about something else */
    if (until_us > tcpip->now_us) {
        tcb->idle_deadline_us = until_us < check_us ? until_us : check_us;
        timer_update(&tcpip->wheel, tcb);
        return;
    }
    PROBE(idle_timeout, tcb, tcb->state);
    ++*counter;
    if (counter == &tcpip->counters.tcp_timeout_send || counter == &tcpip->counters.tcp_timeout_fin_wait)
        connection_abort(tcpip, tcb);
    else
        connection_close_idle(tcpip, tcb, tcb->buffer != TCB_NONE);
}

/* The window is shut, or too small for a segment that is worth it: the peer is asked, or gets what fits, RFC 9293 sections
 * 3.8.6.1 and 3.8.6.2.1. */
static void persist_timeout(struct tcpip *tcpip, struct tcb *tcb)
{
    if (++tcb->retries > TCP_RETRIES_MAX) {
        COUNT(tcpip, tcp_timeout_retransmit);
        connection_abort(tcpip, tcb);
        return;
    }
    if (tcb->persist_backoff < TCP_PERSIST_BACKOFF_MAX)
        tcb->persist_backoff++;
    if (tcb->snd_wnd == 0)
        tcp_send_probe(tcpip, tcb);
    else
        tcb->persist_now = true;
    recovery_persist(tcpip, tcb);
    ready_mark(&tcpip->ready, tcb);
}

/* The timer of what is in flight. */
static void transmission_timeout(struct tcpip *tcpip, struct tcb *tcb)
{
    bool rto = tcb->timer_kind == TCP_TIMER_RTO;
    if (rto) {
        if (++tcb->retries > TCP_RETRIES_MAX) {
            COUNT(tcpip, tcp_timeout_retransmit);
            connection_abort(tcpip, tcb);
            return;
        }
        tcb->rto_us = tcb->rto_us * 2 > TCP_RTO_MAX_US ? TCP_RTO_MAX_US : tcb->rto_us * 2;
    }
    recovery_timeout(tcpip, tcb);
    /* A probe may have been put off to when the RTO was due: then that has had its turn. */
    recovery_arm(tcpip, tcb, rto || tcb->rto_at_us <= tcpip->now_us);
    ready_mark(&tcpip->ready, tcb);
}

void tcp_timeout(struct tcpip *tcpip, struct tcb *tcb)
{
    if (tcb->paced && tcb->pace_at_us <= tcpip->now_us) {
        tcb->paced = false;
        timer_update(&tcpip->wheel, tcb);
        ready_mark(&tcpip->ready, tcb);
    } else if (tcb->rto_deadline_us == 0 || tcb->rto_deadline_us > tcpip->now_us) {
        idle_timeout(tcpip, tcb);
    } else if (tcb->timer_kind == TCP_TIMER_PERSIST) {
        persist_timeout(tcpip, tcb);
    } else {
        transmission_timeout(tcpip, tcb);
    }
}
