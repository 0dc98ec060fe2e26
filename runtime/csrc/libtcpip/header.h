/* A segment's headers. What is the same in all segments that a connection sends at one time is put together once; each
 * segment then takes a copy of fixed size, in whole vectors, and four fields. Used by output.c alone. */
#ifndef SANDSTORM_HEADER_H
#define SANDSTORM_HEADER_H

#include "checksum.h"
#include "tcp.h"

/* Copied for each segment: the longest headers (86 bytes: Ethernet, IPv6, TCP with timestamps) in whole vectors. What is
 * copied too much lies in front of the frame, in its slot, and is never sent. */
#define HEADER_COPY_BYTES 96
_Static_assert(HEADER_COPY_BYTES <= SSI_PAYLOAD_OFFSET, "headers lie in front of the payload");
#define HEADER_FRONT_BYTES 48 /* in front of the shortest headers there are no more */
#define HEADER_BEYOND_BYTES 32

struct header {
    /* Right-justified; lengths, sequence number, flags and checksums are zero. A connection's template is copied whole,
     * which may reach beyond the end. */
    uint8_t bytes[HEADER_COPY_BYTES + HEADER_BEYOND_BYTES];
    uint64_t sum; /* of the pseudo-header and the TCP header */
    uint64_t pseudo_sum, ip_sum;
    uint32_t ip_bytes, tcp_bytes;
};

/* What differs from one segment to the next. */
struct header_fields {
    uint32_t seq; /* host byte order */
    uint32_t payload_bytes;
    uint64_t payload_sum;
    uint8_t flags;
    bool partial; /* the checksum is finished behind us: only the pseudo-header's sum is put in */
};

static inline void header_prepare(const struct stack *stack, const struct tcb *tcb, struct header *header)
{
    uint32_t tcp_bytes = (uint32_t)sizeof(struct wire_tcp) + (tcb->timestamps ? TCP_TIMESTAMPS_BYTES : 0);
    uint8_t *at = &header->bytes[HEADER_COPY_BYTES - tcp_bytes];
    struct wire_tcp *tcp = (struct wire_tcp *)at;
    memset(header->bytes, 0, HEADER_FRONT_BYTES);
    memcpy(at - tcb->ip_bytes - sizeof(struct wire_eth), tcb->header, sizeof(tcb->header));
    tcp->ack = be32(tcb->rcv_nxt);
    tcp->offset = (uint8_t)(tcp_bytes / 4 << 4);
    tcp->window = be16((uint16_t)(TCB_REQUEST_BYTES - tcb->request_len));
    if (tcb->timestamps) {
        struct wire_tcp_timestamps option = {be32(TCP_TIMESTAMPS_ALIGNED), be32(tcp_ts_clock(stack, tcb->ts_offset)),
                                             be32(tcb->ts_recent)};
        memcpy(tcp + 1, &option, sizeof(option));
    }
    header->sum = tcb->pseudo_sum + checksum_sum(tcp, tcp_bytes);
    header->pseudo_sum = tcb->pseudo_sum;
    header->ip_sum = tcb->ip_sum;
    header->ip_bytes = tcb->ip_bytes;
    header->tcp_bytes = tcp_bytes;
}

/* Writes the headers in front of payload. Returns where the frame begins. */
static inline uint8_t *header_put(const struct header *header, uint8_t *payload, const struct header_fields *fields)
{
    uint32_t segment_bytes = header->tcp_bytes + fields->payload_bytes;
    struct wire_tcp *tcp = (struct wire_tcp *)(payload - header->tcp_bytes);
    uint8_t *ip = (uint8_t *)tcp - header->ip_bytes;
    memcpy(payload - HEADER_COPY_BYTES, header->bytes, HEADER_COPY_BYTES);
    if (header->ip_bytes == sizeof(struct wire_ipv4)) {
        struct wire_ipv4 *ipv4 = (struct wire_ipv4 *)ip;
        ipv4->total_bytes = be16((uint16_t)(sizeof(*ipv4) + segment_bytes));
        ipv4->checksum = (uint16_t)~checksum_fold(header->ip_sum + ipv4->total_bytes);
    } else {
        ((struct wire_ipv6 *)ip)->payload_bytes = be16((uint16_t)segment_bytes);
    }
    tcp->seq = be32(fields->seq);
    tcp->flags = fields->flags;
    if (fields->partial) {
        tcp->checksum = checksum_fold(header->pseudo_sum + be32(segment_bytes));
    } else {
        uint64_t sum = header->sum + be32(segment_bytes) + tcp->seq + be16(fields->flags) + fields->payload_sum;
        tcp->checksum = (uint16_t)~checksum_fold(sum);
    }
    return ip - sizeof(struct wire_eth);
}

#endif
