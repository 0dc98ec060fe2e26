/* What becomes of the stack when its interface changes: stack_link_change. */
#include "libtcpip/tcp.h"
#include "stack_internal.h"

static void end_connections_of(struct stack *stack, uint32_t place)
{
    for (uint32_t i = 0; i < stack->config.max_connections; i++) {
        struct tcb *tcb = &stack->tcbs[i];
        if (tcb->state != 0 && tcb->flow.local == place)
            tcb_destroy(stack, tcb); /* without a word: the address is not ours to speak from */
    }
}

static bool is_same_address(const struct stack_address *one, const struct stack_address *other)
{
    return one->family == other->family && memcmp(one->bytes, other->bytes, sizeof(one->bytes)) == 0;
}

static void change_addresses(struct stack *stack, const struct stack_link *link)
{
    struct stack_config *config = &stack->config;
    for (uint32_t i = 0; i < link->address_count; i++) {
        struct stack_address *address = &config->addresses[i];
        bool used = i < config->address_count;
        if (used && is_same_address(address, &link->addresses[i]))
            continue;
        if (used)
            end_connections_of(stack, i);
        *address = link->addresses[i];
        stack->claims[i] = (struct claim){.state = STACK_ADDRESS_OURS, .next_us = UINT64_MAX, .step = CLAIM_REST};
    }
    config->address_count = link->address_count;
    ip_init(stack);
}

static void change_mac(struct stack *stack, const uint8_t *mac)
{
    memcpy(stack->config.mac, mac, sizeof(stack->config.mac));
    for (uint32_t i = 0; i < stack->config.max_connections; i++) {
        struct wire_eth *eth = (struct wire_eth *)stack->tcbs[i].header;
        if (stack->tcbs[i].state != 0)
            memcpy(eth->source, mac, sizeof(eth->source));
    }
}

bool stack_link_change(struct stack *stack, const struct stack_link *link)
{
    struct stack_config *config = &stack->config;
    if (link->mtu_bytes < STACK_MTU_BYTES_MIN || link->mtu_bytes > STACK_MTU_BYTES_MAX ||
        link->address_count < config->address_count || link->address_count > STACK_ADDRESSES_MAX)
        return false;
    bool smaller = link->mtu_bytes < config->mtu_bytes;
    config->mtu_bytes = link->mtu_bytes;
    if (!config->own_address)
        change_addresses(stack, link);
    if (memcmp(config->mac, link->mac, sizeof(config->mac)) != 0)
        change_mac(stack, link->mac);
    if (link->announce)
        claim_announce(stack);
    if (smaller)
        pmtu_interface(stack);
    return true;
}
