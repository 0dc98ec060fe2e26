#include "arp.h"

struct arp_frame {
    struct wire_eth eth;
    struct wire_arp arp;
} __attribute__((packed));
_Static_assert(sizeof(struct arp_frame) == ARP_FRAME_BYTES, "ARP for IPv4 over Ethernet");

static const uint8_t everybody[ETH_ADDRESS_BYTES] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

static uint32_t write_arp(const struct endpoints *ends, uint16_t operation, const uint8_t *to, uint32_t sender,
                          uint32_t target, uint8_t *frame)
{
    struct arp_frame *f = (struct arp_frame *)frame;
    uint32_t sender_ip = be32(sender), target_ip = be32(target);
    *f = (struct arp_frame){.eth.type = be16(ETH_TYPE_ARP),
                            .arp = {.hardware_type = be16(ARP_ETHERNET),
                                    .protocol_type = be16(ETH_TYPE_IPV4),
                                    .hardware_bytes = ETH_ADDRESS_BYTES,
                                    .protocol_bytes = 4,
                                    .operation = be16(operation)}};
    memcpy(f->eth.destination, to, ETH_ADDRESS_BYTES);
    memcpy(f->eth.source, ends->mac, ETH_ADDRESS_BYTES);
    memcpy(f->arp.sender_mac, ends->mac, ETH_ADDRESS_BYTES);
    memcpy(f->arp.sender_ip, &sender_ip, sizeof(sender_ip));
    memcpy(f->arp.target_ip, &target_ip, sizeof(target_ip));
    if (operation == ARP_REPLY)
        memcpy(f->arp.target_mac, to, ETH_ADDRESS_BYTES);
    return sizeof(*f);
}

uint32_t arp_ask(const struct endpoints *ends, uint8_t *frame)
{
    return write_arp(ends, ARP_REQUEST, everybody, ends->address, ends->server_address, frame);
}

uint32_t arp_take(struct endpoints *ends, const uint8_t *frame, uint32_t len_bytes, bool *resolved, uint8_t *answer)
{
    const struct arp_frame *f = (const struct arp_frame *)frame;
    if (len_bytes < sizeof(*f) || be16(f->eth.type) != ETH_TYPE_ARP || be16(f->arp.protocol_type) != ETH_TYPE_IPV4)
        return 0;
    uint32_t sender = load_be32(f->arp.sender_ip), target = load_be32(f->arp.target_ip);
    if (sender == ends->server_address) {
        memcpy(ends->server_mac, f->arp.sender_mac, ETH_ADDRESS_BYTES);
        *resolved = true;
    }
    if (be16(f->arp.operation) != ARP_REQUEST || target - ends->address >= ends->address_count)
        return 0;
    return write_arp(ends, ARP_REPLY, f->arp.sender_mac, target, sender, answer);
}
