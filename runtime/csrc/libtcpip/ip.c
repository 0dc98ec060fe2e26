#include "ip.h"

#include "libeth/neighbour_frame.h"
#include "wire/checksum.h"
#include "wire/ipv6_extension.h"
#include "wire/probe.h"

#define PROTOCOL_FRAGMENT 256 /* none of the numbers that there are */

/* A solicitation goes to the multicast address made of the target's last three bytes, RFC 4291 section 2.7.1. */
static int find_solicited_node(const struct tcpip *tcpip, const uint8_t *destination)
{
    if (memcmp(destination, nd_solicited_node_prefix, sizeof(nd_solicited_node_prefix)) != 0)
        return -1;
    for (uint32_t i = 0; i < tcpip->eth->config.address_count; i++) {
        const struct eth_address *address = &tcpip->eth->config.addresses[i];
        if (address->family == IP_FAMILY_V6 && memcmp(address->bytes + 13, destination + 13, 3) == 0)
            return (int)i;
    }
    return -1;
}

static bool ipv4_checksum_good(const struct wire_ipv4 *ip, uint32_t header_bytes)
{
    uint64_t sum = checksum_sum(ip, sizeof(*ip)) + checksum_sum(ip + 1, header_bytes - sizeof(*ip));
    return checksum_fold(sum) == 0xffff;
}

/* Fills in what the IPv4 header says; counts and returns false if the packet isn't for us, or not the whole of one. */
static bool ipv4_header(struct tcpip *tcpip, struct packet *packet, uint32_t len_bytes, uint32_t *protocol)
{
    const struct wire_ipv4 *ip = (const struct wire_ipv4 *)packet->ip;
    uint32_t header_bytes = (ip->version_ihl & 15u) * 4;
    uint32_t total_bytes = be16(ip->total_bytes);
    if ((ip->version_ihl >> 4) != 4) {
        COUNT(tcpip, ip_drop_version);
        return false;
    }
    if (header_bytes < sizeof(*ip) || total_bytes < header_bytes || total_bytes > len_bytes) {
        COUNT(tcpip, ip_drop_short);
        return false;
    }
    if ((packet->rx_flags & NMIO_RX_HEADER_OK) == 0 && !ipv4_checksum_good(ip, header_bytes)) {
        COUNT(tcpip, ip_drop_checksum);
        return false;
    }
    int local = eth_address_find(tcpip->eth, IP_FAMILY_V4, ip->destination);
    if (local < 0) {
        COUNT(tcpip, ip_drop_not_ours);
        return false;
    }
    /* RFC 1122 section 3.2.1.3: no host sends from there. */
    if (ip->source[0] == 0 || ip->source[0] == 127 || ip->source[0] >= 224 ||
        eth_is_own_source(tcpip->eth, IP_FAMILY_V4, ip->source, ip->source[3])) {
        COUNT(tcpip, ip_drop_source);
        return false;
    }
    if (!eth_address_is_ours(tcpip->eth, (uint32_t)local)) {
        COUNT(tcpip, ip_drop_tentative);
        return false;
    }
    packet->family = IP_FAMILY_V4;
    packet->local = (uint8_t)local;
    packet->payload = packet->ip + header_bytes;
    packet->payload_bytes = total_bytes - header_bytes;
    *protocol = (ip->fragment & be16(IPV4_FRAGMENT_MASK)) == 0 ? ip->protocol : PROTOCOL_FRAGMENT;
    return true;
}

/* The ICMPv6 type, or 0 if it is something else. */
static uint8_t icmpv6_type(const struct ipv6_walk *payload)
{
    const struct wire_icmp *icmp = (const struct wire_icmp *)payload->at;
    return payload->next == IP_PROTOCOL_ICMPV6 && payload->left_bytes >= sizeof(*icmp) ? icmp->type : 0;
}

/* RFC 4291 sections 2.5.2, 2.5.3 and 2.7: ::, ::1 and groups send nothing that is for us; neither do we. */
static bool ipv6_source_good(const struct tcpip *tcpip, const uint8_t *source)
{
    return source[0] != 0xff && (load64(source) != 0 || load_be32(source + 8) != 0 || load_be32(source + 12) > 1) &&
           !eth_is_own_source(tcpip->eth, IP_FAMILY_V6, source, source[15]);
}

/* What goes to all nodes and is of interest: advertisements, which may say that an address of ours is another's (which one is
 * nd_input's matter, as with solicitations), and questions about the groups that we listen to. */
static bool is_for_all_nodes(const struct tcpip *tcpip, const struct wire_ipv6 *ip, uint8_t type)
{
    return tcpip->eth->config.own_address && memcmp(ip->destination, nd_all_nodes, sizeof(nd_all_nodes)) == 0 &&
           (type == ICMPV6_NEIGHBOUR_ADVERTISEMENT || type == ICMPV6_MLD_QUERY);
}

/* Which of our addresses it is for, or -1. */
static int ipv6_local(const struct tcpip *tcpip, const struct wire_ipv6 *ip, const struct ipv6_walk *payload)
{
    int local = eth_address_find(tcpip->eth, IP_FAMILY_V6, ip->destination);
    if (local < 0 && payload->next == IP_PROTOCOL_ICMPV6)
        local = find_solicited_node(tcpip, ip->destination);
    if (local < 0 && is_for_all_nodes(tcpip, ip, icmpv6_type(payload)))
        local = 0;
    return local;
}

/* By this source, and to an address that is ours. Neighbour discovery is about its target, and also tells whether we may have the
 * address. */
static bool ipv6_may_be_said(struct tcpip *tcpip, const struct wire_ipv6 *ip, const struct ipv6_walk *payload,
                             uint32_t local)
{
    uint8_t type = icmpv6_type(payload);
    bool discovery = type == ICMPV6_NEIGHBOUR_SOLICITATION || type == ICMPV6_NEIGHBOUR_ADVERTISEMENT;
    if (discovery && payload->fragment_header) { /* RFC 6980 section 5 */
        COUNT(tcpip->eth, nd_drop_malformed);
        return false;
    }
    if (discovery ? ip->source[0] == 0xff : !ipv6_source_good(tcpip, ip->source)) {
        COUNT(tcpip, ip_drop_source);
        return false;
    }
    if (!discovery && type != ICMPV6_MLD_QUERY && !eth_address_is_ours(tcpip->eth, local)) {
        COUNT(tcpip, ip_drop_tentative);
        return false;
    }
    return true;
}

static bool ipv6_header(struct tcpip *tcpip, struct packet *packet, uint32_t len_bytes, uint32_t *protocol)
{
    const struct wire_ipv6 *ip = (const struct wire_ipv6 *)packet->ip;
    if (len_bytes < sizeof(*ip) || be16(ip->payload_bytes) > len_bytes - sizeof(*ip)) {
        COUNT(tcpip, ip_drop_short);
        return false;
    }
    if ((be32(ip->version_class_flow) >> 28) != 6) {
        COUNT(tcpip, ip_drop_version);
        return false;
    }
    struct ipv6_walk payload = {(uint8_t *)(packet->ip + sizeof(*ip)), be16(ip->payload_bytes), ip->next_header,
                                false};
    if (!ipv6_walk(&payload)) {
        COUNT(tcpip, ip_drop_extension);
        return false;
    }
    int local = ipv6_local(tcpip, ip, &payload);
    if (local < 0) {
        COUNT(tcpip, ip_drop_not_ours);
        return false;
    }
    if (!ipv6_may_be_said(tcpip, ip, &payload, (uint32_t)local))
        return false;
    packet->family = IP_FAMILY_V6;
    packet->local = (uint8_t)local;
    packet->payload = payload.at;
    packet->payload_bytes = payload.left_bytes;
    *protocol = payload.next != IPV6_FRAGMENT ? payload.next : PROTOCOL_FRAGMENT;
    return true;
}

/* Looks at a packet once. *protocol: of what is behind its headers, or PROTOCOL_FRAGMENT. */
static bool read_headers(struct tcpip *tcpip, const struct nmio_rx *frame, struct packet *packet, uint32_t *protocol)
{
    uint32_t ip_bytes = frame->len_bytes - (uint32_t)sizeof(struct wire_eth);
    packet->frame = frame->data;
    packet->ip = frame->data + sizeof(struct wire_eth);
    packet->rx_flags = (uint8_t)frame->flags;
    if (ip_bytes < sizeof(struct wire_ipv4)) {
        COUNT(tcpip, ip_drop_short);
        return false;
    }
    bool v4 = ((const struct wire_eth *)frame->data)->type == be16(ETH_TYPE_IPV4);
    return v4 ? ipv4_header(tcpip, packet, ip_bytes, protocol) : ipv6_header(tcpip, packet, ip_bytes, protocol);
}

/* RFC 1122 section 3.3.6: a packet to one address in a frame to a group. It would make many answer, or one a stranger. */
static bool is_in_group_frame(const struct packet *packet)
{
    if ((packet->frame[0] & ETH_GROUP) == 0)
        return false;
    return packet->family == IP_FAMILY_V4 || ((const struct wire_ipv6 *)packet->ip)->destination[0] != 0xff;
}

static inline enum ip_verdict verdict_of(struct tcpip *tcpip, const struct packet *packet, uint32_t protocol)
{
    if (protocol == PROTOCOL_FRAGMENT)
        return IP_FRAGMENT;
    if (is_in_group_frame(packet)) {
        COUNT(tcpip, ip_drop_group_frame);
        return IP_DROPPED;
    }
    if (protocol == IP_PROTOCOL_TCP)
        return IP_TCP;
    if (protocol == (packet->family == IP_FAMILY_V4 ? IP_PROTOCOL_ICMP : IP_PROTOCOL_ICMPV6))
        return IP_ICMP;
    COUNT(tcpip, ip_drop_protocol);
    return IP_DROPPED;
}

bool ip_reassemble(struct tcpip *tcpip, const struct packet *packet, struct nmio_rx *whole)
{
    bool evicted;
    if (packet->family == IP_FAMILY_V6 && is_in_group_frame(packet)) {
        COUNT(tcpip, ip_drop_group_frame);
        return false;
    }
    enum reassembly_verdict verdict =
        reassembly_input(&tcpip->reassembly, tcpip->now_us, packet, &whole->data, &whole->len_bytes, &evicted);
    if (verdict == REASSEMBLY_DROPPED) {
        COUNT(tcpip, ip_drop_fragment);
        return false;
    }
    COUNT(tcpip, ip_rx_fragments);
    if (evicted)
        COUNT(tcpip, ip_evicted_fragments);
    if (verdict == REASSEMBLY_OVERLAP)
        COUNT(tcpip, ip_drop_fragment_overlap);
    if (verdict == REASSEMBLY_WHOLE)
        COUNT(tcpip, ip_reassembled);
    return verdict == REASSEMBLY_WHOLE;
}

enum ip_verdict ip_input(struct tcpip *tcpip, const struct nmio_rx *frame, struct packet *packet)
{
    uint32_t protocol;
    PROBE(tcpip_input, frame->data, frame->len_bytes);
    if (!read_headers(tcpip, frame, packet, &protocol))
        return IP_DROPPED;
    return verdict_of(tcpip, packet, protocol);
}
