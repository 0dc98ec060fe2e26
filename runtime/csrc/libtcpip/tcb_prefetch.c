#include "tcb_prefetch.h"

struct tcpip_prefetch tcp_prefetch_entry(const struct tcpip *tcpip, const struct nmio_rx *rx)
{
    struct tcpip_prefetch ahead = {0, NULL, 0, 0};
    struct packet packet = {.ip = rx->data + sizeof(struct wire_eth)};
    if (rx->len_bytes < sizeof(struct wire_eth) + sizeof(struct wire_ipv6) + sizeof(struct wire_tcp))
        return ahead;
    const struct wire_eth *eth = (const struct wire_eth *)rx->data;
    const struct wire_ipv4 *v4 = (const struct wire_ipv4 *)packet.ip;
    const struct wire_ipv6 *v6 = (const struct wire_ipv6 *)packet.ip;
    bool is_v4 = eth->type == be16(ETH_TYPE_IPV4) && v4->version_ihl == 0x45;
    if (!is_v4 && eth->type != be16(ETH_TYPE_IPV6))
        return ahead;
    packet.family = is_v4 ? IP_FAMILY_V4 : IP_FAMILY_V6;
    packet.payload = packet.ip + (is_v4 ? sizeof(*v4) : sizeof(*v6));
    int local = eth_address_find(tcpip->eth, packet.family, is_v4 ? v4->destination : v6->destination);
    packet.local = (uint8_t)local;
    struct tcp_flow flow = segment_flow(&packet);
    ahead.flow_hash = tcb_hash(&tcpip->connections, &flow);
    __builtin_prefetch(&tcpip->connections.entries[ahead.flow_hash & tcpip->connections.mask]);
    ahead.data = packet.payload + (((const struct wire_tcp *)packet.payload)->offset >> 4) * 4;
    const uint8_t *end = rx->data + rx->len_bytes; /* padding may be in front of it */
    ahead.data_bytes = ahead.data < end ? (uint32_t)(end - ahead.data) : 0;
    return ahead;
}

void tcp_prefetch_tcb(const struct tcpip *tcpip, uint64_t hash)
{
    const struct tcb_entry *entry = &tcpip->connections.entries[hash & tcpip->connections.mask];
    if (entry->index != TCB_NONE && entry->hash == (uint32_t)hash)
        tcb_prefetch(&tcpip->connections.tcbs[entry->index]);
}
