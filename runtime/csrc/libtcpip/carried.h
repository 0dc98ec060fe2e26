/* Connections whose bytes somebody else carries: another TCP, as the kernel's (sockets/). What a connection is to its application is the
 * same: how requests that come in parts are kept, who makes room for whom, what silence is too long, when it ends and how long it
 * lingers. There are no segments: what has come is said here, what is to be sent lies in the queue of slices from snd_nxt on, and who
 * has something to send is in tcpip->ready. Connections begin with connection_carried and end with connection_destroy; timers
 * run with tcp_timeout. */
#ifndef SANDSTORM_CARRIED_H
#define SANDSTORM_CARRIED_H

#include "state.h"

/* How many bytes there is room for: no more may be given to carried_input. */
static inline uint32_t carried_room(const struct tcb *tcb)
{
    return tcb->fin_queued ? TCB_RECEIVE_BYTES : TCB_RECEIVE_BYTES - tcb->buffered_bytes;
}

/* What the peer sends next. False: the connection is gone. */
bool carried_input(struct tcpip *tcpip, struct tcb *tcb, const uint8_t *data, uint32_t len_bytes);
/* The peer sends no more. */
void carried_fin(struct tcpip *tcpip, struct tcb *tcb);
/* What has been written is out of our hands up to a position: it will never be asked for again. */
void carried_taken(struct tcpip *tcpip, struct tcb *tcb, uint64_t end);
/* And the end of it too: the peer has its time to close. */
void carried_finished(struct tcpip *tcpip, struct tcb *tcb);

#endif
