#include "icmp.h"

#include "ip_reply.h"
#include "wire/checksum.h"

/* Linux finishes it whoever the sender is: nothing else is good, unless the port knows. */
static bool checksum_good(const struct packet *packet)
{
    uint64_t sum = checksum_sum(packet->payload, packet->payload_bytes);
    if (packet->family == IP_FAMILY_V6)
        sum += ip_pseudo_sum(packet, IP_PROTOCOL_ICMPV6, packet->payload_bytes);
    return checksum_fold(sum) == 0xffff;
}

static void echo_reply(struct tcpip *tcpip, const struct packet *packet, uint8_t protocol, uint8_t type)
{
    uint32_t ip_bytes = packet->family == IP_FAMILY_V4 ? sizeof(struct wire_ipv4) : sizeof(struct wire_ipv6);
    uint32_t headers = sizeof(struct wire_eth) + ip_bytes;
    /* We send no fragments: one that came in such may be too long to go back. */
    if (ETH_BUFFER_OFFSET + headers + packet->payload_bytes > tcpip->region->chunk_bytes ||
        ip_bytes + packet->payload_bytes > tcpip->config.mtu_bytes) {
        COUNT(tcpip, icmp_drop_short);
        return;
    }
    uint32_t chunk = eth_buffer(tcpip->eth);
    if (chunk == NMIO_NONE)
        return;
    uint8_t *frame = nmio_chunk(tcpip->region, chunk) + ETH_BUFFER_OFFSET;
    uint8_t *payload = ip_reply_headers(tcpip->eth, packet, frame, protocol, packet->payload_bytes);
    memcpy(payload, packet->payload, packet->payload_bytes);
    struct wire_icmp *icmp = (struct wire_icmp *)payload;
    icmp->type = type;
    icmp->checksum = 0;
    uint64_t sum = checksum_sum(payload, packet->payload_bytes);
    if (packet->family == IP_FAMILY_V6)
        sum += ip_pseudo_sum(packet, IP_PROTOCOL_ICMPV6, packet->payload_bytes);
    icmp->checksum = (uint16_t)~checksum_fold(sum);
    COUNT(tcpip, icmp_tx_echo_reply);
    eth_output(tcpip->eth, frame, headers + packet->payload_bytes, chunk);
}

static void echo_input(struct tcpip *tcpip, const struct packet *packet)
{
    COUNT(tcpip, icmp_rx_echo);
    if (!rate_limit_allows(&tcpip->limits, LIMIT_ECHO, tcpip->now_us))
        COUNT(tcpip, icmp_drop_limit);
    else if (packet->family == IP_FAMILY_V4)
        echo_reply(tcpip, packet, IP_PROTOCOL_ICMP, ICMP_ECHO_REPLY);
    else
        echo_reply(tcpip, packet, IP_PROTOCOL_ICMPV6, ICMPV6_ECHO_REPLY);
}

/* What is libeth's. */
static enum icmp_verdict link_message(uint8_t type)
{
    switch (type) {
    case ICMPV6_NEIGHBOUR_SOLICITATION:
    case ICMPV6_NEIGHBOUR_ADVERTISEMENT:
        return ICMP_NEIGHBOUR;
    case ICMPV6_MLD_QUERY:
        return ICMP_LISTENER_QUERY;
    default:
        return ICMP_DONE;
    }
}

enum icmp_verdict icmp_input(struct tcpip *tcpip, const struct packet *packet)
{
    const struct wire_icmp *icmp = (const struct wire_icmp *)packet->payload;
    bool v4 = packet->family == IP_FAMILY_V4;
    if (packet->payload_bytes < sizeof(*icmp)) {
        COUNT(tcpip, icmp_drop_short);
        return ICMP_DONE;
    }
    if ((packet->rx_flags & NMIO_RX_CHECKSUM_OK) == 0 && !checksum_good(packet)) {
        COUNT(tcpip, icmp_drop_checksum);
        return ICMP_DONE;
    }
    if (v4 ? icmp->type == ICMP_UNREACHABLE && icmp->code == ICMP_FRAGMENTATION_NEEDED
           : icmp->type == ICMPV6_PACKET_TOO_BIG)
        return ICMP_TOO_BIG;
    if (tcpip->eth->config.own_address && icmp->type == (v4 ? ICMP_ECHO_REQUEST : ICMPV6_ECHO_REQUEST) &&
        icmp->code == 0) {
        echo_input(tcpip, packet);
        return ICMP_DONE;
    }
    enum icmp_verdict verdict = tcpip->eth->config.own_address && !v4 ? link_message(icmp->type) : ICMP_DONE;
    if (verdict == ICMP_DONE)
        COUNT(tcpip, icmp_drop_type);
    return verdict;
}
