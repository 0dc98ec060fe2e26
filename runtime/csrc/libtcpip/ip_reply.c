#include "ip_reply.h"

#include "wire/checksum.h"

uint8_t *ip_reply_headers(const struct eth *eth, const struct packet *packet, uint8_t *frame, uint8_t protocol,
                          uint32_t payload_bytes)
{
    struct wire_eth *header = (struct wire_eth *)frame;
    const struct wire_eth *received = (const struct wire_eth *)packet->frame;
    eth_header(eth, header, received->source, be16(received->type));
    if (packet->family == IP_FAMILY_V4) {
        const struct wire_ipv4 *from = (const struct wire_ipv4 *)packet->ip;
        struct wire_ipv4 *ip = (struct wire_ipv4 *)(header + 1);
        *ip = (struct wire_ipv4){.version_ihl = 0x45,
                                 .total_bytes = be16((uint16_t)(sizeof(*ip) + payload_bytes)),
                                 .fragment = be16(IPV4_DONT_FRAGMENT),
                                 .ttl = IP_TTL,
                                 .protocol = protocol};
        memcpy(ip->source, from->destination, 4);
        memcpy(ip->destination, from->source, 4);
        ip->checksum = (uint16_t)~checksum_fold(checksum_sum(ip, sizeof(*ip)));
        return (uint8_t *)(ip + 1);
    }
    const struct wire_ipv6 *from = (const struct wire_ipv6 *)packet->ip;
    struct wire_ipv6 *ip = (struct wire_ipv6 *)(header + 1);
    *ip = (struct wire_ipv6){.version_class_flow = be32(0x60000000),
                             .payload_bytes = be16((uint16_t)payload_bytes),
                             .next_header = protocol,
                             .hop_limit = IP_TTL};
    memcpy(ip->source, eth->config.addresses[packet->local].bytes, 16);
    memcpy(ip->destination, from->source, 16);
    return (uint8_t *)(ip + 1);
}
