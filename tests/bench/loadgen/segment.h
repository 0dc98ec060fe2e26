/* Frames to the server and from it: Ethernet, IPv4 and TCP, in host byte order once they are read. */
#ifndef LOADGEN_SEGMENT_H
#define LOADGEN_SEGMENT_H

#include <stdbool.h>
#include <stdint.h>

#include "reassembly.h"
#include "wire/wire.h"

#define SEGMENT_FRAME_BYTES_MAX 1514
#define SEGMENT_PORT_FIRST 1024
#define SEGMENT_PORTS 64000 /* of each address */
#define SEGMENT_SACKS_MAX 3 /* as many as fit beside timestamps */

/* Who we are, and whom we ask. A flow is one of our addresses and one of its ports: address * SEGMENT_PORTS + port. */
struct endpoints {
    uint8_t mac[ETH_ADDRESS_BYTES], server_mac[ETH_ADDRESS_BYTES];
    uint32_t address, address_count; /* the first of so many that follow each other; host byte order */
    uint32_t server_address;
    uint16_t server_port;
};

struct segment_options {
    uint16_t mss; /* 0: not given */
    uint8_t window_scale;
    bool has_window_scale, sack_permitted, has_timestamps;
    uint32_t ts_value, ts_echo;
};

struct segment {
    uint32_t flow;
    uint32_t seq, ack, window; /* window as it was sent */
    uint8_t flags;
    struct segment_options options;
    const uint8_t *data;
    uint32_t data_bytes;
};

enum segment_verdict { SEGMENT_OURS, SEGMENT_FOREIGN, SEGMENT_DAMAGED };

/* Reads a frame, a superframe too. Damaged: a checksum is wrong, or a length; rx_flags: NMIO_RX_*, how far TCP's
 * is looked at. */
enum segment_verdict segment_read(const struct endpoints *ends, const uint8_t *frame, uint32_t len_bytes,
                                  uint32_t rx_flags, struct segment *segment);

/* Writes a segment into frame, with its options and checksums. Returns the frame's length. */
uint32_t segment_write(const struct endpoints *ends, const struct segment *segment,
                       const struct reassembly_range *sacks, uint32_t sack_count, uint8_t *frame);

#endif
