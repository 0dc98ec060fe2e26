/* Reassembly of packets that came in fragments (RFC 791 section 3.2, RFC 1122 section 3.3.2, RFC 8200 section 4.5). */
#ifndef SANDSTORM_REASSEMBLY_H
#define SANDSTORM_REASSEMBLY_H

#include "wire/layout.h"
#include "wire/packet.h"

#define FRAGMENT_PACKETS 32 /* that are put together at once; then the oldest goes */
#define FRAGMENT_PACKETS_OF_SOURCE 4 /* of them from one address: a stranger does not get at the others */
/* Behind the IP header; RFC 1122 asks for what the link takes, RFC 8200 for 1500. Multiple of 64 units. */
#define FRAGMENT_PAYLOAD_BYTES 9216
#define FRAGMENT_UNIT_BYTES 8 /* offsets are in these */
#define FRAGMENT_UNITS (FRAGMENT_PAYLOAD_BYTES / FRAGMENT_UNIT_BYTES)
#define FRAGMENT_LIFE_US 30000000 /* as Linux has it for IPv4 */

/* What fragments of one packet have in common. */
struct fragment_key {
    uint8_t source[16];
    uint32_t id; /* as it is on the wire */
    uint8_t local; /* index of our address */
    uint8_t family;
    uint8_t protocol; /* of IPv4; of IPv6 0, as only the first one's counts */
    uint8_t zero;
};

/* A packet that is being put together, in a frame as it would have come in one piece. */
struct fragment_packet {
    struct fragment_key key;
    uint64_t since_us; /* of the first fragment */
    uint32_t payload_bytes; /* 0: the last fragment is missing */
    uint32_t unit_count; /* that are there */
    bool used;
    bool refused; /* fragments overlap: what still comes of it is dropped, RFC 5722 */
    uint64_t units[FRAGMENT_UNITS / 64]; /* a bit for each that is there */
    uint8_t frame[sizeof(struct wire_eth) + sizeof(struct wire_ipv6) + FRAGMENT_PAYLOAD_BYTES];
};

struct reassembly {
    struct fragment_packet *packets; /* [FRAGMENT_PACKETS] */
    bool enabled;
};

/* What has become of a fragment. */
enum reassembly_verdict {
    REASSEMBLY_DROPPED, /* it can't be one, or none are taken */
    REASSEMBLY_OVERLAP, /* it overlaps another: nothing comes of its packet, RFC 5722 */
    REASSEMBLY_KEPT,
    REASSEMBLY_WHOLE, /* it was the last one missing: *frame, of *len_bytes */
};

void reassembly_lay_out(struct reassembly *reassembly, struct layout *layout, bool enabled);

/* A fragment whose addresses have been found good; packet->payload: behind the IPv4 header, or at the fragment header. *evicted: a
 * packet that was not whole has made room. *frame: the whole, as if it had come in one piece; it is good until the next call. */
enum reassembly_verdict reassembly_input(struct reassembly *reassembly, uint64_t now_us, const struct packet *packet,
                                         uint8_t **frame, uint32_t *len_bytes, bool *evicted);

#endif
