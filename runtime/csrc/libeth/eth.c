#include "stack_internal.h"
#include "wire/probe.h"
#include "wire/wire.h"

static bool is_for_us(const struct stack *stack, const uint8_t *destination)
{
    bool group = (destination[0] & ETH_GROUP) != 0;
    return group || memcmp(destination, stack->config.mac, ETH_ADDRESS_BYTES) == 0;
}

/* Inlined where frames come without a tag, as nearly all do. */
static inline __attribute__((always_inline)) void take_untagged(struct stack *stack, uint8_t *frame,
                                                                uint32_t len_bytes, uint32_t rx_flags)
{
    switch (be16(((const struct wire_eth *)frame)->type)) {
    case ETH_TYPE_IPV4:
    case ETH_TYPE_IPV6:
        tcpip_input(stack, frame, len_bytes, rx_flags);
        break;
    case ETH_TYPE_ARP:
        arp_input(stack, frame, len_bytes);
        break;
    default:
        COUNT(stack, eth_drop_type);
    }
}

/* A tag of VLAN 0 only says what priority the frame has: it is taken off. */
static __attribute__((noinline, cold)) void take_tagged(struct stack *stack, uint8_t *frame, uint32_t len_bytes,
                                                        uint32_t rx_flags)
{
    const struct wire_vlan *tag = (const struct wire_vlan *)(frame + 2 * ETH_ADDRESS_BYTES);
    if (len_bytes < sizeof(struct wire_eth) + sizeof(*tag)) {
        COUNT(stack, eth_drop_short);
        return;
    }
    if ((be16(tag->control) & VLAN_ID_MASK) != 0) {
        COUNT(stack, eth_drop_type);
        return;
    }
    memmove(frame + sizeof(*tag), frame, 2 * ETH_ADDRESS_BYTES);
    take_untagged(stack, frame + sizeof(*tag), len_bytes - (uint32_t)sizeof(*tag), rx_flags);
}

void eth_input(struct stack *stack, const struct nmio_rx *rx)
{
    PROBE(eth_input, rx->data, rx->len_bytes);
    COUNT(stack, eth_rx_frames);
    if (rx->len_bytes < sizeof(struct wire_eth)) {
        COUNT(stack, eth_drop_short);
        return;
    }
    const struct wire_eth *eth = (const struct wire_eth *)rx->data;
    if (!is_for_us(stack, eth->destination))
        COUNT(stack, eth_drop_not_ours);
    else if ((eth->source[0] & ETH_GROUP) != 0)
        COUNT(stack, eth_drop_source);
    else if (eth->type == be16(ETH_TYPE_VLAN))
        take_tagged(stack, rx->data, rx->len_bytes, rx->flags);
    else
        take_untagged(stack, rx->data, rx->len_bytes, rx->flags);
}

uint32_t eth_buffer(struct stack *stack)
{
    uint32_t chunk = stack->tx->space > 0 ? nmio_buffer_take(stack->region) : NMIO_NONE;
    if (chunk == NMIO_NONE)
        COUNT(stack, tx_drop_no_space);
    return chunk;
}

void eth_output(struct stack *stack, uint8_t *frame, uint32_t len_bytes, uint32_t chunk)
{
    struct nmio_tx *tx = stack->tx;
    tx->desc[tx->count++] = (struct nmio_tx_desc){.head = frame, .head_bytes = len_bytes, .chunk = chunk};
    tx->space--;
}
