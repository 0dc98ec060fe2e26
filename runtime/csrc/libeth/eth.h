/* libeth: Ethernet frames in and out, and who we are on the link. struct eth is all that the library keeps; what the other files
 * of this folder do with it (ARP, neighbour discovery, address conflict detection, multicast listening) is called from above, by
 * what eth_input and the layers above say of a frame. It makes no system call, reads no clock and allocates nothing: the time is
 * set by the caller, and a frame that is sent is appended to tx. */
#ifndef SANDSTORM_ETH_H
#define SANDSTORM_ETH_H

#include <stdbool.h>
#include <stdint.h>

#include "eth_config.h"
#include "libnmio/nmio.h"
#include "wire/counters.h"
#include "wire/wire.h"

#define ETH_SECRET_BYTES 16

#define ETH_COUNTERS(X)                                                                                              \
    X(eth_rx_frames)                                                                                                 \
    X(eth_drop_short)                                                                                                \
    X(eth_drop_not_ours)                                                                                             \
    X(eth_drop_source)                                                                                               \
    X(eth_drop_type)                                                                                                 \
    X(arp_rx_requests)                                                                                               \
    X(arp_tx_replies)                                                                                                \
    X(arp_tx_probes)                                                                                                 \
    X(arp_tx_announcements)                                                                                          \
    X(arp_tx_defences)                                                                                               \
    X(arp_conflicts)                                                                                                 \
    X(arp_drop_malformed)                                                                                            \
    X(arp_drop_not_ours)                                                                                             \
    X(arp_drop_looped)                                                                                               \
    X(arp_drop_tentative)                                                                                            \
    X(nd_rx_solicitations)                                                                                           \
    X(nd_tx_advertisements)                                                                                          \
    X(nd_tx_probes)                                                                                                  \
    X(nd_tx_announcements)                                                                                           \
    X(nd_conflicts)                                                                                                  \
    X(nd_drop_malformed)                                                                                             \
    X(nd_drop_not_ours)                                                                                              \
    X(nd_drop_looped)                                                                                                \
    X(nd_drop_tentative)                                                                                             \
    X(mld_rx_queries)                                                                                                \
    X(mld_tx_reports)                                                                                                \
    X(mld_drop_malformed)                                                                                            \
    X(tx_drop_no_space)

struct eth_counters COUNTERS_DEFINE(ETH_COUNTERS);

enum acd_step { ACD_BEGIN, ACD_PROBE, ACD_ANNOUNCE, ACD_REST };

/* How far conflict detection has come with one address. */
struct acd {
    uint32_t state; /* ETH_ADDRESS_*; other threads read this and the next two */
    uint32_t conflicts; /* frames that said the address is another's */
    uint64_t other_mac; /* who sent the last of them: its bytes in memory order */
    uint64_t next_us; /* when the step goes on; UINT64_MAX: never */
    uint64_t defend_us; /* no defence before this */
    enum acd_step step;
    uint32_t sent; /* frames of this step */
};

/* Multicast listener reports, mld.h. */
struct mld {
    uint64_t next_us; /* of the next report; UINT64_MAX: none is due */
    uint64_t sent_us; /* of the last */
    uint32_t joins_left; /* reports that say that we have begun to listen; then they are answers */
};

struct eth {
    struct eth_config config;
    uint8_t secret[ETH_SECRET_BYTES]; /* random, so that hosts which start together part */
    uint64_t now_us; /* the caller sets it before each round */
    struct nmio_region *region;
    struct nmio_tx *tx;
    uint64_t own_last_bytes[4]; /* of our addresses: a bit for each value */
    struct acd acd[ETH_ADDRESSES_MAX]; /* of the addresses */
    struct mld mld;
    uint64_t due_us; /* when acd_run has something to do; UINT64_MAX: never */
    struct eth_counters counters;
};

/* eth: zeroed. secret: ETH_SECRET_BYTES random bytes. region and tx must outlive it. In own-address mode acd_init comes next. */
void eth_init(struct eth *eth, const struct eth_config *config, const uint8_t *secret, struct nmio_region *region,
              struct nmio_tx *tx);

/* What a received frame holds. Its upper layer's header is behind sizeof(struct wire_eth). */
enum eth_verdict { ETH_DROPPED, ETH_ARP, ETH_IP };

/* Checks a frame and takes a priority tag off it, by which frame may begin later and be shorter. A frame that is not for us, or
 * holds something else, is counted and dropped. */
enum eth_verdict eth_input(struct eth *eth, struct nmio_rx *frame);

/* A free buffer for a small frame and room for it in tx, or NMIO_NONE (counted). */
uint32_t eth_buffer(struct eth *eth);
/* Where the Ethernet header of a small frame is put in a buffer: the IP header is 16-byte aligned. */
#define ETH_BUFFER_OFFSET 50
/* Writes the header of a frame of ours. */
void eth_header(const struct eth *eth, struct wire_eth *header, const uint8_t *destination, uint16_t type);
/* Appends a whole frame in a buffer of ours to tx; the buffer is tx's from then on. There must be room, as eth_buffer has found. */
void eth_output(struct eth *eth, uint8_t *frame, uint32_t len_bytes, uint32_t buffer);

/* An address is ours without a question, and nothing is to be said of it. */
static inline void eth_address_settle(struct eth *eth, uint32_t index)
{
    eth->acd[index] = (struct acd){.state = ETH_ADDRESS_OURS, .next_us = UINT64_MAX, .step = ACD_REST};
}

/* config.addresses have changed. */
void eth_addresses_changed(struct eth *eth);
/* Index of our address, or -1. bytes: 4 or 16 of them. */
int eth_address_find(const struct eth *eth, uint8_t family, const uint8_t *bytes);

static inline bool eth_address_is_ours(const struct eth *eth, uint32_t index)
{
    return eth->acd[index].state == ETH_ADDRESS_OURS;
}

/* Does somebody say that he is us? Of all others' addresses 255 in 256 are told by their last byte. */
static inline bool eth_is_own_source(const struct eth *eth, uint8_t family, const uint8_t *source, uint8_t last)
{
    return (eth->own_last_bytes[last / 64] >> last % 64 & 1) != 0 && eth_address_find(eth, family, source) >= 0;
}

#endif
