#include "neighbour.h"

#include "acd.h"
#include "neighbour_frame.h"

static const uint8_t unspecified[16];

static void arp_reply(struct eth *eth, const struct wire_arp *request)
{
    const struct arp_message reply = {.operation = ARP_REPLY,
                                      .to_mac = request->sender_mac,
                                      .sender_ip = request->target_ip,
                                      .target_mac = request->sender_mac,
                                      .target_ip = request->sender_ip};
    if (arp_output(eth, &reply))
        COUNT(eth, arp_tx_replies);
}

static bool arp_well_formed(const struct wire_arp *arp, uint32_t len_bytes)
{
    return len_bytes >= sizeof(struct wire_eth) + sizeof(*arp) && be16(arp->hardware_type) == ARP_ETHERNET &&
           be16(arp->protocol_type) == ETH_TYPE_IPV4 && arp->hardware_bytes == ETH_ADDRESS_BYTES &&
           arp->protocol_bytes == sizeof(arp->sender_ip) && (arp->sender_mac[0] & 1) == 0;
}

void arp_input(struct eth *eth, uint8_t *frame, uint32_t len_bytes)
{
    const struct wire_arp *arp = (const struct wire_arp *)(frame + sizeof(struct wire_eth));
    if (!eth->config.own_address) {
        COUNT(eth, arp_drop_not_ours);
        return;
    }
    if (!arp_well_formed(arp, len_bytes)) {
        COUNT(eth, arp_drop_malformed);
        return;
    }
    if (memcmp(arp->sender_mac, eth->config.mac, ETH_ADDRESS_BYTES) == 0) {
        COUNT(eth, arp_drop_looped);
        return;
    }
    if (acd_arp(eth, arp))
        return;
    int local = eth_address_find(eth, IP_FAMILY_V4, arp->target_ip);
    if (be16(arp->operation) != ARP_REQUEST || local < 0) {
        COUNT(eth, arp_drop_not_ours);
        return;
    }
    if (!eth_address_is_ours(eth, (uint32_t)local)) {
        COUNT(eth, arp_drop_tentative);
        return;
    }
    COUNT(eth, arp_rx_requests);
    arp_reply(eth, arp);
}

/* RFC 4861 section 7.2.4; to all nodes when the question has no source, as in duplicate address detection. */
static void nd_advertise(struct eth *eth, const struct packet *packet, const struct wire_neighbour *question)
{
    const struct wire_ipv6 *asked = (const struct wire_ipv6 *)packet->ip;
    bool solicited = memcmp(asked->source, unspecified, sizeof(unspecified)) != 0;
    uint8_t all_nodes_mac[ETH_ADDRESS_BYTES];
    nd_group_mac(nd_all_nodes, all_nodes_mac);
    const struct nd_message answer = {.type = ICMPV6_NEIGHBOUR_ADVERTISEMENT,
                                      .flags = (solicited ? ND_FLAG_SOLICITED : 0u) | ND_FLAG_OVERRIDE,
                                      .to_mac = solicited ? ((const struct wire_eth *)packet->frame)->source
                                                          : all_nodes_mac,
                                      .source = question->target,
                                      .destination = solicited ? asked->source : nd_all_nodes,
                                      .target = question->target};
    if (nd_output(eth, &answer))
        COUNT(eth, nd_tx_advertisements);
}

/* RFC 4861 sections 7.1.1 and 7.1.2. A hop limit of 255 proves that no router forwarded it. */
static bool nd_well_formed(const struct packet *packet, bool advertisement, bool has_source)
{
    const struct wire_ipv6 *ip = (const struct wire_ipv6 *)packet->ip;
    const struct wire_neighbour *neighbour = (const struct wire_neighbour *)packet->payload;
    bool to_group = ip->destination[0] == 0xff;
    if (packet->payload_bytes < ND_BYTES_MIN || ip->hop_limit != ND_HOP_LIMIT || neighbour->icmp.code != 0)
        return false;
    if (advertisement)
        return has_source && !(to_group && (be32(neighbour->icmp.rest) & ND_FLAG_SOLICITED) != 0);
    return has_source || to_group;
}

/* A solicitation or advertisement whose ICMPv6 checksum has been verified. */
void nd_input(struct eth *eth, const struct packet *packet)
{
    const struct wire_neighbour *neighbour = (const struct wire_neighbour *)packet->payload;
    const uint8_t *mac = ((const struct wire_eth *)packet->frame)->source;
    bool advertisement = neighbour->icmp.type == ICMPV6_NEIGHBOUR_ADVERTISEMENT;
    bool has_source = memcmp(((const struct wire_ipv6 *)packet->ip)->source, unspecified, sizeof(unspecified)) != 0;
    if (!nd_well_formed(packet, advertisement, has_source)) {
        COUNT(eth, nd_drop_malformed);
        return;
    }
    if (memcmp(mac, eth->config.mac, ETH_ADDRESS_BYTES) == 0) {
        COUNT(eth, nd_drop_looped);
        return;
    }
    int local = eth_address_find(eth, IP_FAMILY_V6, neighbour->target);
    if (local < 0) {
        COUNT(eth, nd_drop_not_ours);
        return;
    }
    if ((advertisement || !has_source) && acd_neighbour(eth, (uint32_t)local, advertisement, mac))
        return;
    if (!eth_address_is_ours(eth, (uint32_t)local)) {
        COUNT(eth, nd_drop_tentative);
        return;
    }
    COUNT(eth, nd_rx_solicitations);
    nd_advertise(eth, packet, neighbour);
}
