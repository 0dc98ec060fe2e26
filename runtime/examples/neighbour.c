/* A host that answers ARP and neighbour discovery and nothing else, of wire, libnmio and libeth. It is 192.0.2.1 and 2001:db8::1.
 *
 *   neighbour IN.pcap OUT.pcap
 *
 * eth_input says what a frame holds, and the caller passes it on: nothing is called upwards. Prints how often it answered. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "libeth/neighbour.h"
#include "libnmio/pcap.h"
#include "libnmio/region.h"
#include "wire/checksum.h"

#define BUFFERS 64

static const struct eth_config config = {
    .mac = {2, 0, 0, 0, 0, 1},
    .own_address = true,
    .address_count = 2,
    .addresses = {{IP_FAMILY_V4, 24, {192, 0, 2, 1}}, {IP_FAMILY_V6, 64, {0x20, 1, 0x0d, 0xb8, [15] = 1}}}};

/* A frame of IPv6 that holds a whole ICMPv6 message about a neighbour, with nothing in between. */
static bool is_discovery(const struct nmio_rx *frame, struct packet *packet)
{
    uint32_t headers_bytes = sizeof(struct wire_eth) + sizeof(struct wire_ipv6);
    const struct wire_ipv6 *ip = (const struct wire_ipv6 *)(frame->data + sizeof(struct wire_eth));
    if (frame->len_bytes < headers_bytes + sizeof(struct wire_icmp) || ip->next_header != IP_PROTOCOL_ICMPV6)
        return false;
    *packet = (struct packet){.frame = frame->data,
                              .ip = frame->data + sizeof(struct wire_eth),
                              .payload = frame->data + headers_bytes,
                              .payload_bytes = be16(ip->payload_bytes),
                              .family = IP_FAMILY_V6};
    if (packet->payload_bytes > frame->len_bytes - headers_bytes)
        return false;
    uint64_t sum = checksum_sum(ip->source, 32) + checksum_pseudo(IP_PROTOCOL_ICMPV6, packet->payload_bytes);
    uint8_t type = packet->payload[0];
    return (type == ICMPV6_NEIGHBOUR_SOLICITATION || type == ICMPV6_NEIGHBOUR_ADVERTISEMENT) &&
           checksum_fold(sum + checksum_sum(packet->payload, packet->payload_bytes)) == 0xffff;
}

int main(int argc, char **argv)
{
    static struct eth eth;
    static const uint8_t secret[ETH_SECRET_BYTES];
    struct nmio_region region;
    struct nmio_tx tx;
    struct nmio_port *port;
    struct nmio_rx batch[BUFFERS];
    struct packet packet;
    if (argc != 3 || nmio_region_create(&region, 2048, BUFFERS, 0, 1) != 0 || nmio_tx_create(&tx, BUFFERS) != 0 ||
        pcap_open(&port, argv[1], argv[2], &region, &tx) != 0) {
        fprintf(stderr, "usage: neighbour IN.pcap OUT.pcap\n");
        return 1;
    }
    tx.space = tx.capacity;
    eth_init(&eth, &config, secret, &region, &tx);
    for (int count; (count = port->ops->input(port, batch, BUFFERS)) >= 0; port->ops->output(port)) {
        for (int i = 0; i < count; i++) {
            enum eth_verdict verdict = eth_input(&eth, &batch[i]);
            if (verdict == ETH_ARP)
                arp_input(&eth, batch[i].data, batch[i].len_bytes);
            else if (verdict == ETH_IP && is_discovery(&batch[i], &packet))
                nd_input(&eth, &packet);
        }
        port->ops->release(port, batch, (uint32_t)count);
    }
    printf("%" PRIu64 " by ARP, %" PRIu64 " by neighbour discovery\n", eth.counters.arp_tx_replies,
           eth.counters.nd_tx_advertisements);
    port->ops->close(port);
    return 0;
}
