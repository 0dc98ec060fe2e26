#include "segment_size.h"

#define BLACK_HOLE_FIRST 2 /* timeouts in a row until an MTU of 1280 is tried, as Linux's tcp_mtu_probing */
#define BLACK_HOLE_SECOND 4 /* and of 576, IPv4 */

/* Half of the largest window at most, as Linux has it, or a peer with a tiny buffer would get one segment at a time and sit
 * on its ACK. */
void segment_size_set(struct tcb *tcb)
{
    uint32_t bound = tcb->snd_wnd_max > TCP_MSS_DEFAULT_IPV4 ? tcb->snd_wnd_max / 2 : tcb->snd_wnd_max;
    bound = bound > TCP_MSS_MIN ? bound : TCP_MSS_MIN;
    tcb->snd_mss = (uint16_t)(tcb->mss < bound ? tcb->mss : bound);
}

/* The window stays: it was not congestion (RFC 1191 section 6.5). */
bool segment_size_shrink(struct tcpip *tcpip, struct tcb *tcb, uint32_t mtu_bytes, uint64_t from)
{
    uint32_t mss =
        mtu_bytes - tcb->ip_bytes - (uint32_t)sizeof(struct wire_tcp) - (tcb->timestamps ? TCP_TIMESTAMPS_BYTES : 0);
    if (mss >= tcb->mss)
        return false;
    tcb->mss = (uint16_t)mss;
    segment_size_set(tcb);
    scoreboard_lose(&tcpip->overflow, tcb, (uint32_t)from, (uint32_t)tcb->snd_nxt);
    tcb->dupacks = 0; /* they were for what is now taken for lost: none of it counts as in flight */
    tcb->rtt_end = 0;
    ready_mark(&tcpip->ready, tcb);
    return true;
}

void segment_size_interface(struct tcpip *tcpip)
{
    for (uint32_t i = 0; i < tcpip->connections.touched; i++) {
        struct tcb *tcb = &tcpip->connections.tcbs[i];
        if (tcb->state != 0)
            segment_size_shrink(tcpip, tcb, tcpip->config.mtu_bytes, tcb->snd_una);
    }
}

void segment_size_black_hole(struct tcpip *tcpip, struct tcb *tcb)
{
    uint32_t mtu_bytes = PATH_MTU_MIN_IPV6;
    if (tcb->retries < BLACK_HOLE_FIRST)
        return;
    if (tcb->retries >= BLACK_HOLE_SECOND)
        mtu_bytes = path_mtu_min(tcb->flow.family);
    if (segment_size_shrink(tcpip, tcb, mtu_bytes, tcb->snd_una))
        COUNT(tcpip, pmtu_black_holes);
}
