/* ARP (RFC 826) and neighbour discovery (RFC 4861), in own-address mode: what others ask of us. We need to ask
 * nobody: every answer goes back to where the question came from. */
#include "libtcpip/checksum.h"
#include "libtcpip/wire.h"
#include "stack_internal.h"

int stack_address_find(const struct stack *stack, uint8_t family, const uint8_t *bytes)
{
    size_t len = family == SSI_FAMILY_IPV4 ? 4 : 16;
    for (uint32_t i = 0; i < stack->config.address_count; i++) {
        const struct stack_address *address = &stack->config.addresses[i];
        if (address->family == family && memcmp(address->bytes, bytes, len) == 0)
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

static void arp_reply(struct stack *stack, const struct wire_arp *request)
{
    uint32_t chunk = eth_buffer(stack);
    if (chunk == NMIO_NONE)
        return;
    uint8_t *frame = nmio_chunk(stack->region, chunk) + ETH_BUFFER_OFFSET;
    eth_header(stack, (struct wire_eth *)frame, request->sender_mac, ETH_TYPE_ARP);
    struct wire_arp *reply = (struct wire_arp *)(frame + sizeof(struct wire_eth));
    *reply = *request;
    reply->operation = be16(ARP_REPLY);
    memcpy(reply->sender_mac, stack->config.mac, ETH_ADDRESS_BYTES);
    memcpy(reply->sender_ip, request->target_ip, sizeof(reply->sender_ip));
    memcpy(reply->target_mac, request->sender_mac, ETH_ADDRESS_BYTES);
    memcpy(reply->target_ip, request->sender_ip, sizeof(reply->target_ip));
    COUNT(stack, arp_tx_replies);
    eth_output(stack, frame, sizeof(struct wire_eth) + sizeof(struct wire_arp), chunk);
}

void arp_input(struct stack *stack, uint8_t *frame, uint32_t len_bytes)
{
    const struct wire_arp *arp = (const struct wire_arp *)(frame + sizeof(struct wire_eth));
    if (!stack->config.own_address) {
        COUNT(stack, arp_drop_not_ours);
        return;
    }
    bool well_formed = len_bytes >= sizeof(struct wire_eth) + sizeof(*arp) && be16(arp->hardware_type) == 1 &&
                       be16(arp->protocol_type) == ETH_TYPE_IPV4 && arp->hardware_bytes == ETH_ADDRESS_BYTES &&
                       arp->protocol_bytes == 4 && (arp->sender_mac[0] & 1) == 0;
    if (!well_formed) {
        COUNT(stack, arp_drop_malformed);
        return;
    }
    if (be16(arp->operation) != ARP_REQUEST || stack_address_find(stack, SSI_FAMILY_IPV4, arp->target_ip) < 0) {
        COUNT(stack, arp_drop_not_ours);
        return;
    }
    COUNT(stack, arp_rx_requests);
    arp_reply(stack, arp);
}

/* RFC 4861 section 7.2.4; to all nodes when the question has no source, as in duplicate address detection. */
static void nd_advertise(struct stack *stack, const struct packet *packet, const struct wire_neighbour *question)
{
    static const uint8_t all_nodes[16] = {0xff, 0x02, [15] = 1};
    static const uint8_t all_nodes_mac[ETH_ADDRESS_BYTES] = {0x33, 0x33, 0, 0, 0, 1};
    const struct wire_ipv6 *asked = (const struct wire_ipv6 *)packet->ip;
    static const uint8_t unspecified[16];
    bool solicited = memcmp(asked->source, unspecified, sizeof(unspecified)) != 0;
    uint32_t chunk = eth_buffer(stack);
    if (chunk == NMIO_NONE)
        return;
    uint8_t *frame = nmio_chunk(stack->region, chunk) + ETH_BUFFER_OFFSET;
    const uint8_t *to_mac = ((const struct wire_eth *)packet->frame)->source;
    eth_header(stack, (struct wire_eth *)frame, solicited ? to_mac : all_nodes_mac, ETH_TYPE_IPV6);
    struct wire_ipv6 *ip = (struct wire_ipv6 *)(frame + sizeof(struct wire_eth));
    struct wire_neighbour *answer = (struct wire_neighbour *)(ip + 1);
    *ip = (struct wire_ipv6){.version_class_flow = be32(0x60000000),
                             .payload_bytes = be16(sizeof(*answer)),
                             .next_header = IP_PROTOCOL_ICMPV6,
                             .hop_limit = 255};
    memcpy(ip->source, question->target, 16);
    memcpy(ip->destination, solicited ? asked->source : all_nodes, 16);
    *answer = (struct wire_neighbour){
        .icmp.type = ICMPV6_NEIGHBOUR_ADVERTISEMENT, .option_type = ND_OPTION_TARGET, .option_units = 1};
    answer->icmp.rest = be32((solicited ? ND_FLAG_SOLICITED : 0u) | ND_FLAG_OVERRIDE);
    memcpy(answer->target, question->target, 16);
    memcpy(answer->option_mac, stack->config.mac, ETH_ADDRESS_BYTES);
    uint64_t sum = checksum_sum(ip->source, 32) + checksum_pseudo(IP_PROTOCOL_ICMPV6, sizeof(*answer)) +
                   checksum_sum(answer, sizeof(*answer));
    answer->icmp.checksum = (uint16_t)~checksum_fold(sum);
    COUNT(stack, nd_tx_advertisements);
    eth_output(stack, frame, sizeof(struct wire_eth) + sizeof(*ip) + sizeof(*answer), chunk);
}

/* A solicitation whose ICMPv6 checksum has been verified. */
void nd_input(struct stack *stack, const struct packet *packet)
{
    const struct wire_ipv6 *ip = (const struct wire_ipv6 *)packet->ip;
    const struct wire_neighbour *question = (const struct wire_neighbour *)packet->payload;
    /* A hop limit of 255 proves that no router forwarded it, RFC 4861 section 7.1.1. */
    if (packet->payload_bytes < 24 || ip->hop_limit != 255 || question->icmp.code != 0) {
        COUNT(stack, nd_drop_malformed);
        return;
    }
    if (stack_address_find(stack, SSI_FAMILY_IPV6, question->target) < 0) {
        COUNT(stack, nd_drop_not_ours);
        return;
    }
    COUNT(stack, nd_rx_solicitations);
    nd_advertise(stack, packet, question);
}
