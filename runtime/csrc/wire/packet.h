/* A received packet on its way up: where its headers lie, as the layers have found them. */
#ifndef SANDSTORM_PACKET_H
#define SANDSTORM_PACKET_H

#include <stdbool.h>
#include <stdint.h>

#include "wire.h"

struct packet {
    uint8_t *frame; /* Ethernet header */
    uint8_t *ip;
    uint8_t *payload; /* behind the IP header */
    uint32_t payload_bytes; /* as the IP header says, all there */
    uint8_t family; /* IP_FAMILY_* */
    uint8_t local; /* index of our address that it is for */
    uint8_t rx_flags; /* NMIO_RX_*, of the transport checksum */
};

/* The ECN field of a received packet, IP_ECN_*. */
static inline uint8_t packet_ecn(const struct packet *packet)
{
    return packet->family == IP_FAMILY_V4 ? packet->ip[1] & 3 : packet->ip[1] >> 4 & 3;
}

#endif
