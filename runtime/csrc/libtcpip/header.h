/* A segment's headers. What is the same in all segments that a connection sends at one time is reckoned once; each segment
 * then takes a copy of the connection's template, in whole vectors, and what is its own. All is stored from registers: a
 * load of what several smaller stores have just left behind would have to wait for them. Used by output.c alone. */
#ifndef SANDSTORM_HEADER_H
#define SANDSTORM_HEADER_H

#include "state.h"
#include "wire/checksum.h"

#define HEADER_PORTS_BYTES 4
/* Of a template: all that is in front of the sequence number. */
#define HEADER_IPV4_BYTES (sizeof(struct wire_eth) + sizeof(struct wire_ipv4) + HEADER_PORTS_BYTES)
#define HEADER_IPV6_BYTES (sizeof(struct wire_eth) + sizeof(struct wire_ipv6) + HEADER_PORTS_BYTES)
_Static_assert(HEADER_IPV6_BYTES <= TCB_HEADER_BYTES, "a connection's template is that long");

struct header {
    const uint8_t *template; /* the connection's */
    uint64_t sum; /* of the pseudo-header and the TCP header, without what is a segment's own */
    uint64_t pseudo_sum, ip_sum;
    uint32_t ip_bytes, tcp_bytes;
    uint32_t segment_bytes; /* that total_bytes and ip_checksum are for: most segments have one size */
    uint8_t ecn_flags; /* TCP_ECE, and with the first new data TCP_CWR, RFC 3168 section 6.1.2 */
    uint32_t ack; /* from here on in network byte order */
    uint16_t window;
    uint16_t total_bytes, ip_checksum; /* of IPv4 */
    struct wire_tcp_timestamps timestamps; /* if tcp_bytes has room for them */
};

/* What differs from one segment to the next. */
struct header_fields {
    uint32_t seq; /* host byte order */
    uint32_t payload_bytes;
    uint64_t payload_sum;
    uint8_t flags;
    bool partial; /* the checksum is finished behind us: only the pseudo-header's sum is put in */
};

/* Header length and flags, as they lie in the header. */
static inline uint16_t header_offset_flags(const struct header *header, uint8_t flags)
{
    return be16((uint16_t)(header->tcp_bytes / 4 << 12 | header->ecn_flags | flags));
}

static inline void header_prepare(const struct tcpip *tcpip, const struct tcb *tcb, struct header *header)
{
    uint32_t ports;
    header->template = tcb->header;
    header->pseudo_sum = tcb->pseudo_sum;
    header->ip_sum = tcb->ip_sum;
    header->ip_bytes = tcb->ip_bytes;
    header->tcp_bytes = (uint32_t)sizeof(struct wire_tcp) + (tcb->timestamps ? TCP_TIMESTAMPS_BYTES : 0);
    header->segment_bytes = 0; /* no segment is without a TCP header: there is none yet */
    header->total_bytes = header->ip_checksum = 0;
    header->ecn_flags = tcb->ect ? tcb->ecn_flags : tcb->ecn_flags & TCP_ECE;
    header->ack = be32(tcb->rcv_nxt);
    header->window = be16((uint16_t)(TCB_RECEIVE_BYTES - tcb->buffered_bytes));
    memcpy(&ports, tcb->header + sizeof(struct wire_eth) + tcb->ip_bytes, sizeof(ports));
    header->sum = tcb->pseudo_sum + ports + header->ack + header->window;
    if (tcb->timestamps) {
        struct wire_tcp_timestamps option = {be32(TCP_TIMESTAMPS_ALIGNED),
                                             be32(tcp_ts_clock(tcpip->now_us, tcb->ts_offset)), be32(tcb->ts_recent)};
        header->timestamps = option;
        header->sum += (uint64_t)option.nop_nop_kind_length + option.value + option.echo;
    }
}

/* IPv4's length and checksum for segments of a size. */
static inline void header_resize(struct header *header, uint32_t segment_bytes)
{
    header->segment_bytes = segment_bytes;
    header->total_bytes = be16((uint16_t)(sizeof(struct wire_ipv4) + segment_bytes));
    header->ip_checksum = (uint16_t)~checksum_fold(header->ip_sum + header->total_bytes);
}

static inline uint16_t header_checksum(const struct header *header, const struct header_fields *fields,
                                       uint16_t offset_flags, uint32_t segment_bytes)
{
    if (fields->partial)
        return checksum_fold(header->pseudo_sum + be32(segment_bytes));
    return (uint16_t)~checksum_fold(header->sum + be32(segment_bytes) + be32(fields->seq) + offset_flags +
                                    fields->payload_sum);
}

/* Writes the headers in front of payload. Returns where the frame begins. */
static inline uint8_t *header_put(struct header *header, uint8_t *payload, const struct header_fields *fields)
{
    uint32_t segment_bytes = header->tcp_bytes + fields->payload_bytes;
    struct wire_tcp *tcp = (struct wire_tcp *)(payload - header->tcp_bytes);
    uint8_t *ip = (uint8_t *)tcp - header->ip_bytes;
    uint8_t *frame = ip - sizeof(struct wire_eth);
    uint16_t offset_flags = header_offset_flags(header, fields->flags);
    if (header->ip_bytes == sizeof(struct wire_ipv4)) {
        struct wire_ipv4 *ipv4 = (struct wire_ipv4 *)ip;
        if (segment_bytes != header->segment_bytes)
            header_resize(header, segment_bytes);
        memcpy(frame, header->template, HEADER_IPV4_BYTES);
        ipv4->total_bytes = header->total_bytes;
        ipv4->checksum = header->ip_checksum;
    } else {
        memcpy(frame, header->template, HEADER_IPV6_BYTES);
        ((struct wire_ipv6 *)ip)->payload_bytes = be16((uint16_t)segment_bytes);
    }
    tcp->seq = be32(fields->seq);
    tcp->ack = header->ack;
    memcpy(&tcp->offset, &offset_flags, sizeof(offset_flags));
    tcp->window = header->window;
    tcp->checksum = header_checksum(header, fields, offset_flags, segment_bytes);
    tcp->urgent = 0;
    if (header->tcp_bytes > sizeof(*tcp))
        memcpy(tcp + 1, &header->timestamps, sizeof(header->timestamps));
    return frame;
}

#endif
