/* A connection from its beginning to its end, and what an application may do with it. */
#ifndef SANDSTORM_CONNECTION_H
#define SANDSTORM_CONNECTION_H

#include "state.h"

/* A connection whose cookie was good, in the table and with its timers set; NULL: there is no TCB left. segment: the first one behind
 * the SYN. */
struct tcb *connection_open(struct tcpip *tcpip, const struct packet *packet, const struct tcp_flow *flow,
                            uint64_t hash, const struct tcp_segment *segment, const struct cookie *cookie);
/* A connection whose segments are somebody else's business (carried.h). NULL: there is no TCB left. */
struct tcb *connection_carried(struct tcpip *tcpip, const struct tcp_flow *flow);
/* Gives all back that it has; the peer hears nothing. */
void connection_destroy(struct tcpip *tcpip, struct tcb *tcb);
/* A slice of its goes: nothing of it will be sent again. Most have nothing to be done then. */
void connection_slice_at_end(struct tcpip *tcpip, const struct tcb *tcb, const struct response_slice *slice);
static inline void connection_slice_end(struct tcpip *tcpip, const struct tcb *tcb,
                                        const struct response_slice *slice)
{
    if (slice->at_end != 0)
        connection_slice_at_end(tcpip, tcb, slice);
}
/* What comes of it late must not open it again. */
void connection_remember(struct tcpip *tcpip, const struct tcb *tcb, enum tcp_ended ended);
/* RST to the peer: what tcpip->reset is where we make the segments. */
void connection_reset(struct tcpip *tcpip, struct tcb *tcb);
/* RST to the peer, and gone. */
void connection_abort(struct tcpip *tcpip, struct tcb *tcb);
/* The peer has had its time: what the application has to say to that, and FIN. request_begun: there is an incomplete request. */
void connection_close_idle(struct tcpip *tcpip, struct tcb *tcb, bool request_begun);
/* The longest idle of some connections makes room for another. */
void connection_evict_idle(struct tcpip *tcpip);
/* The connection has a receive buffer afterwards; where there is none left, the one who has had one for longest goes: it is told so
 * and ended, or ends with the answers that are under way, or is reset where one of them is written in part. */
void connection_need_buffer(struct tcpip *tcpip, struct tcb *tcb);

/* For the application. */

/* Is there room for another slice? */
static inline bool tcpip_can_write(const struct tcb *tcb)
{
    return tcb->slice_count <= tcb->slice_mask && !tcb->fin_queued;
}
/* Queues a slice behind snd_end; its start and end are set here from len_bytes. tcpip_can_write must say so. */
void tcpip_write(struct tcpip *tcpip, struct tcb *tcb, const struct response_slice *slice, uint64_t len_bytes);
/* No more will be written; FIN goes out behind the last byte. */
void tcpip_finish(struct tcpip *tcpip, struct tcb *tcb);
/* The peer has said that it sends no more: who waits for its FIN behind ours may do without. */
static inline void tcpip_peer_done(struct tcb *tcb)
{
    tcb->peer_done = true;
}
/* A buffer for a response that is made on the spot (composed.h), or NMIO_NONE. It is the caller's until it is written or released. */
uint32_t tcpip_compose(struct tcpip *tcpip, const struct tcb *tcb);
/* An answer of many slices follows: room for more of them, if there is any. */
static inline void tcpip_expect_many(struct tcpip *tcpip, struct tcb *tcb)
{
    slice_ring_acquire(&tcpip->rings, tcb);
}

#endif
