#include "mld.h"

#include "neighbour_frame.h"
#include "wire/checksum.h"
#include "wire/siphash.h"

/* RFC 3810 section 9. */
#define ROBUSTNESS 2 /* reports of a change: one may be lost */
#define UNSOLICITED_REPORT_INTERVAL_US 1000000
#define QUERY_BYTES 28 /* section 5.1; of version 1 it has 24 */
#define HOP_LIMIT 1
#define MODE_IS_EXCLUDE 2 /* section 5.2.12: of no sources, so we listen to all */
#define CHANGE_TO_EXCLUDE_MODE 4
#define REPORT_INTERVAL_US 100000 /* between two, however many ask: as no switch forgets that soon */
#define RETRY_US 1000 /* without room in tx */

/* IPv6 with a hop-by-hop header that has a router alert (RFC 2711) and padding, then a report with records behind it. */
struct report_head {
    struct wire_ipv6 ip;
    uint8_t next, units, alert[4], pad[2];
    struct wire_icmp icmp; /* rest: 16 zero bits, and the number of records */
} __attribute__((packed));

struct report_record {
    uint8_t type, auxiliary_units;
    uint16_t source_count;
    uint8_t group[16];
} __attribute__((packed));

struct report {
    struct report_head head;
    struct report_record records[ETH_ADDRESSES_MAX];
} __attribute__((packed));

static const uint8_t mldv2_routers[16] = {0xff, 2, [15] = 0x16};

static bool is_link_local(const uint8_t *address)
{
    return address[0] == 0xfe && (address[1] & 0xc0) == 0x80;
}

static bool listens(const struct eth *eth, uint32_t index)
{
    return eth->config.addresses[index].family == IP_FAMILY_V6 && eth->acd[index].state != ETH_ADDRESS_CONFLICT;
}

/* Each group once: addresses that end alike share one. */
static uint32_t put_records(const struct eth *eth, struct report_record *records, uint8_t type)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < eth->config.address_count; i++) {
        struct report_record record = {.type = type};
        bool known = false;
        if (!listens(eth, i))
            continue;
        memcpy(record.group, nd_solicited_node_prefix, sizeof(nd_solicited_node_prefix));
        memcpy(record.group + 13, eth->config.addresses[i].bytes + 13, 3);
        for (uint32_t r = 0; r < count; r++)
            known = known || memcmp(&records[r], &record, sizeof(record)) == 0;
        if (!known)
            records[count++] = record;
    }
    return count;
}

/* Section 5.2.13: a link-local address, or none, as while we ask whether we may have one. */
static void put_source(const struct eth *eth, uint8_t *source)
{
    for (uint32_t i = 0; i < eth->config.address_count; i++) {
        const struct eth_address *address = &eth->config.addresses[i];
        if (address->family == IP_FAMILY_V6 && is_link_local(address->bytes) && eth_address_is_ours(eth, i)) {
            memcpy(source, address->bytes, sizeof(address->bytes));
            return;
        }
    }
}

/* Returns the report's length; 0: there is no group. */
static uint32_t make_report(const struct eth *eth, struct report *report, uint8_t type)
{
    uint32_t count = put_records(eth, report->records, type);
    uint32_t icmp_bytes = (uint32_t)(sizeof(report->head.icmp) + count * sizeof(report->records[0]));
    uint32_t payload_bytes = (uint32_t)(sizeof(report->head) - sizeof(report->head.ip) - sizeof(report->head.icmp));
    payload_bytes += icmp_bytes;
    report->head = (struct report_head){.ip = {.version_class_flow = be32(0x60000000),
                                               .payload_bytes = be16((uint16_t)payload_bytes),
                                               .next_header = IPV6_HOP_BY_HOP,
                                               .hop_limit = HOP_LIMIT},
                                        .next = IP_PROTOCOL_ICMPV6,
                                        .alert = {5, 2, 0, 0}, /* router alert of two bytes: MLD */
                                        .pad = {1, 0}, /* PadN of none */
                                        .icmp = {.type = ICMPV6_MLDV2_REPORT, .rest = be32(count)}};
    put_source(eth, report->head.ip.source);
    memcpy(report->head.ip.destination, mldv2_routers, sizeof(mldv2_routers));
    uint64_t sum = checksum_sum(report->head.ip.source, 32) + checksum_pseudo(IP_PROTOCOL_ICMPV6, icmp_bytes) +
                   checksum_sum(&report->head.icmp, icmp_bytes);
    report->head.icmp.checksum = (uint16_t)~checksum_fold(sum);
    return count > 0 ? (uint32_t)sizeof(report->head.ip) + payload_bytes : 0;
}

/* False: there is no room. */
static bool send_report(struct eth *eth, uint8_t type)
{
    struct report report;
    uint32_t bytes = make_report(eth, &report, type);
    if (bytes == 0)
        return true;
    uint32_t chunk = eth->tx->space > 0 && eth->region->free_count > 0 ? eth_buffer(eth) : NMIO_NONE;
    if (chunk == NMIO_NONE)
        return false;
    uint8_t *frame = nmio_chunk(eth->region, chunk) + ETH_BUFFER_OFFSET;
    struct wire_eth *header = (struct wire_eth *)frame;
    uint8_t group_mac[ETH_ADDRESS_BYTES];
    nd_group_mac(mldv2_routers, group_mac);
    eth_header(eth, header, group_mac, ETH_TYPE_IPV6);
    memcpy(header + 1, &report, bytes);
    COUNT(eth, mld_tx_reports);
    eth_output(eth, frame, (uint32_t)sizeof(*header) + bytes, chunk);
    return true;
}

/* From the secret and the time, so that those who were asked together part. */
static uint64_t random_us(const struct eth *eth, uint64_t max_us)
{
    return siphash(eth->secret, &eth->now_us, sizeof(eth->now_us)) % (max_us + 1);
}

void mld_init(struct eth *eth)
{
    uint32_t how = eth->config.own_address ? eth->config.acd : ETH_ACD_NONE;
    bool joins = how == ETH_ACD_ANNOUNCE || how == ETH_ACD_CHECK;
    uint32_t groups = 0;
    for (uint32_t i = 0; i < eth->config.address_count; i++)
        groups += listens(eth, i);
    eth->mld.joins_left = joins && groups > 0 ? ROBUSTNESS : 0;
    eth->mld.next_us = eth->mld.joins_left > 0 ? 0 : UINT64_MAX;
}

void mld_run(struct eth *eth)
{
    struct mld *mld = &eth->mld;
    if (mld->next_us > eth->now_us)
        return;
    if (!send_report(eth, mld->joins_left > 0 ? CHANGE_TO_EXCLUDE_MODE : MODE_IS_EXCLUDE)) {
        mld->next_us = eth->now_us + RETRY_US;
        return;
    }
    mld->sent_us = eth->now_us;
    if (mld->joins_left > 0)
        mld->joins_left--;
    mld->next_us =
        mld->joins_left > 0 ? eth->now_us + 1 + random_us(eth, UNSOLICITED_REPORT_INTERVAL_US) : UINT64_MAX;
}

/* Section 5.1.3: milliseconds, above 32,767 as a floating-point number. */
static uint64_t max_delay_us(uint16_t code)
{
    uint64_t ms = code;
    if (code >= 0x8000)
        ms = (uint64_t)((code & 0xfffu) | 0x1000u) << (((code >> 12) & 7u) + 3);
    return ms * 1000;
}

/* Section 6.2: from a router on this link, and as routers send it. */
static bool is_valid(const struct packet *packet)
{
    const struct wire_ipv6 *ip = (const struct wire_ipv6 *)packet->ip;
    return packet->payload_bytes >= QUERY_BYTES && ip->hop_limit == HOP_LIMIT && ip->next_header == IPV6_HOP_BY_HOP &&
           is_link_local(ip->source);
}

void mld_input(struct eth *eth, const struct packet *packet)
{
    struct mld *mld = &eth->mld;
    if (!is_valid(packet)) {
        COUNT(eth, mld_drop_malformed);
        return;
    }
    COUNT(eth, mld_rx_queries);
    uint64_t due_us = eth->now_us + random_us(eth, max_delay_us(load_be16(packet->payload + 4)));
    if (mld->sent_us != 0 && due_us < mld->sent_us + REPORT_INTERVAL_US)
        due_us = mld->sent_us + REPORT_INTERVAL_US;
    if (due_us < mld->next_us)
        mld->next_us = due_us;
    if (mld->next_us < eth->due_us)
        eth->due_us = mld->next_us;
}
