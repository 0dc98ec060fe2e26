/* ICMP (RFC 792) and ICMPv6 (RFC 4443): echo and neighbour discovery in own-address mode, path MTU in both. */
#include "pmtu.h"
#include "stack_internal.h"
#include "wire/checksum.h"
#include "wire/wire.h"

/* Linux finishes it whoever the sender is: nothing else is good, unless the port knows. */
static bool checksum_good(const struct packet *packet)
{
    uint64_t sum = checksum_sum(packet->payload, packet->payload_bytes);
    if (packet->family == SSI_FAMILY_IPV6)
        sum += ip_pseudo_sum(packet, IP_PROTOCOL_ICMPV6, packet->payload_bytes);
    return checksum_fold(sum) == 0xffff;
}

static void echo_reply(struct stack *stack, const struct packet *packet, uint8_t protocol, uint8_t type)
{
    uint32_t ip_bytes = packet->family == SSI_FAMILY_IPV4 ? sizeof(struct wire_ipv4) : sizeof(struct wire_ipv6);
    uint32_t headers = sizeof(struct wire_eth) + ip_bytes;
    /* We send no fragments: one that came in such may be too long to go back. */
    if (ETH_BUFFER_OFFSET + headers + packet->payload_bytes > stack->region->chunk_bytes ||
        ip_bytes + packet->payload_bytes > stack->config.mtu_bytes) {
        COUNT(stack, icmp_drop_short);
        return;
    }
    uint32_t chunk = eth_buffer(stack);
    if (chunk == NMIO_NONE)
        return;
    uint8_t *frame = nmio_chunk(stack->region, chunk) + ETH_BUFFER_OFFSET;
    uint8_t *payload = ip_reply_headers(stack, packet, frame, protocol, packet->payload_bytes);
    memcpy(payload, packet->payload, packet->payload_bytes);
    struct wire_icmp *icmp = (struct wire_icmp *)payload;
    icmp->type = type;
    icmp->checksum = 0;
    uint64_t sum = checksum_sum(payload, packet->payload_bytes);
    if (packet->family == SSI_FAMILY_IPV6)
        sum += ip_pseudo_sum(packet, IP_PROTOCOL_ICMPV6, packet->payload_bytes);
    icmp->checksum = (uint16_t)~checksum_fold(sum);
    COUNT(stack, icmp_tx_echo_reply);
    eth_output(stack, frame, headers + packet->payload_bytes, chunk);
}

static void echo_input(struct stack *stack, const struct packet *packet)
{
    COUNT(stack, icmp_rx_echo);
    if (!limit_allows(&stack->limits, LIMIT_ECHO, stack->now_us))
        COUNT(stack, icmp_drop_limit);
    else if (packet->family == SSI_FAMILY_IPV4)
        echo_reply(stack, packet, IP_PROTOCOL_ICMP, ICMP_ECHO_REPLY);
    else
        echo_reply(stack, packet, IP_PROTOCOL_ICMPV6, ICMPV6_ECHO_REPLY);
}

void icmp_input(struct stack *stack, const struct packet *packet)
{
    const struct wire_icmp *icmp = (const struct wire_icmp *)packet->payload;
    bool v4 = packet->family == SSI_FAMILY_IPV4;
    if (packet->payload_bytes < sizeof(*icmp)) {
        COUNT(stack, icmp_drop_short);
        return;
    }
    if ((packet->rx_flags & NMIO_RX_CHECKSUM_OK) == 0 && !checksum_good(packet)) {
        COUNT(stack, icmp_drop_checksum);
        return;
    }
    bool own = stack->config.own_address;
    bool too_big = v4 ? icmp->type == ICMP_UNREACHABLE && icmp->code == ICMP_FRAGMENTATION_NEEDED
                      : icmp->type == ICMPV6_PACKET_TOO_BIG;
    if (too_big)
        pmtu_input(stack, packet);
    else if (own && icmp->type == (v4 ? ICMP_ECHO_REQUEST : ICMPV6_ECHO_REQUEST) && icmp->code == 0)
        echo_input(stack, packet);
    else if (own && !v4 &&
             (icmp->type == ICMPV6_NEIGHBOUR_SOLICITATION || icmp->type == ICMPV6_NEIGHBOUR_ADVERTISEMENT))
        nd_input(stack, packet);
    else if (own && !v4 && icmp->type == ICMPV6_MLD_QUERY)
        mld_input(stack, packet);
    else
        COUNT(stack, icmp_drop_type);
}
