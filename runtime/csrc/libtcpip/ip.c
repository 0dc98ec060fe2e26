/* IPv4 (RFC 791) and IPv6 (RFC 8200): what comes in, and the headers of replies that belong to no connection. */
#include "extension.h"
#include "libeth/neighbour.h"
#include "stack_internal.h"
#include "wire/checksum.h"
#include "wire/probe.h"
#include "wire/wire.h"

/* A solicitation goes to the multicast address made of the target's last three bytes, RFC 4291 section 2.7.1. */
static int find_solicited_node(const struct stack *stack, const uint8_t *destination)
{
    if (memcmp(destination, nd_solicited_node_prefix, sizeof(nd_solicited_node_prefix)) != 0)
        return -1;
    for (uint32_t i = 0; i < stack->config.address_count; i++) {
        const struct stack_address *address = &stack->config.addresses[i];
        if (address->family == SSI_FAMILY_IPV6 && memcmp(address->bytes + 13, destination + 13, 3) == 0)
            return (int)i;
    }
    return -1;
}

/* Does somebody say that he is us? Of all others' addresses 255 in 256 are told by their last byte. */
static inline bool is_own_source(const struct stack *stack, uint8_t family, const uint8_t *source, uint8_t last)
{
    return (stack->own_last_bytes[last / 64] >> last % 64 & 1) != 0 && stack_address_find(stack, family, source) >= 0;
}

void ip_init(struct stack *stack)
{
    memset(stack->own_last_bytes, 0, sizeof(stack->own_last_bytes));
    for (uint32_t i = 0; i < stack->config.address_count; i++) {
        const struct stack_address *address = &stack->config.addresses[i];
        uint8_t last = address->bytes[address->family == SSI_FAMILY_IPV4 ? 3 : 15];
        stack->own_last_bytes[last / 64] |= UINT64_C(1) << last % 64;
    }
}

static bool ipv4_checksum_good(const struct wire_ipv4 *ip, uint32_t header_bytes)
{
    uint64_t sum = checksum_sum(ip, sizeof(*ip)) + checksum_sum(ip + 1, header_bytes - sizeof(*ip));
    return checksum_fold(sum) == 0xffff;
}

/* Fills in what the IPv4 header says; counts and returns false if the packet isn't for us, or not the whole of one. */
static bool ipv4_header(struct stack *stack, struct packet *packet, uint32_t len_bytes, uint8_t *protocol)
{
    const struct wire_ipv4 *ip = (const struct wire_ipv4 *)packet->ip;
    uint32_t header_bytes = (ip->version_ihl & 15u) * 4;
    uint32_t total_bytes = be16(ip->total_bytes);
    if ((ip->version_ihl >> 4) != 4) {
        COUNT(stack, ip_drop_version);
        return false;
    }
    if (header_bytes < sizeof(*ip) || total_bytes < header_bytes || total_bytes > len_bytes) {
        COUNT(stack, ip_drop_short);
        return false;
    }
    if ((packet->rx_flags & NMIO_RX_HEADER_OK) == 0 && !ipv4_checksum_good(ip, header_bytes)) {
        COUNT(stack, ip_drop_checksum);
        return false;
    }
    int local = stack_address_find(stack, SSI_FAMILY_IPV4, ip->destination);
    if (local < 0) {
        COUNT(stack, ip_drop_not_ours);
        return false;
    }
    /* RFC 1122 section 3.2.1.3: no host sends from there. */
    if (ip->source[0] == 0 || ip->source[0] == 127 || ip->source[0] >= 224 ||
        is_own_source(stack, SSI_FAMILY_IPV4, ip->source, ip->source[3])) {
        COUNT(stack, ip_drop_source);
        return false;
    }
    if (!stack_address_is_ours(stack, (uint32_t)local)) {
        COUNT(stack, ip_drop_unclaimed);
        return false;
    }
    packet->family = SSI_FAMILY_IPV4;
    packet->local = (uint8_t)local;
    packet->payload = packet->ip + header_bytes;
    packet->payload_bytes = total_bytes - header_bytes;
    if ((ip->fragment & be16(IPV4_FRAGMENT_MASK)) != 0) {
        fragment_input(stack, packet);
        return false;
    }
    *protocol = ip->protocol;
    return true;
}

/* The ICMPv6 type, or 0 if it is something else. */
static uint8_t icmpv6_type(const struct ipv6_walk *payload)
{
    const struct wire_icmp *icmp = (const struct wire_icmp *)payload->at;
    return payload->next == IP_PROTOCOL_ICMPV6 && payload->left_bytes >= sizeof(*icmp) ? icmp->type : 0;
}

/* RFC 4291 sections 2.5.2, 2.5.3 and 2.7: ::, ::1 and groups send nothing that is for us; neither do we. */
static bool ipv6_source_good(const struct stack *stack, const uint8_t *source)
{
    return source[0] != 0xff && (load64(source) != 0 || load_be32(source + 8) != 0 || load_be32(source + 12) > 1) &&
           !is_own_source(stack, SSI_FAMILY_IPV6, source, source[15]);
}

/* What goes to all nodes and is of interest: advertisements, which may say that an address of ours is another's (which one is
 * nd_input's matter, as with solicitations), and questions about the groups that we listen to. */
static bool is_for_all_nodes(const struct stack *stack, const struct wire_ipv6 *ip, uint8_t type)
{
    return stack->config.own_address && memcmp(ip->destination, nd_all_nodes, sizeof(nd_all_nodes)) == 0 &&
           (type == ICMPV6_NEIGHBOUR_ADVERTISEMENT || type == ICMPV6_MLD_QUERY);
}

/* Which of our addresses it is for, or -1. */
static int ipv6_local(const struct stack *stack, const struct wire_ipv6 *ip, const struct ipv6_walk *payload)
{
    int local = stack_address_find(stack, SSI_FAMILY_IPV6, ip->destination);
    if (local < 0 && payload->next == IP_PROTOCOL_ICMPV6)
        local = find_solicited_node(stack, ip->destination);
    if (local < 0 && is_for_all_nodes(stack, ip, icmpv6_type(payload)))
        local = 0;
    return local;
}

static bool ipv6_header(struct stack *stack, struct packet *packet, uint32_t len_bytes, uint8_t *protocol)
{
    const struct wire_ipv6 *ip = (const struct wire_ipv6 *)packet->ip;
    if (len_bytes < sizeof(*ip) || be16(ip->payload_bytes) > len_bytes - sizeof(*ip)) {
        COUNT(stack, ip_drop_short);
        return false;
    }
    if ((be32(ip->version_class_flow) >> 28) != 6) {
        COUNT(stack, ip_drop_version);
        return false;
    }
    struct ipv6_walk payload = {(uint8_t *)(packet->ip + sizeof(*ip)), be16(ip->payload_bytes), ip->next_header,
                                false};
    if (!ipv6_walk(&payload)) {
        COUNT(stack, ip_drop_extension);
        return false;
    }
    int local = ipv6_local(stack, ip, &payload);
    if (local < 0) {
        COUNT(stack, ip_drop_not_ours);
        return false;
    }
    /* Neighbour discovery is about its target, and also tells whether we may have the address. */
    uint8_t type = icmpv6_type(&payload);
    bool discovery = type == ICMPV6_NEIGHBOUR_SOLICITATION || type == ICMPV6_NEIGHBOUR_ADVERTISEMENT;
    if (discovery && payload.fragment_header) { /* RFC 6980 section 5 */
        COUNT(stack, nd_drop_malformed);
        return false;
    }
    if (discovery ? ip->source[0] == 0xff : !ipv6_source_good(stack, ip->source)) {
        COUNT(stack, ip_drop_source);
        return false;
    }
    if (!discovery && type != ICMPV6_MLD_QUERY && !stack_address_is_ours(stack, (uint32_t)local)) {
        COUNT(stack, ip_drop_unclaimed);
        return false;
    }
    packet->family = SSI_FAMILY_IPV6;
    packet->local = (uint8_t)local;
    packet->payload = payload.at;
    packet->payload_bytes = payload.left_bytes;
    *protocol = payload.next;
    return true;
}

/* RFC 1122 section 3.3.6: a packet to one address in a frame to a group. It would make many answer, or one a stranger. */
static bool is_in_group_frame(const struct packet *packet)
{
    bool group = packet->family == SSI_FAMILY_IPV6 && ((const struct wire_ipv6 *)packet->ip)->destination[0] == 0xff;
    return (packet->frame[0] & ETH_GROUP) != 0 && !group;
}

void tcpip_input(struct stack *stack, uint8_t *frame, uint32_t len_bytes, uint32_t rx_flags)
{
    struct packet packet = {.frame = frame, .ip = frame + sizeof(struct wire_eth), .rx_flags = (uint8_t)rx_flags};
    uint32_t ip_bytes = len_bytes - (uint32_t)sizeof(struct wire_eth);
    uint8_t protocol = 0;
    PROBE(tcpip_input, frame, len_bytes);
    if (ip_bytes < sizeof(struct wire_ipv4)) {
        COUNT(stack, ip_drop_short);
        return;
    }
    bool v4 = ((const struct wire_eth *)frame)->type == be16(ETH_TYPE_IPV4);
    if (!(v4 ? ipv4_header(stack, &packet, ip_bytes, &protocol) : ipv6_header(stack, &packet, ip_bytes, &protocol)))
        return;
    if (is_in_group_frame(&packet))
        COUNT(stack, ip_drop_group_frame);
    else if (protocol == IP_PROTOCOL_TCP)
        tcp_input(stack, &packet);
    else if (protocol == (v4 ? IP_PROTOCOL_ICMP : IP_PROTOCOL_ICMPV6))
        icmp_input(stack, &packet);
    else if (!v4 && protocol == IPV6_FRAGMENT)
        fragment_input(stack, &packet);
    else
        COUNT(stack, ip_drop_protocol);
}

uint64_t ip_pseudo_sum(const struct packet *packet, uint8_t protocol, uint32_t payload_bytes)
{
    const struct wire_ipv4 *v4 = (const struct wire_ipv4 *)packet->ip;
    const struct wire_ipv6 *v6 = (const struct wire_ipv6 *)packet->ip;
    uint64_t addresses =
        packet->family == SSI_FAMILY_IPV4 ? checksum_sum(v4->source, 8) : checksum_sum(v6->source, 32);
    return addresses + checksum_pseudo(protocol, payload_bytes);
}

uint8_t *ip_reply_headers(struct stack *stack, const struct packet *packet, uint8_t *frame, uint8_t protocol,
                          uint32_t payload_bytes)
{
    struct wire_eth *eth = (struct wire_eth *)frame;
    const struct wire_eth *received = (const struct wire_eth *)packet->frame;
    memcpy(eth->destination, received->source, ETH_ADDRESS_BYTES);
    memcpy(eth->source, stack->config.mac, ETH_ADDRESS_BYTES);
    eth->type = received->type;
    if (packet->family == SSI_FAMILY_IPV4) {
        const struct wire_ipv4 *from = (const struct wire_ipv4 *)packet->ip;
        struct wire_ipv4 *ip = (struct wire_ipv4 *)(eth + 1);
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
    struct wire_ipv6 *ip = (struct wire_ipv6 *)(eth + 1);
    *ip = (struct wire_ipv6){.version_class_flow = be32(0x60000000),
                             .payload_bytes = be16((uint16_t)payload_bytes),
                             .next_header = protocol,
                             .hop_limit = IP_TTL};
    memcpy(ip->source, stack->config.addresses[packet->local].bytes, 16);
    memcpy(ip->destination, from->source, 16);
    return (uint8_t *)(ip + 1);
}
