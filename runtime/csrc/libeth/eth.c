#include "libtcpip/wire.h"
#include "probe.h"
#include "stack_internal.h"

static bool is_for_us(const struct stack *stack, const uint8_t *destination)
{
    bool group = (destination[0] & 1) != 0; /* multicast or broadcast */
    return group || memcmp(destination, stack->config.mac, ETH_ADDRESS_BYTES) == 0;
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
    if (!is_for_us(stack, eth->destination)) {
        COUNT(stack, eth_drop_not_ours);
        return;
    }
    switch (be16(eth->type)) {
    case ETH_TYPE_IPV4:
    case ETH_TYPE_IPV6:
        tcpip_input(stack, rx->data, rx->len_bytes, rx->flags);
        break;
    case ETH_TYPE_ARP:
        arp_input(stack, rx->data, rx->len_bytes);
        break;
    default:
        COUNT(stack, eth_drop_type);
    }
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
