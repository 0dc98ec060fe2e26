/* A received TCP segment: what its header and options say (RFC 9293 section 3.1, RFC 7323, RFC 2018), and the constants of TCP. */
#ifndef SANDSTORM_SEGMENT_H
#define SANDSTORM_SEGMENT_H

#include "tcb.h"
#include "wire/packet.h"

#define TCP_MSS_DEFAULT_IPV4 536 /* RFC 9293 section 3.7.1 */
#define TCP_MSS_DEFAULT_IPV6 1220
#define TCP_MSS_MIN 88 /* RFC 791's least IPv4 datagram, 68, leaves less; Linux's least is 88 too */
#define TCP_TIMESTAMPS_BYTES 12
#define TCP_RTO_INITIAL_US 1000000 /* RFC 6298 section 2 */
#define TCP_RTO_MIN_US 200000 /* as Linux */
#define TCP_RTO_MAX_US 60000000 /* RFC 6298 section 2.5 */
#define TCP_RETRIES_MAX 10
#define TCP_PERSIST_BACKOFF_MAX 9 /* doublings of the least RTO until it is the largest */
#define TCP_FIN_WAIT_2_US 60000000 /* as Linux's sysctl tcp_fin_timeout */
/* What a peer may still send when it is answered and nothing more is read; a reset then. A reset at once would take the answer
 * away from it, RFC 9112 section 9.6. */
#define TCP_LINGER_BYTES (8u << 20)
#define TCP_DUPACKS 3 /* RFC 5681 section 3.2 */

struct tcp_options {
    uint16_t mss; /* 0: not given */
    uint8_t wscale; /* TCP_NO_WSCALE: not given */
    bool sack_permitted;
    bool ecn; /* it is an ECN-setup SYN, RFC 3168 section 6.1.1 */
    bool timestamps;
    uint32_t ts_value, ts_echo;
    uint32_t sack_count;
    uint32_t sacks[4][2]; /* [start, end) */
};

/* A received segment, in host byte order. */
struct tcp_segment {
    uint32_t seq, ack;
    uint32_t window; /* as sent, not scaled */
    uint8_t flags;
    uint8_t *data;
    uint32_t data_bytes;
    struct tcp_options options;
};

/* Nothing but an ACK, or a reset. */
static inline bool tcp_is_bare(const struct tcp_segment *segment)
{
    return segment->data_bytes == 0 && (segment->flags & (TCP_SYN | TCP_FIN)) == 0;
}

#define TCP_NO_WSCALE 15 /* of wscale */

/* A tick of our timestamps is a millisecond, RFC 7323 section 5.4. */
static inline uint32_t tcp_ts_clock(uint64_t now_us, uint32_t ts_offset)
{
    return (uint32_t)(now_us / 1000) + ts_offset;
}

/* The sum of a packet's addresses, protocol and length, as they are in the transport checksum. */
uint64_t ip_pseudo_sum(const struct packet *packet, uint8_t protocol, uint32_t payload_bytes);

/* Has a segment come as it was sent? It is whole, the port vouches for it, or it is as a local sender leaves it for its NIC. */
bool segment_checksum_good(const struct packet *packet);

/* False: the header's length is not that of a header in this packet. The checksum is not looked at. */
bool segment_parse(const struct packet *packet, struct tcp_segment *segment);

/* Whose connection a packet is of; its header must be there. */
struct tcp_flow segment_flow(const struct packet *packet);

#endif
