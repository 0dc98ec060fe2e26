#include "path_mtu_input.h"

#include "segment_size.h"
#include "wire/seq.h"

/* Our packet, as far as an ICMP error quotes it. */
struct quoted {
    struct tcp_flow flow;
    uint32_t seq;
    uint32_t mtu_bytes; /* that the message tells */
};

/* Reads the quoted headers: 8 bytes of TCP are always there, RFC 792. The packet must have been ours. */
static bool read_quoted(const struct tcpip *tcpip, const struct packet *packet, struct quoted *quoted)
{
    const struct wire_icmp *icmp = (const struct wire_icmp *)packet->payload;
    const uint8_t *at = packet->payload + sizeof(*icmp);
    uint32_t left = packet->payload_bytes - (uint32_t)sizeof(*icmp);
    const struct wire_tcp *tcp;
    *quoted = (struct quoted){.flow = {.local = packet->local, .family = packet->family}};
    int local;
    if (packet->family == IP_FAMILY_V4) {
        const struct wire_ipv4 *ip = (const struct wire_ipv4 *)at;
        uint32_t header_bytes = left >= sizeof(*ip) ? (ip->version_ihl & 15u) * 4 : 0;
        if (header_bytes < sizeof(*ip) || left < header_bytes + 8 || ip->protocol != IP_PROTOCOL_TCP)
            return false;
        local = eth_address_find(tcpip->eth, IP_FAMILY_V4, ip->source);
        memcpy(quoted->flow.peer, ip->destination, 4);
        tcp = (const struct wire_tcp *)(at + header_bytes);
        quoted->mtu_bytes = be32(icmp->rest) & 0xffff;
    } else {
        const struct wire_ipv6 *ip = (const struct wire_ipv6 *)at;
        if (left < sizeof(*ip) + 8 || ip->next_header != IP_PROTOCOL_TCP)
            return false;
        local = eth_address_find(tcpip->eth, IP_FAMILY_V6, ip->source);
        memcpy(quoted->flow.peer, ip->destination, 16);
        tcp = (const struct wire_tcp *)(ip + 1);
        quoted->mtu_bytes = be32(icmp->rest);
    }
    quoted->flow.peer_port = tcp->destination_port;
    quoted->seq = be32(tcp->seq);
    return local == packet->local && be16(tcp->source_port) == tcpip->config.tcp_port;
}

void path_mtu_input(struct tcpip *tcpip, const struct packet *packet)
{
    struct quoted quoted;
    if (!read_quoted(tcpip, packet, &quoted)) {
        COUNT(tcpip, pmtu_drop_not_ours);
        return;
    }
    struct tcb *tcb = tcb_find(&tcpip->connections, &quoted.flow, tcb_hash(&tcpip->connections, &quoted.flow));
    uint64_t position = tcb != NULL ? seq_unwrap(quoted.seq, tcb->snd_una) : 0;
    /* Who has not seen our packets does not know what is in flight, RFC 5927 section 4.1. */
    if (tcb == NULL || position < tcb->snd_una || position >= tcb->snd_nxt) {
        COUNT(tcpip, pmtu_drop_not_in_flight);
        return;
    }
    uint32_t least = path_mtu_min(quoted.flow.family);
    uint32_t mtu_bytes = quoted.mtu_bytes > least ? quoted.mtu_bytes : least;
    /* Another connection to the peer may have learned it before: then it is news to this one alone. */
    bool less = mtu_bytes < path_mtu_of(&tcpip->paths, tcpip->now_us, &quoted.flow, tcpip->config.mtu_bytes);
    if (less)
        path_mtu_remember(&tcpip->paths, tcpip->now_us, &quoted.flow, mtu_bytes);
    if (segment_size_shrink(tcpip, tcb, mtu_bytes, position) || less)
        COUNT(tcpip, pmtu_learned);
    else
        COUNT(tcpip, pmtu_drop_no_less);
}
