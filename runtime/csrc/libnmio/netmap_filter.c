/* What is ours of what arrives on a netmap port. Malformed packets are the kernel's, whose counters know them. */
#include <string.h>

#include "netmap.h"
#include "wire/ipv6_extension.h"
#include "wire/wire.h"

static bool is_our_address(const struct netmap_filter *filter, uint8_t family, const uint8_t *address)
{
    for (uint32_t i = 0; i < filter->address_count; i++) {
        const uint8_t *ours = filter->address[i];
        /* Of lengths that are known a comparison is no call. */
        bool is_same = family == IP_FAMILY_V4 ? memcmp(ours, address, 4) == 0 : memcmp(ours, address, 16) == 0;
        if (filter->family[i] == family && is_same)
            return true;
    }
    return false;
}

static bool is_port(const struct netmap_filter *filter, const uint8_t *at)
{
    return (uint32_t)at[0] << 8 == (filter->tcp_port & 0xff00u) && at[1] == (filter->tcp_port & 0xff);
}

/* Of a packet in an ICMP message: it was sent from our port. */
static bool quotes_us(const struct netmap_filter *filter, const uint8_t *quoted, uint32_t len_bytes, bool ipv6)
{
    uint32_t header_bytes = 40;
    if (!ipv6)
        header_bytes = len_bytes > 0 ? (quoted[0] & 15u) * 4 : 0;
    if (len_bytes < header_bytes + 2 || header_bytes < 20)
        return false;
    return quoted[ipv6 ? 6 : 9] == IP_PROTOCOL_TCP && is_port(filter, quoted + header_bytes);
}

static bool ipv4_is_ours(const struct netmap_filter *filter, const uint8_t *ip, uint32_t len_bytes)
{
    uint32_t header_bytes = len_bytes >= 20 && ip[0] >> 4 == 4 ? (ip[0] & 15u) * 4 : 0;
    if (header_bytes < 20 || len_bytes < header_bytes + 8 || !is_our_address(filter, IP_FAMILY_V4, ip + 16))
        return false;
    if (filter->own_address)
        return true;
    if ((ip[6] & 0x3f) != 0 || ip[7] != 0)
        return false; /* a fragment has no port, or is no whole segment */
    const uint8_t *payload = ip + header_bytes;
    if (ip[9] == IP_PROTOCOL_TCP)
        return is_port(filter, payload + 2);
    return ip[9] == IP_PROTOCOL_ICMP && payload[0] == ICMP_UNREACHABLE && payload[1] == ICMP_FRAGMENTATION_NEEDED &&
           quotes_us(filter, payload + 8, len_bytes - header_bytes - 8, false);
}

/* Solicited-node multicast of one of our addresses, RFC 4291 section 2.7.1. */
static bool is_solicited_node(const struct netmap_filter *filter, const uint8_t *address)
{
    static const uint8_t prefix[13] = {0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff};
    if (memcmp(address, prefix, sizeof(prefix)) != 0)
        return false;
    for (uint32_t i = 0; i < filter->address_count; i++)
        if (filter->family[i] == IP_FAMILY_V6 && memcmp(filter->address[i] + 13, address + 13, 3) == 0)
            return true;
    return false;
}

/* A neighbour message is about one of our addresses (RFC 4861 section 4.3). */
static bool neighbour_is_ours(const struct netmap_filter *filter, const uint8_t *icmp, uint32_t len_bytes)
{
    bool neighbour = icmp[0] == ICMPV6_NEIGHBOUR_SOLICITATION || icmp[0] == ICMPV6_NEIGHBOUR_ADVERTISEMENT;
    return neighbour && len_bytes >= 24 && is_our_address(filter, IP_FAMILY_V6, icmp + 8);
}

/* What a host of its own takes: what is for it, and what the link asks of all. */
static bool own_ipv6_is_ours(const struct netmap_filter *filter, const struct ipv6_walk *walk,
                             const uint8_t *destination)
{
    if (walk->next == IP_PROTOCOL_ICMPV6 && neighbour_is_ours(filter, walk->at, walk->left_bytes))
        return true;
    if (walk->next == IP_PROTOCOL_ICMPV6 && destination[0] == 0xff && walk->at[0] == ICMPV6_MLD_QUERY)
        return true;
    return is_our_address(filter, IP_FAMILY_V6, destination) || is_solicited_node(filter, destination);
}

static bool ipv6_is_ours(const struct netmap_filter *filter, const uint8_t *ip, uint32_t len_bytes)
{
    if (len_bytes < 48 || ip[0] >> 4 != 6)
        return false;
    struct ipv6_walk walk = {(uint8_t *)(uintptr_t)(ip + 40), len_bytes - 40, ip[6], false};
    if (!ipv6_walk(&walk) || walk.left_bytes < 8)
        return false;
    const uint8_t *destination = ip + 24;
    if (filter->own_address)
        return own_ipv6_is_ours(filter, &walk, destination);
    if (!is_our_address(filter, IP_FAMILY_V6, destination))
        return false;
    if (walk.next == IP_PROTOCOL_TCP)
        return is_port(filter, walk.at + 2);
    return walk.next == IP_PROTOCOL_ICMPV6 && walk.at[0] == ICMPV6_PACKET_TOO_BIG &&
           quotes_us(filter, walk.at + 8, walk.left_bytes - 8, true);
}

/* In own-address mode, what speaks of one of our addresses, as its sender's (a conflict) or as its target. */
static bool arp_is_ours(const struct netmap_filter *filter, const uint8_t *arp, uint32_t len_bytes)
{
    const struct wire_arp *packet = (const struct wire_arp *)arp;
    return filter->own_address && len_bytes >= sizeof(*packet) &&
           (is_our_address(filter, IP_FAMILY_V4, packet->sender_ip) ||
            is_our_address(filter, IP_FAMILY_V4, packet->target_ip));
}

bool netmap_is_ours(const struct netmap_filter *filter, const uint8_t *frame, uint32_t len_bytes)
{
    uint32_t eth_bytes = sizeof(struct wire_eth);
    if (len_bytes < eth_bytes + sizeof(struct wire_vlan))
        return false;
    if (load_be16(frame + 12) == ETH_TYPE_VLAN && (load_be16(frame + 14) & VLAN_ID_MASK) == 0)
        eth_bytes += (uint32_t)sizeof(struct wire_vlan);
    const uint8_t *packet = frame + eth_bytes;
    switch (load_be16(packet - 2)) {
    case ETH_TYPE_IPV4:
        return ipv4_is_ours(filter, packet, len_bytes - eth_bytes);
    case ETH_TYPE_IPV6:
        return ipv6_is_ours(filter, packet, len_bytes - eth_bytes);
    case ETH_TYPE_ARP:
        return arp_is_ours(filter, packet, len_bytes - eth_bytes);
    default:
        return false;
    }
}
