/* Who we are on the link, and how we come to be that. */
#ifndef SANDSTORM_ETH_CONFIG_H
#define SANDSTORM_ETH_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "wire/ip_family.h"

#define ETH_ADDRESSES_MAX 32

/* One of our addresses. */
struct eth_address {
    uint8_t family; /* IP_FAMILY_* */
    uint8_t prefix_bits;
    uint8_t bytes[16]; /* network order; IPv4 in the first four */
};

/* How we come by our addresses, in own-address mode. */
#define ETH_ACD_NONE 0 /* they are ours from the start */
#define ETH_ACD_ANNOUNCE 1 /* the same, and the neighbours are told */
#define ETH_ACD_CHECK 2 /* the link is asked first: address conflict detection, RFC 5227 and RFC 4862 section 5.4 */
#define ETH_ACD_FOLLOW 3 /* another one of us asks: acd_confirmed says that it has them */

/* Nothing is answered for an address that is not ours. */
#define ETH_ADDRESS_TENTATIVE 0
#define ETH_ADDRESS_OURS 1
#define ETH_ADDRESS_CONFLICT 2 /* somebody had it before us */

struct eth_config {
    uint8_t mac[6];
    bool own_address; /* we are a host of our own on the link: answer for our addresses */
    uint32_t acd; /* ETH_ACD_* */
    uint32_t address_count;
    struct eth_address addresses[ETH_ADDRESSES_MAX];
};

#endif
