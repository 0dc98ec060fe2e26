#include "input.h"

#include "connection.h"
#include "fsm.h"
#include "tcp_reply.h"
#include "wire/seq.h"

#define QUIET_MS 500 /* as Linux's sysctl tcp_invalid_ratelimit */

/* A SYN that can't be the old connection's, by its sequence number or its timestamp, RFC 6191 section 2; after a reset any but
 * its own. The entry stays until the handshake is done, as anybody can send a SYN in another's name. */
static bool begins_another(const struct tcp_segment *segment, const struct time_wait *wait)
{
    if (wait->ended == ENDED_BY_RESET)
        return segment->seq != wait->irs;
    bool timestamps = wait->timestamps && segment->options.timestamps;
    if (timestamps && segment->options.ts_value != wait->ts_recent)
        return seq_lt(wait->ts_recent, segment->options.ts_value);
    return seq_lt(wait->rcv_nxt, segment->seq);
}

/* A segment in TIME-WAIT, as Linux has it: what is not exactly the peer's last ACK again is answered, and the wait begins
 * again. Of bare segments one in QUIET_MS is, or two stacks could answer each other for ever. */
static void time_wait_input(struct tcpip *tcpip, const struct packet *packet, const struct tcp_segment *segment,
                            struct time_wait *wait)
{
    uint32_t now_ms = (uint32_t)(tcpip->now_us / 1000);
    bool bare = tcp_is_bare(segment);
    if ((segment->flags & TCP_ACK) != 0)
        time_wait_restart(wait, tcpip->now_us);
    if (bare && (segment->seq == wait->rcv_nxt || seq_lt(now_ms, wait->quiet_until_ms)))
        return;
    if (bare)
        wait->quiet_until_ms = now_ms + QUIET_MS;
    tcp_reply_time_wait(tcpip, packet, wait);
}

/* What comes of a connection that has ended. */
static void ended_input(struct tcpip *tcpip, const struct packet *packet, const struct tcp_segment *segment,
                        struct time_wait *wait)
{
    COUNT(tcpip, tcp_rx_late);
    if (wait->ended == ENDED_BY_US)
        time_wait_input(tcpip, packet, segment, wait);
    else if (wait->ended == ENDED_BY_RESET)
        tcp_reply_rst(tcpip, packet, segment);
    else if (!tcp_is_bare(segment))
        tcp_reply_time_wait(tcpip, packet, wait);
}

/* Does a segment without SYN belong to the connection that has ended? It does if its good cookie is that one's, as no other
 * begins with the same sequence number, or an earlier one's; one that has overtaken the first of another lies elsewhere. */
static bool is_late(const struct tcp_segment *segment, const struct time_wait *wait, enum cookie_verdict verdict)
{
    uint32_t there = segment->seq - wait->irs, had = wait->rcv_nxt - wait->irs;
    if (verdict == COOKIE_GOOD)
        return there == 1 || !begins_another(segment, wait);
    return verdict == COOKIE_BAD || there <= had + TCB_RECEIVE_BYTES;
}

/* RFC 9293 section 3.10.7.4: a reset ends TIME-WAIT, if it is exact as RFC 5961 asks. RFC 1337 would have it ignored; but
 * so says a client that knows nothing of the connection and wants the port for another, and else it were kept out. */
static void time_wait_reset(struct tcpip *tcpip, uint64_t hash, const struct tcp_segment *segment)
{
    struct time_wait *wait = time_wait_find(&tcpip->time_waits, tcpip->now_us, hash);
    if (wait != NULL && segment->seq == wait->rcv_nxt)
        wait->ended = ENDED_BY_RESET; /* and still remembered: a reset can be repeated too */
}

static void syn_input(struct tcpip *tcpip, const struct packet *packet, const struct tcp_flow *flow,
                      struct tcp_segment *segment)
{
    const uint8_t setup = TCP_ECE | TCP_CWR;
    COUNT(tcpip, tcp_rx_syn);
    /* Only the timestamp has room to remember it by. */
    segment->options.ecn = segment->options.timestamps && (segment->flags & setup) == setup;
    if (tcpip->draining)
        COUNT(tcpip, tcp_drop_draining);
    else
        tcp_reply_syn_ack(tcpip, packet, flow, segment);
}

/* A segment that may open a connection, by the cookie that it acknowledges. wait: what is remembered of its flow, or NULL. */
static void first_segment(struct tcpip *tcpip, const struct packet *packet, const struct tcp_flow *flow,
                          uint64_t hash, struct tcp_segment *segment, struct time_wait *wait)
{
    struct cookie cookie;
    enum cookie_verdict verdict = COOKIE_BAD;
    if ((segment->flags & TCP_SYN) == 0)
        verdict = cookie_check(&tcpip->cookies, tcpip->now_us, flow, segment, &cookie);
    if (wait != NULL && is_late(segment, wait, verdict)) {
        ended_input(tcpip, packet, segment, wait);
        return;
    }
    if (verdict == COOKIE_EARLY) {
        COUNT(tcpip, tcp_drop_cookie_early);
        return;
    }
    if (verdict == COOKIE_BAD) {
        COUNT(tcpip, tcp_drop_cookie);
        tcp_reply_rst(tcpip, packet, segment);
        return;
    }
    struct tcb *tcb = connection_open(tcpip, packet, flow, hash, segment, &cookie);
    if (tcb == NULL) {
        /* Dropped, not refused: the peer sends again, and the cookie is still good when there is room. */
        COUNT(tcpip, tcp_drop_pool_full);
        return;
    }
    if (wait != NULL)
        wait->expires_us = 0; /* or what follows would be taken for the old one's */
    segment_arrives(tcpip, tcb, packet, segment);
}

/* A segment for which there is no TCB. */
static void stateless_input(struct tcpip *tcpip, const struct packet *packet, const struct tcp_flow *flow,
                            uint64_t hash, struct tcp_segment *segment)
{
    if ((segment->flags & TCP_RST) != 0)
        time_wait_reset(tcpip, hash, segment);
    if ((segment->flags & TCP_RST) != 0 || (segment->flags & (TCP_SYN | TCP_ACK)) == 0) {
        COUNT(tcpip, tcp_drop_no_connection);
        return;
    }
    struct time_wait *wait = time_wait_find(&tcpip->time_waits, tcpip->now_us, hash);
    if ((segment->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN) {
        if (wait != NULL && !begins_another(segment, wait))
            ended_input(tcpip, packet, segment, wait);
        else
            syn_input(tcpip, packet, flow, segment);
        return;
    }
    first_segment(tcpip, packet, flow, hash, segment, wait);
}

void tcp_input(struct tcpip *tcpip, const struct packet *packet)
{
    struct tcp_segment segment;
    COUNT(tcpip, tcp_rx_segments);
    if (!segment_parse(packet, &segment)) {
        COUNT(tcpip, tcp_drop_short);
        return;
    }
    if (!segment_checksum_good(packet)) {
        COUNT(tcpip, tcp_drop_checksum);
        return;
    }
    const struct wire_tcp *tcp = (const struct wire_tcp *)packet->payload;
    if (be16(tcp->destination_port) != tcpip->config.tcp_port) {
        COUNT(tcpip, tcp_drop_port);
        if (tcpip->eth->config.own_address && (segment.flags & TCP_RST) == 0)
            tcp_reply_rst(tcpip, packet, &segment);
        return;
    }
    uint8_t both = TCP_SYN | TCP_FIN;
    if ((segment.flags & both) == both) {
        COUNT(tcpip, tcp_drop_flags);
        return;
    }
    struct tcp_flow flow = segment_flow(packet);
    uint64_t hash = tcb_hash(&tcpip->connections, &flow);
    struct tcb *tcb = tcb_find(&tcpip->connections, &flow, hash);
    if (tcb != NULL)
        segment_arrives(tcpip, tcb, packet, &segment);
    else
        stateless_input(tcpip, packet, &flow, hash, &segment);
}
