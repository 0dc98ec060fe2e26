#include "neighbour_frame.h"

#include "wire/checksum.h"
#include "wire/wire.h"

const uint8_t nd_all_nodes[16] = {0xff, 0x02, [15] = 1};
const uint8_t nd_solicited_node_prefix[13] = {0xff, 0x02, [11] = 1, [12] = 0xff};

bool arp_output(struct eth *eth, const struct arp_message *message)
{
    uint32_t chunk = eth_buffer(eth);
    if (chunk == NMIO_NONE)
        return false;
    uint8_t *frame = nmio_chunk(eth->region, chunk) + ETH_BUFFER_OFFSET;
    eth_header(eth, (struct wire_eth *)frame, message->to_mac, ETH_TYPE_ARP);
    struct wire_arp *arp = (struct wire_arp *)(frame + sizeof(struct wire_eth));
    *arp = (struct wire_arp){.hardware_type = be16(ARP_ETHERNET),
                             .protocol_type = be16(ETH_TYPE_IPV4),
                             .hardware_bytes = ETH_ADDRESS_BYTES,
                             .protocol_bytes = sizeof(arp->sender_ip),
                             .operation = be16(message->operation)};
    memcpy(arp->sender_mac, eth->config.mac, ETH_ADDRESS_BYTES);
    memcpy(arp->sender_ip, message->sender_ip, sizeof(arp->sender_ip));
    memcpy(arp->target_mac, message->target_mac, ETH_ADDRESS_BYTES);
    memcpy(arp->target_ip, message->target_ip, sizeof(arp->target_ip));
    eth_output(eth, frame, sizeof(struct wire_eth) + sizeof(*arp), chunk);
    return true;
}

void nd_group_mac(const uint8_t *group, uint8_t *mac)
{
    mac[0] = mac[1] = 0x33;
    memcpy(mac + 2, group + 12, 4);
}

bool nd_output(struct eth *eth, const struct nd_message *message)
{
    /* RFC 4861 section 4.3: no link-layer address in a solicitation from the unspecified address, and we send no
     * others. */
    bool option = message->type == ICMPV6_NEIGHBOUR_ADVERTISEMENT;
    uint16_t payload_bytes = option ? sizeof(struct wire_neighbour) : ND_BYTES_MIN;
    uint32_t chunk = eth_buffer(eth);
    if (chunk == NMIO_NONE)
        return false;
    uint8_t *frame = nmio_chunk(eth->region, chunk) + ETH_BUFFER_OFFSET;
    eth_header(eth, (struct wire_eth *)frame, message->to_mac, ETH_TYPE_IPV6);
    struct wire_ipv6 *ip = (struct wire_ipv6 *)(frame + sizeof(struct wire_eth));
    struct wire_neighbour *neighbour = (struct wire_neighbour *)(ip + 1);
    *ip = (struct wire_ipv6){.version_class_flow = be32(0x60000000),
                             .payload_bytes = be16(payload_bytes),
                             .next_header = IP_PROTOCOL_ICMPV6,
                             .hop_limit = ND_HOP_LIMIT};
    memcpy(ip->source, message->source, 16);
    memcpy(ip->destination, message->destination, 16);
    *neighbour =
        (struct wire_neighbour){.icmp.type = message->type, .option_type = ND_OPTION_TARGET, .option_units = 1};
    neighbour->icmp.rest = be32(message->flags);
    memcpy(neighbour->target, message->target, 16);
    memcpy(neighbour->option_mac, eth->config.mac, ETH_ADDRESS_BYTES);
    uint64_t sum = checksum_sum(ip->source, 32) + checksum_pseudo(IP_PROTOCOL_ICMPV6, payload_bytes) +
                   checksum_sum(neighbour, payload_bytes);
    neighbour->icmp.checksum = (uint16_t)~checksum_fold(sum);
    eth_output(eth, frame, (uint32_t)(sizeof(struct wire_eth) + sizeof(*ip)) + payload_bytes, chunk);
    return true;
}
