#include "acd.h"

#include "mld.h"
#include "neighbour_frame.h"
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

#define RETRY_US 1000 /* without room in tx: a timer's tick, so that the loop need not spin for it */

/* How a family goes about it. */
struct acd_plan {
    uint32_t probes, probe_min_us, probe_max_us;
    uint32_t wait_us; /* behind the last probe */
    uint32_t announcements, announce_us;
};

static const struct acd_plan plan_ipv4 = {PROBE_NUM,        PROBE_MIN_US, PROBE_MAX_US,
                                          ANNOUNCE_WAIT_US, ANNOUNCE_NUM, ANNOUNCE_INTERVAL_US};
static const struct acd_plan plan_ipv6 = {DUP_ADDR_DETECT_TRANSMITS, RETRANS_TIMER_US,           RETRANS_TIMER_US,
                                          RETRANS_TIMER_US,          MAX_NEIGHBOR_ADVERTISEMENT, RETRANS_TIMER_US};
static const uint8_t zero[16];

static bool is_ipv4(const struct eth *eth, uint32_t index)
{
    return eth->config.addresses[index].family == IP_FAMILY_V4;
}

/* Other threads look at it. */
static void set_state(struct acd *acd, uint32_t state)
{
    __atomic_store_n(&acd->state, state, __ATOMIC_RELEASE);
}

uint32_t acd_state(const struct eth *eth, uint32_t index)
{
    return __atomic_load_n(&eth->acd[index].state, __ATOMIC_ACQUIRE);
}

uint32_t acd_conflicts(const struct eth *eth, uint32_t index, uint8_t *mac)
{
    const struct acd *acd = &eth->acd[index];
    uint32_t conflicts = __atomic_load_n(&acd->conflicts, __ATOMIC_ACQUIRE);
    uint64_t other_mac = __atomic_load_n(&acd->other_mac, __ATOMIC_RELAXED);
    memcpy(mac, &other_mac, ETH_ADDRESS_BYTES);
    return conflicts;
}

void acd_init(struct eth *eth)
{
    uint32_t how = eth->config.own_address ? eth->config.acd : ETH_ACD_NONE;
    bool tentative = how == ETH_ACD_CHECK || how == ETH_ACD_FOLLOW;
    bool idle = how == ETH_ACD_NONE || how == ETH_ACD_FOLLOW;
    enum acd_step step = how == ETH_ACD_CHECK ? ACD_BEGIN : ACD_ANNOUNCE;
    for (uint32_t i = 0; i < eth->config.address_count; i++)
        eth->acd[i] = (struct acd){.state = tentative ? ETH_ADDRESS_TENTATIVE : ETH_ADDRESS_OURS,
                                   .next_us = idle ? UINT64_MAX : 0,
                                   .step = idle ? ACD_REST : step};
    eth->due_us = idle ? UINT64_MAX : 0;
    mld_init(eth);
}

void acd_confirmed(struct eth *eth)
{
    for (uint32_t i = 0; i < eth->config.address_count; i++)
        if (eth->config.acd == ETH_ACD_FOLLOW && eth->acd[i].state == ETH_ADDRESS_TENTATIVE)
            set_state(&eth->acd[i], ETH_ADDRESS_OURS);
}

void acd_announce(struct eth *eth)
{
    uint32_t how = eth->config.own_address ? eth->config.acd : ETH_ACD_NONE;
    if (how != ETH_ACD_ANNOUNCE && how != ETH_ACD_CHECK)
        return;
    for (uint32_t i = 0; i < eth->config.address_count; i++) {
        struct acd *acd = &eth->acd[i];
        if (acd->state != ETH_ADDRESS_OURS)
            continue;
        acd->step = ACD_ANNOUNCE;
        acd->sent = 0;
        acd->next_us = eth->due_us = eth->now_us;
    }
    mld_init(eth);
}

/* From the secret, the address and how far we are: hosts that start together part, and we need no dice. */
static uint32_t random_us(const struct eth *eth, uint32_t index, uint32_t min_us, uint32_t max_us)
{
    struct {
        uint8_t address[16];
        uint32_t step, sent;
    } key = {.step = (uint32_t)eth->acd[index].step, .sent = eth->acd[index].sent};
    memcpy(key.address, eth->config.addresses[index].bytes, sizeof(key.address));
    uint64_t hash = siphash(eth->secret, &key, sizeof(key));
    return min_us + (uint32_t)(hash % (max_us - min_us + 1));
}

/* RFC 5227: a probe is a request from nobody (section 2.1.1), an announcement one from us for ourselves (section 2.3). */
static bool send_arp(struct eth *eth, uint32_t index, bool probe)
{
    static const uint8_t broadcast[ETH_ADDRESS_BYTES] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    const uint8_t *address = eth->config.addresses[index].bytes;
    const struct arp_message message = {.operation = ARP_REQUEST,
                                        .to_mac = broadcast,
                                        .sender_ip = probe ? zero : address,
                                        .target_mac = zero,
                                        .target_ip = address};
    if (!arp_output(eth, &message))
        return false;
    if (probe)
        COUNT(eth, arp_tx_probes);
    else
        COUNT(eth, arp_tx_announcements);
    return true;
}

/* RFC 4862 section 5.4.2: a solicitation without source to the address's solicited-node group; RFC 4861 section 7.2.6:
 * an advertisement to all nodes that overrides what they know. */
static bool send_nd(struct eth *eth, uint32_t index, bool probe)
{
    const uint8_t *address = eth->config.addresses[index].bytes;
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
    if (!nd_output(eth, &message))
        return false;
    if (probe)
        COUNT(eth, nd_tx_probes);
    else
        COUNT(eth, nd_tx_announcements);
    return true;
}

static void probe_sent(const struct eth *eth, struct acd *acd, uint32_t index, const struct acd_plan *plan)
{
    if (++acd->sent < plan->probes) {
        acd->next_us = eth->now_us + random_us(eth, index, plan->probe_min_us, plan->probe_max_us);
        return;
    }
    acd->next_us = eth->now_us + plan->wait_us;
    acd->step = ACD_ANNOUNCE;
    acd->sent = 0;
}

/* The address may be used from the first announcement on, RFC 5227 section 2.3. */
static void announcement_sent(const struct eth *eth, struct acd *acd, const struct acd_plan *plan)
{
    set_state(acd, ETH_ADDRESS_OURS);
    if (++acd->sent < plan->announcements) {
        acd->next_us = eth->now_us + plan->announce_us;
        return;
    }
    acd->next_us = UINT64_MAX;
    acd->step = ACD_REST;
}

static void go_on(struct eth *eth, uint32_t index)
{
    struct acd *acd = &eth->acd[index];
    bool v4 = is_ipv4(eth, index), probe = acd->step == ACD_PROBE;
    const struct acd_plan *plan = v4 ? &plan_ipv4 : &plan_ipv6;
    if (acd->step == ACD_BEGIN) {
        acd->next_us = eth->now_us + random_us(eth, index, 0, PROBE_WAIT_MAX_US);
        acd->step = ACD_PROBE;
        return;
    }
    bool has_room = eth->tx->space > 0 && eth->region->free_count > 0;
    if (!has_room || !(v4 ? send_arp(eth, index, probe) : send_nd(eth, index, probe)))
        acd->next_us = eth->now_us + RETRY_US;
    else if (probe)
        probe_sent(eth, acd, index, plan);
    else
        announcement_sent(eth, acd, plan);
}

void acd_run(struct eth *eth)
{
    mld_run(eth); /* before the first solicitation, RFC 4862 section 5.4.2: its answers go to the group */
    eth->due_us = eth->mld.next_us;
    for (uint32_t i = 0; i < eth->config.address_count; i++) {
        struct acd *acd = &eth->acd[i];
        if (acd->next_us <= eth->now_us)
            go_on(eth, i);
        if (acd->next_us < eth->due_us)
            eth->due_us = acd->next_us;
    }
}

static void contest(struct eth *eth, uint32_t index, const uint8_t *mac)
{
    struct acd *acd = &eth->acd[index];
    uint64_t other_mac = 0;
    memcpy(&other_mac, mac, ETH_ADDRESS_BYTES);
    __atomic_store_n(&acd->other_mac, other_mac, __ATOMIC_RELAXED);
    __atomic_store_n(&acd->conflicts, acd->conflicts + 1, __ATOMIC_RELEASE);
    if (acd->state != ETH_ADDRESS_TENTATIVE)
        return;
    acd->next_us = UINT64_MAX;
    acd->step = ACD_REST;
    set_state(acd, ETH_ADDRESS_CONFLICT);
}

/* RFC 5227 section 2.4 (c): a server's address must be stable, so it is kept, and the neighbours are told again whose
 * it is; never twice within DEFEND_INTERVAL, or two hosts would go on for ever. */
static void defend(struct eth *eth, uint32_t index)
{
    struct acd *acd = &eth->acd[index];
    if (eth->now_us < acd->defend_us || !send_arp(eth, index, false))
        return;
    COUNT(eth, arp_tx_defences);
    acd->defend_us = eth->now_us + DEFEND_INTERVAL_US;
}

bool acd_arp(struct eth *eth, const struct wire_arp *arp)
{
    int used = eth_address_find(eth, IP_FAMILY_V4, arp->sender_ip);
    int asked = eth_address_find(eth, IP_FAMILY_V4, arp->target_ip);
    if (used >= 0) { /* as a reply, an announcement or a question: somebody uses it */
        COUNT(eth, arp_conflicts);
        contest(eth, (uint32_t)used, arp->sender_mac);
        if (eth_address_is_ours(eth, (uint32_t)used))
            defend(eth, (uint32_t)used);
        return true;
    }
    /* A probe while we probe. One for an address that is ours gets a reply, like any other question. */
    bool probe = be16(arp->operation) == ARP_REQUEST && memcmp(arp->sender_ip, zero, sizeof(arp->sender_ip)) == 0;
    if (!probe || asked < 0 || eth_address_is_ours(eth, (uint32_t)asked))
        return false;
    COUNT(eth, arp_conflicts);
    contest(eth, (uint32_t)asked, arp->sender_mac);
    return true;
}

/* RFC 4862 sections 5.4.3 and 5.4.4. */
bool acd_neighbour(struct eth *eth, uint32_t index, bool advertisement, const uint8_t *mac)
{
    if (!advertisement && eth_address_is_ours(eth, index))
        return false; /* our advertisement will stop it */
    COUNT(eth, nd_conflicts);
    contest(eth, index, mac);
    return true;
}
