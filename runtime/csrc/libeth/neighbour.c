/* ARP (RFC 826) and neighbour discovery (RFC 4861), in own-address mode: what others ask of us. We ask nobody where
 * somebody is: every answer goes back to where the question came from. */
#include "neighbour.h"

#include "stack_internal.h"
#include "wire/checksum.h"
#include "wire/wire.h"

static const uint8_t unspecified[16];
const uint8_t nd_all_nodes[16] = {0xff, 0x02, [15] = 1};
const uint8_t nd_solicited_node_prefix[13] = {0xff, 0x02, [11] = 1, [12] = 0xff};

static inline bool is_same_ipv4(const uint8_t *one, const uint8_t *other)
{
    return load_be32(one) == load_be32(other);
}

static inline bool is_same_ipv6(const uint8_t *one, const uint8_t *other)
{
    return ((load64(one) ^ load64(other)) | (load64(one + 8) ^ load64(other + 8))) == 0;
}

int stack_address_find(const struct stack *stack, uint8_t family, const uint8_t *bytes)
{
    for (uint32_t i = 0; i < stack->config.address_count; i++) {
        const struct stack_address *address = &stack->config.addresses[i];
        if (address->family == family &&
            (family == SSI_FAMILY_IPV4 ? is_same_ipv4(address->bytes, bytes) : is_same_ipv6(address->bytes, bytes)))
            return (int)i;
    }
    return -1;
}

static void eth_header(const struct stack *stack, struct wire_eth *eth, const uint8_t *destination, uint16_t type)
{
    memcpy(eth->destination, destination, ETH_ADDRESS_BYTES);
    memcpy(eth->source, stack->config.mac, ETH_ADDRESS_BYTES);
    eth->type = be16(type);
}

bool arp_output(struct stack *stack, const struct arp_message *message)
{
    uint32_t chunk = eth_buffer(stack);
    if (chunk == NMIO_NONE)
        return false;
    uint8_t *frame = nmio_chunk(stack->region, chunk) + ETH_BUFFER_OFFSET;
    eth_header(stack, (struct wire_eth *)frame, message->to_mac, ETH_TYPE_ARP);
    struct wire_arp *arp = (struct wire_arp *)(frame + sizeof(struct wire_eth));
    *arp = (struct wire_arp){.hardware_type = be16(ARP_ETHERNET),
                             .protocol_type = be16(ETH_TYPE_IPV4),
                             .hardware_bytes = ETH_ADDRESS_BYTES,
                             .protocol_bytes = sizeof(arp->sender_ip),
                             .operation = be16(message->operation)};
    memcpy(arp->sender_mac, stack->config.mac, ETH_ADDRESS_BYTES);
    memcpy(arp->sender_ip, message->sender_ip, sizeof(arp->sender_ip));
    memcpy(arp->target_mac, message->target_mac, ETH_ADDRESS_BYTES);
    memcpy(arp->target_ip, message->target_ip, sizeof(arp->target_ip));
    eth_output(stack, frame, sizeof(struct wire_eth) + sizeof(*arp), chunk);
    return true;
}

static void arp_reply(struct stack *stack, const struct wire_arp *request)
{
    const struct arp_message reply = {.operation = ARP_REPLY,
                                      .to_mac = request->sender_mac,
                                      .sender_ip = request->target_ip,
                                      .target_mac = request->sender_mac,
                                      .target_ip = request->sender_ip};
    if (arp_output(stack, &reply))
        COUNT(stack, arp_tx_replies);
}

static bool arp_well_formed(const struct wire_arp *arp, uint32_t len_bytes)
{
    return len_bytes >= sizeof(struct wire_eth) + sizeof(*arp) && be16(arp->hardware_type) == ARP_ETHERNET &&
           be16(arp->protocol_type) == ETH_TYPE_IPV4 && arp->hardware_bytes == ETH_ADDRESS_BYTES &&
           arp->protocol_bytes == sizeof(arp->sender_ip) && (arp->sender_mac[0] & 1) == 0;
}

void arp_input(struct stack *stack, uint8_t *frame, uint32_t len_bytes)
{
    const struct wire_arp *arp = (const struct wire_arp *)(frame + sizeof(struct wire_eth));
    if (!stack->config.own_address) {
        COUNT(stack, arp_drop_not_ours);
        return;
    }
    if (!arp_well_formed(arp, len_bytes)) {
        COUNT(stack, arp_drop_malformed);
        return;
    }
    if (memcmp(arp->sender_mac, stack->config.mac, ETH_ADDRESS_BYTES) == 0) {
        COUNT(stack, arp_drop_looped);
        return;
    }
    if (claim_arp(stack, arp))
        return;
    int local = stack_address_find(stack, SSI_FAMILY_IPV4, arp->target_ip);
    if (be16(arp->operation) != ARP_REQUEST || local < 0) {
        COUNT(stack, arp_drop_not_ours);
        return;
    }
    if (!stack_address_is_ours(stack, (uint32_t)local)) {
        COUNT(stack, arp_drop_unclaimed);
        return;
    }
    COUNT(stack, arp_rx_requests);
    arp_reply(stack, arp);
}

void nd_group_mac(const uint8_t *group, uint8_t *mac)
{
    mac[0] = mac[1] = 0x33;
    memcpy(mac + 2, group + 12, 4);
}

bool nd_output(struct stack *stack, const struct nd_message *message)
{
    /* RFC 4861 section 4.3: no link-layer address in a solicitation from the unspecified address, and we send no
     * others. */
    bool option = message->type == ICMPV6_NEIGHBOUR_ADVERTISEMENT;
    uint16_t payload_bytes = option ? sizeof(struct wire_neighbour) : ND_BYTES_MIN;
    uint32_t chunk = eth_buffer(stack);
    if (chunk == NMIO_NONE)
        return false;
    uint8_t *frame = nmio_chunk(stack->region, chunk) + ETH_BUFFER_OFFSET;
    eth_header(stack, (struct wire_eth *)frame, message->to_mac, ETH_TYPE_IPV6);
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
    memcpy(neighbour->option_mac, stack->config.mac, ETH_ADDRESS_BYTES);
    uint64_t sum = checksum_sum(ip->source, 32) + checksum_pseudo(IP_PROTOCOL_ICMPV6, payload_bytes) +
                   checksum_sum(neighbour, payload_bytes);
    neighbour->icmp.checksum = (uint16_t)~checksum_fold(sum);
    eth_output(stack, frame, (uint32_t)(sizeof(struct wire_eth) + sizeof(*ip)) + payload_bytes, chunk);
    return true;
}

/* RFC 4861 section 7.2.4; to all nodes when the question has no source, as in duplicate address detection. */
static void nd_advertise(struct stack *stack, const struct packet *packet, const struct wire_neighbour *question)
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
    if (nd_output(stack, &answer))
        COUNT(stack, nd_tx_advertisements);
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
void nd_input(struct stack *stack, const struct packet *packet)
{
    const struct wire_neighbour *neighbour = (const struct wire_neighbour *)packet->payload;
    const uint8_t *mac = ((const struct wire_eth *)packet->frame)->source;
    bool advertisement = neighbour->icmp.type == ICMPV6_NEIGHBOUR_ADVERTISEMENT;
    bool has_source = memcmp(((const struct wire_ipv6 *)packet->ip)->source, unspecified, sizeof(unspecified)) != 0;
    if (!nd_well_formed(packet, advertisement, has_source)) {
        COUNT(stack, nd_drop_malformed);
        return;
    }
    if (memcmp(mac, stack->config.mac, ETH_ADDRESS_BYTES) == 0) {
        COUNT(stack, nd_drop_looped);
        return;
    }
    int local = stack_address_find(stack, SSI_FAMILY_IPV6, neighbour->target);
    if (local < 0) {
        COUNT(stack, nd_drop_not_ours);
        return;
    }
    if ((advertisement || !has_source) && claim_neighbour(stack, (uint32_t)local, advertisement, mac))
        return;
    if (!stack_address_is_ours(stack, (uint32_t)local)) {
        COUNT(stack, nd_drop_unclaimed);
        return;
    }
    COUNT(stack, nd_rx_solicitations);
    nd_advertise(stack, packet, neighbour);
}
