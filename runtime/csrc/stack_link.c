/* What becomes of the stack when its interface changes: stack_link_change. */
#include "libeth/acd.h"
#include "libtcpip/segment_size.h"
#include "stack.h"
#include "stack_state.h"

static void end_connections_of(struct stack *stack, uint32_t place)
{
    for (uint32_t i = 0; i < stack->tcpip.connections.touched; i++) {
        struct tcb *tcb = &stack->tcpip.connections.tcbs[i];
        if (tcb->state != 0 && tcb->flow.local == place)
            connection_destroy(&stack->tcpip, tcb); /* without a word: the address is not ours to speak from */
    }
}

static bool is_same_address(const struct eth_address *one, const struct eth_address *other)
{
    return one->family == other->family && memcmp(one->bytes, other->bytes, sizeof(one->bytes)) == 0;
}

static void change_addresses(struct stack *stack, const struct stack_link *link)
{
    struct eth_config *config = &stack->eth.config;
    for (uint32_t i = 0; i < link->address_count; i++) {
        struct eth_address *address = &config->addresses[i];
        bool used = i < config->address_count;
        if (used && is_same_address(address, &link->addresses[i]))
            continue;
        if (used)
            end_connections_of(stack, i);
        *address = link->addresses[i];
        eth_address_settle(&stack->eth, i);
    }
    config->address_count = link->address_count;
    eth_addresses_changed(&stack->eth);
}

/* Connections send from the MAC that is ours. */
static void set_sources(struct stack *stack)
{
    const uint8_t *mac = stack->eth.config.mac;
    for (uint32_t i = 0; i < stack->tcpip.connections.touched; i++) {
        struct wire_eth *eth = (struct wire_eth *)stack->tcpip.connections.tcbs[i].header;
        if (stack->tcpip.connections.tcbs[i].state != 0)
            memcpy(eth->source, mac, sizeof(eth->source));
    }
}

static void change_mac(struct stack *stack, const uint8_t *mac)
{
    memcpy(stack->eth.config.mac, mac, sizeof(stack->eth.config.mac));
    set_sources(stack);
}

void stack_link_resumed(struct stack *stack, const struct eth_config *before)
{
    const struct eth_config *config = &stack->eth.config;
    for (uint32_t i = 0; i < config->address_count; i++)
        if (!is_same_address(&config->addresses[i], &before->addresses[i]))
            end_connections_of(stack, i);
    set_sources(stack);
    segment_size_interface(&stack->tcpip);
}

bool stack_link_change(struct stack *stack, const struct stack_link *link)
{
    struct eth_config *config = &stack->eth.config;
    if (link->mtu_bytes < TCPIP_MTU_BYTES_MIN || link->mtu_bytes > TCPIP_MTU_BYTES_MAX ||
        link->address_count < config->address_count || link->address_count > ETH_ADDRESSES_MAX)
        return false;
    bool smaller = link->mtu_bytes < stack->tcpip.config.mtu_bytes;
    stack->tcpip.config.mtu_bytes = link->mtu_bytes;
    if (!config->own_address)
        change_addresses(stack, link);
    if (memcmp(config->mac, link->mac, sizeof(config->mac)) != 0)
        change_mac(stack, link->mac);
    if (link->announce)
        acd_announce(&stack->eth);
    if (smaller)
        segment_size_interface(&stack->tcpip);
    return true;
}
