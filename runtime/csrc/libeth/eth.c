#include "eth.h"

#include "libnmio/invariant.h"
#include "wire/probe.h"

void eth_init(struct eth *eth, const struct eth_config *config, const uint8_t *secret, struct nmio_region *region,
              struct nmio_tx *tx)
{
    eth->config = *config;
    memcpy(eth->secret, secret, sizeof(eth->secret));
    eth->region = region;
    eth->tx = tx;
    eth->due_us = UINT64_MAX;
    for (uint32_t i = 0; i < config->address_count; i++)
        eth_address_settle(eth, i);
    eth_addresses_changed(eth);
}

static bool is_for_us(const struct eth *eth, const uint8_t *destination)
{
    bool group = (destination[0] & ETH_GROUP) != 0;
    return group || memcmp(destination, eth->config.mac, ETH_ADDRESS_BYTES) == 0;
}

static inline enum eth_verdict verdict_of(struct eth *eth, uint16_t type)
{
    switch (be16(type)) {
    case ETH_TYPE_IPV4:
    case ETH_TYPE_IPV6:
        return ETH_IP;
    case ETH_TYPE_ARP:
        return ETH_ARP;
    default:
        COUNT(eth, eth_drop_type);
        return ETH_DROPPED;
    }
}

/* A tag of VLAN 0 only says what priority the frame has: it is taken off. */
static __attribute__((noinline, cold)) enum eth_verdict take_tagged(struct eth *eth, struct nmio_rx *frame)
{
    const struct wire_vlan *tag = (const struct wire_vlan *)(frame->data + 2 * ETH_ADDRESS_BYTES);
    if (frame->len_bytes < sizeof(struct wire_eth) + sizeof(*tag)) {
        COUNT(eth, eth_drop_short);
        return ETH_DROPPED;
    }
    if ((be16(tag->control) & VLAN_ID_MASK) != 0) {
        COUNT(eth, eth_drop_type);
        return ETH_DROPPED;
    }
    memmove(frame->data + sizeof(*tag), frame->data, 2 * ETH_ADDRESS_BYTES);
    frame->data += sizeof(*tag);
    frame->len_bytes -= (uint32_t)sizeof(*tag);
    return verdict_of(eth, ((const struct wire_eth *)frame->data)->type);
}

enum eth_verdict eth_input(struct eth *eth, struct nmio_rx *frame)
{
    PROBE(eth_input, frame->data, frame->len_bytes);
    COUNT(eth, eth_rx_frames);
    if (frame->len_bytes < sizeof(struct wire_eth)) {
        COUNT(eth, eth_drop_short);
        return ETH_DROPPED;
    }
    const struct wire_eth *header = (const struct wire_eth *)frame->data;
    if (!is_for_us(eth, header->destination)) {
        COUNT(eth, eth_drop_not_ours);
        return ETH_DROPPED;
    }
    if ((header->source[0] & ETH_GROUP) != 0) {
        COUNT(eth, eth_drop_source);
        return ETH_DROPPED;
    }
    return header->type == be16(ETH_TYPE_VLAN) ? take_tagged(eth, frame) : verdict_of(eth, header->type);
}

uint32_t eth_buffer(struct eth *eth)
{
    uint32_t chunk = eth->tx->space > 0 ? nmio_buffer_take(eth->region) : NMIO_NONE;
    if (chunk == NMIO_NONE)
        COUNT(eth, tx_drop_no_space);
    return chunk;
}

void eth_header(const struct eth *eth, struct wire_eth *header, const uint8_t *destination, uint16_t type)
{
    memcpy(header->destination, destination, ETH_ADDRESS_BYTES);
    memcpy(header->source, eth->config.mac, ETH_ADDRESS_BYTES);
    header->type = be16(type);
}

void eth_output(struct eth *eth, uint8_t *frame, uint32_t len_bytes, uint32_t buffer)
{
    struct nmio_tx *tx = eth->tx;
    INVARIANT(tx->space > 0);
    tx->desc[tx->count++] = (struct nmio_tx_desc){.head = frame, .head_bytes = len_bytes, .chunk = buffer};
    tx->space--;
}

void eth_addresses_changed(struct eth *eth)
{
    memset(eth->own_last_bytes, 0, sizeof(eth->own_last_bytes));
    for (uint32_t i = 0; i < eth->config.address_count; i++) {
        const struct eth_address *address = &eth->config.addresses[i];
        uint8_t last = address->bytes[address->family == IP_FAMILY_V4 ? 3 : 15];
        eth->own_last_bytes[last / 64] |= UINT64_C(1) << last % 64;
    }
}

static inline bool is_same_ipv4(const uint8_t *one, const uint8_t *other)
{
    return load_be32(one) == load_be32(other);
}

static inline bool is_same_ipv6(const uint8_t *one, const uint8_t *other)
{
    return ((load64(one) ^ load64(other)) | (load64(one + 8) ^ load64(other + 8))) == 0;
}

int eth_address_find(const struct eth *eth, uint8_t family, const uint8_t *bytes)
{
    for (uint32_t i = 0; i < eth->config.address_count; i++) {
        const struct eth_address *address = &eth->config.addresses[i];
        if (address->family == family &&
            (family == IP_FAMILY_V4 ? is_same_ipv4(address->bytes, bytes) : is_same_ipv6(address->bytes, bytes)))
            return (int)i;
    }
    return -1;
}
