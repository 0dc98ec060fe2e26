#include "claim.h"

#include "neighbour.h"
#include "stack_internal.h"
#include "wire/siphash.h"
#include "wire/wire.h"

/* IPv4, RFC 5227 section 1.1. Its own times add up to nine seconds, for links as slow as those of 1995 and for hosts
 * that pick an address by themselves. Ours is a wired link on which an answer takes well under a millisecond, and an
 * address that an operator chose: whoever has it is there already and answers the first probe. So all times up to the
 * first announcement are divided by about ten (section 2.2 foresees that); the numbers of frames, and what comes after,
 * are kept. */
#define PROBE_WAIT_MAX_US 100000 /* PROBE_WAIT: 1 s */
#define PROBE_NUM 3
#define PROBE_MIN_US 200000 /* PROBE_MIN: 1 s */
#define PROBE_MAX_US 300000 /* PROBE_MAX: 2 s */
#define ANNOUNCE_WAIT_US 300000 /* ANNOUNCE_WAIT: 2 s */
#define ANNOUNCE_NUM 2
#define ANNOUNCE_INTERVAL_US 2000000
#define DEFEND_INTERVAL_US 10000000

/* IPv6. The wait before the first solicitation (RFC 4862 section 5.4.2: up to MAX_RTR_SOLICITATION_DELAY, 1 s) keeps
 * hosts apart that were switched on together; it is IPv4's here. */
#define DUP_ADDR_DETECT_TRANSMITS 1 /* RFC 4862 section 5.1 */
#define RETRANS_TIMER_US 1000000 /* RFC 4861 section 10 */
#define MAX_NEIGHBOR_ADVERTISEMENT 3 /* RFC 4861 section 10; at most so many, RETRANS_TIMER apart: section 7.2.6 */

#define CLAIM_RETRY_US 1000 /* without room in tx: a timer's tick, so that the loop need not spin for it */

/* How a family goes about it. */
struct claim_plan {
    uint32_t probes, probe_min_us, probe_max_us;
    uint32_t wait_us; /* behind the last probe */
    uint32_t announcements, announce_us;
};

static const struct claim_plan plan_ipv4 = {PROBE_NUM,        PROBE_MIN_US, PROBE_MAX_US,
                                            ANNOUNCE_WAIT_US, ANNOUNCE_NUM, ANNOUNCE_INTERVAL_US};
static const struct claim_plan plan_ipv6 = {DUP_ADDR_DETECT_TRANSMITS, RETRANS_TIMER_US,           RETRANS_TIMER_US,
                                            RETRANS_TIMER_US,          MAX_NEIGHBOR_ADVERTISEMENT, RETRANS_TIMER_US};
static const uint8_t zero[16];

static bool is_ipv4(const struct stack *stack, uint32_t index)
{
    return stack->config.addresses[index].family == SSI_FAMILY_IPV4;
}

/* Other threads look at it. */
static void set_state(struct claim *claim, uint32_t state)
{
    __atomic_store_n(&claim->state, state, __ATOMIC_RELEASE);
}

uint32_t stack_address_state(const struct stack *stack, uint32_t index)
{
    return __atomic_load_n(&stack->claims[index].state, __ATOMIC_ACQUIRE);
}

uint32_t stack_address_conflicts(const struct stack *stack, uint32_t index, uint8_t *mac)
{
    const struct claim *claim = &stack->claims[index];
    uint32_t conflicts = __atomic_load_n(&claim->conflicts, __ATOMIC_ACQUIRE);
    uint64_t other_mac = __atomic_load_n(&claim->other_mac, __ATOMIC_RELAXED);
    memcpy(mac, &other_mac, ETH_ADDRESS_BYTES);
    return conflicts;
}

void claim_init(struct stack *stack)
{
    uint32_t how = stack->config.own_address ? stack->config.claim : STACK_CLAIM_NONE;
    bool tentative = how == STACK_CLAIM_CHECK || how == STACK_CLAIM_WATCH;
    bool idle = how == STACK_CLAIM_NONE || how == STACK_CLAIM_WATCH;
    enum claim_step step = how == STACK_CLAIM_CHECK ? CLAIM_BEGIN : CLAIM_ANNOUNCE;
    for (uint32_t i = 0; i < stack->config.address_count; i++)
        stack->claims[i] = (struct claim){.state = tentative ? STACK_ADDRESS_TENTATIVE : STACK_ADDRESS_OURS,
                                          .next_us = idle ? UINT64_MAX : 0,
                                          .step = idle ? CLAIM_REST : step};
    stack->claim_next_us = idle ? UINT64_MAX : 0;
    mld_init(stack);
}

void stack_addresses_granted(struct stack *stack)
{
    for (uint32_t i = 0; i < stack->config.address_count; i++)
        if (stack->config.claim == STACK_CLAIM_WATCH && stack->claims[i].state == STACK_ADDRESS_TENTATIVE)
            set_state(&stack->claims[i], STACK_ADDRESS_OURS);
}

void claim_announce(struct stack *stack)
{
    uint32_t how = stack->config.own_address ? stack->config.claim : STACK_CLAIM_NONE;
    if (how != STACK_CLAIM_ANNOUNCE && how != STACK_CLAIM_CHECK)
        return;
    for (uint32_t i = 0; i < stack->config.address_count; i++) {
        struct claim *claim = &stack->claims[i];
        if (claim->state != STACK_ADDRESS_OURS)
            continue;
        claim->step = CLAIM_ANNOUNCE;
        claim->sent = 0;
        claim->next_us = stack->claim_next_us = stack->now_us;
    }
    mld_init(stack);
}

/* From the stack's secret, the address and how far we are: hosts that start together part, and we need no dice. */
static uint32_t random_us(const struct stack *stack, uint32_t index, uint32_t min_us, uint32_t max_us)
{
    struct {
        uint8_t address[16];
        uint32_t step, sent;
    } key = {.step = (uint32_t)stack->claims[index].step, .sent = stack->claims[index].sent};
    memcpy(key.address, stack->config.addresses[index].bytes, sizeof(key.address));
    uint64_t hash = siphash(stack->config.secret, &key, sizeof(key));
    return min_us + (uint32_t)(hash % (max_us - min_us + 1));
}

/* RFC 5227: a probe is a request from nobody (section 2.1.1), an announcement one from us for ourselves (section 2.3). */
static bool send_arp(struct stack *stack, uint32_t index, bool probe)
{
    static const uint8_t broadcast[ETH_ADDRESS_BYTES] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    const uint8_t *address = stack->config.addresses[index].bytes;
    const struct arp_message message = {.operation = ARP_REQUEST,
                                        .to_mac = broadcast,
                                        .sender_ip = probe ? zero : address,
                                        .target_mac = zero,
                                        .target_ip = address};
    if (!arp_output(stack, &message))
        return false;
    if (probe)
        COUNT(stack, arp_tx_probes);
    else
        COUNT(stack, arp_tx_announcements);
    return true;
}

/* RFC 4862 section 5.4.2: a solicitation without source to the address's solicited-node group; RFC 4861 section 7.2.6:
 * an advertisement to all nodes that overrides what they know. */
static bool send_nd(struct stack *stack, uint32_t index, bool probe)
{
    const uint8_t *address = stack->config.addresses[index].bytes;
    uint8_t group[16], mac[ETH_ADDRESS_BYTES];
    memcpy(group, nd_all_nodes, sizeof(group));
    if (probe) {
        memcpy(group, nd_solicited_node_prefix, sizeof(nd_solicited_node_prefix));
        memcpy(group + 13, address + 13, 3);
    }
    nd_group_mac(group, mac);
    const struct nd_message message = {.type = probe ? ICMPV6_NEIGHBOUR_SOLICITATION : ICMPV6_NEIGHBOUR_ADVERTISEMENT,
                                       .flags = probe ? 0 : ND_FLAG_OVERRIDE,
                                       .to_mac = mac,
                                       .source = probe ? zero : address,
                                       .destination = group,
                                       .target = address};
    if (!nd_output(stack, &message))
        return false;
    if (probe)
        COUNT(stack, nd_tx_probes);
    else
        COUNT(stack, nd_tx_announcements);
    return true;
}

static void probe_sent(const struct stack *stack, struct claim *claim, uint32_t index, const struct claim_plan *plan)
{
    if (++claim->sent < plan->probes) {
        claim->next_us = stack->now_us + random_us(stack, index, plan->probe_min_us, plan->probe_max_us);
        return;
    }
    claim->next_us = stack->now_us + plan->wait_us;
    claim->step = CLAIM_ANNOUNCE;
    claim->sent = 0;
}

/* The address may be used from the first announcement on, RFC 5227 section 2.3. */
static void announcement_sent(const struct stack *stack, struct claim *claim, const struct claim_plan *plan)
{
    set_state(claim, STACK_ADDRESS_OURS);
    if (++claim->sent < plan->announcements) {
        claim->next_us = stack->now_us + plan->announce_us;
        return;
    }
    claim->next_us = UINT64_MAX;
    claim->step = CLAIM_REST;
}

static void go_on(struct stack *stack, uint32_t index)
{
    struct claim *claim = &stack->claims[index];
    bool v4 = is_ipv4(stack, index), probe = claim->step == CLAIM_PROBE;
    const struct claim_plan *plan = v4 ? &plan_ipv4 : &plan_ipv6;
    if (claim->step == CLAIM_BEGIN) {
        claim->next_us = stack->now_us + random_us(stack, index, 0, PROBE_WAIT_MAX_US);
        claim->step = CLAIM_PROBE;
        return;
    }
    bool has_room = stack->tx->space > 0 && stack->region->free_count > 0;
    if (!has_room || !(v4 ? send_arp(stack, index, probe) : send_nd(stack, index, probe)))
        claim->next_us = stack->now_us + CLAIM_RETRY_US;
    else if (probe)
        probe_sent(stack, claim, index, plan);
    else
        announcement_sent(stack, claim, plan);
}

void claim_run(struct stack *stack)
{
    mld_run(stack); /* before the first solicitation, RFC 4862 section 5.4.2: its answers go to the group */
    stack->claim_next_us = stack->mld.next_us;
    for (uint32_t i = 0; i < stack->config.address_count; i++) {
        struct claim *claim = &stack->claims[i];
        if (claim->next_us <= stack->now_us)
            go_on(stack, i);
        if (claim->next_us < stack->claim_next_us)
            stack->claim_next_us = claim->next_us;
    }
}

static void contest(struct stack *stack, uint32_t index, const uint8_t *mac)
{
    struct claim *claim = &stack->claims[index];
    uint64_t other_mac = 0;
    memcpy(&other_mac, mac, ETH_ADDRESS_BYTES);
    __atomic_store_n(&claim->other_mac, other_mac, __ATOMIC_RELAXED);
    __atomic_store_n(&claim->conflicts, claim->conflicts + 1, __ATOMIC_RELEASE);
    if (claim->state != STACK_ADDRESS_TENTATIVE)
        return;
    claim->next_us = UINT64_MAX;
    claim->step = CLAIM_REST;
    set_state(claim, STACK_ADDRESS_CONFLICT);
}

/* RFC 5227 section 2.4 (c): a server's address must be stable, so it is kept, and the neighbours are told again whose
 * it is; never twice within DEFEND_INTERVAL, or two hosts would go on for ever. */
static void defend(struct stack *stack, uint32_t index)
{
    struct claim *claim = &stack->claims[index];
    if (stack->now_us < claim->defend_us || !send_arp(stack, index, false))
        return;
    COUNT(stack, arp_tx_defences);
    claim->defend_us = stack->now_us + DEFEND_INTERVAL_US;
}

bool claim_arp(struct stack *stack, const struct wire_arp *arp)
{
    int used = stack_address_find(stack, SSI_FAMILY_IPV4, arp->sender_ip);
    int asked = stack_address_find(stack, SSI_FAMILY_IPV4, arp->target_ip);
    if (used >= 0) { /* as a reply, an announcement or a question: somebody uses it */
        COUNT(stack, arp_conflicts);
        contest(stack, (uint32_t)used, arp->sender_mac);
        if (stack_address_is_ours(stack, (uint32_t)used))
            defend(stack, (uint32_t)used);
        return true;
    }
    /* A probe while we probe. One for an address that is ours gets a reply, like any other question. */
    bool probe = be16(arp->operation) == ARP_REQUEST && memcmp(arp->sender_ip, zero, sizeof(arp->sender_ip)) == 0;
    if (!probe || asked < 0 || stack_address_is_ours(stack, (uint32_t)asked))
        return false;
    COUNT(stack, arp_conflicts);
    contest(stack, (uint32_t)asked, arp->sender_mac);
    return true;
}

/* RFC 4862 sections 5.4.3 and 5.4.4. */
bool claim_neighbour(struct stack *stack, uint32_t index, bool advertisement, const uint8_t *mac)
{
    if (!advertisement && stack_address_is_ours(stack, index))
        return false; /* our advertisement will stop it */
    COUNT(stack, nd_conflicts);
    contest(stack, index, mac);
    return true;
}
