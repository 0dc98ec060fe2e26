#include "frame_build.h"

#include <string.h>

#include "wire/checksum.h"
#include "wire/wire.h"

/* Whom the headers built in are from and to: addresses for documentation, RFC 5737 and RFC 3849. */
static const uint8_t macs[12] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1};
static const uint8_t ipv4_addresses[8] = {192, 0, 2, 1, 198, 51, 100, 1};
static const uint8_t ipv6_addresses[32] = {0x20, 0x01, 0x0d, 0xb8, [15] = 1, 0x20, 0x01, 0x0d, 0xb8, [31] = 2};
#define BUILD_SERVER_PORT 80
#define BUILD_CLIENT_PORT 49152
#define BUILD_WINDOW 16384
#define TCP_HEADER_BYTES (sizeof(struct wire_tcp) + sizeof(struct wire_tcp_timestamps))

uint32_t frame_build_header_bytes(uint32_t ipv6)
{
    size_t ip_bytes = ipv6 ? sizeof(struct wire_ipv6) : sizeof(struct wire_ipv4);
    return (uint32_t)(sizeof(struct wire_eth) + ip_bytes + TCP_HEADER_BYTES);
}

static uint64_t put_ip(uint8_t *at, uint32_t ipv6, uint32_t segment_bytes)
{
    if (ipv6) {
        struct wire_ipv6 ip = {.version_class_flow = be32(0x60000000),
                               .payload_bytes = be16((uint16_t)segment_bytes),
                               .next_header = IP_PROTOCOL_TCP,
                               .hop_limit = IP_TTL};
        memcpy(ip.source, ipv6_addresses, 16);
        memcpy(ip.destination, ipv6_addresses + 16, 16);
        memcpy(at, &ip, sizeof(ip));
        return checksum_sum(ipv6_addresses, sizeof(ipv6_addresses));
    }
    struct wire_ipv4 ip = {.version_ihl = 0x45,
                           .total_bytes = be16((uint16_t)(sizeof(ip) + segment_bytes)),
                           .fragment = be16(IPV4_DONT_FRAGMENT),
                           .ttl = IP_TTL,
                           .protocol = IP_PROTOCOL_TCP};
    memcpy(ip.source, ipv4_addresses, 4);
    memcpy(ip.destination, ipv4_addresses + 4, 4);
    ip.checksum = (uint16_t)~checksum_fold(checksum_sum(&ip, sizeof(ip)));
    memcpy(at, &ip, sizeof(ip));
    return checksum_sum(ipv4_addresses, sizeof(ipv4_addresses));
}

/* Headers of a segment whose payload already lies at SSI_PAYLOAD_OFFSET and has this sum. */
static void put_headers(uint8_t *slot, uint32_t ipv6, uint32_t payload_bytes, uint64_t payload_sum, uint64_t offset,
                        int last)
{
    uint32_t segment_bytes = (uint32_t)TCP_HEADER_BYTES + payload_bytes;
    uint8_t *payload = slot + SSI_PAYLOAD_OFFSET;
    uint8_t *frame = payload - frame_build_header_bytes(ipv6);
    struct wire_eth eth = {.type = be16(ipv6 ? ETH_TYPE_IPV6 : ETH_TYPE_IPV4)};
    memcpy(&eth, macs, sizeof(macs));
    memcpy(frame, &eth, sizeof(eth));
    uint64_t sum = put_ip(frame + sizeof(eth), ipv6, segment_bytes);
    struct wire_tcp_timestamps timestamps = {be32(TCP_TIMESTAMPS_ALIGNED), be32(1), be32(1)};
    struct wire_tcp tcp = {.source_port = be16(BUILD_SERVER_PORT),
                           .destination_port = be16(BUILD_CLIENT_PORT),
                           .seq = be32((uint32_t)(offset + 1)),
                           .ack = be32(1),
                           .offset = (uint8_t)(TCP_HEADER_BYTES / 4 << 4),
                           .flags = (uint8_t)(TCP_ACK | (last ? TCP_PSH : 0)),
                           .window = be16(BUILD_WINDOW)};
    sum += checksum_pseudo(IP_PROTOCOL_TCP, segment_bytes) + checksum_sum(&tcp, sizeof(tcp)) +
           checksum_sum(&timestamps, sizeof(timestamps)) + payload_sum;
    tcp.checksum = (uint16_t)~checksum_fold(sum);
    memcpy(payload - TCP_HEADER_BYTES, &tcp, sizeof(tcp));
    memcpy(payload - sizeof(timestamps), &timestamps, sizeof(timestamps));
}

/* The payload's sum, and if it is patched, with the bytes of patches taken as zeros: a - b is a + ~b. */
static uint16_t unpatched_sum(const struct frame_build *build, const uint8_t *payload, uint64_t sum, int patched)
{
    const struct ssi_patch *end = build->patches + (patched ? build->patch_count : 0);
    for (const struct ssi_patch *patch = build->patches; patch < end; patch++)
        sum += (uint16_t)~checksum_at(checksum_sum(payload + patch->offset, patch->bytes), patch->offset);
    return checksum_fold(sum);
}

uint32_t frame_build_stream(const struct frame_build *build, const uint8_t *stream, size_t len_bytes,
                            uint64_t stream_offset, int last, uint32_t first_slot, uint8_t *slots,
                            struct ssi_frame *frames)
{
    uint32_t count = 0;
    for (size_t at = 0; at < len_bytes; at += build->segment_bytes, count++) {
        size_t left = len_bytes - at;
        uint32_t payload_bytes = left < build->segment_bytes ? (uint32_t)left : build->segment_bytes;
        int patched = stream_offset + at == 0 && build->patch_count > 0;
        uint8_t *slot = slots + (size_t)count * build->copies * build->slot_bytes;
        memset(slot, 0, SSI_PAYLOAD_OFFSET);
        memcpy(slot + SSI_PAYLOAD_OFFSET, stream + at, payload_bytes);
        memset(slot + SSI_PAYLOAD_OFFSET + payload_bytes, 0, build->slot_bytes - SSI_PAYLOAD_OFFSET - payload_bytes);
        uint64_t payload_sum = checksum_sum(stream + at, payload_bytes);
        put_headers(slot, build->ipv6, payload_bytes, payload_sum, stream_offset + at,
                    last && left <= build->segment_bytes);
        for (uint32_t copy = 1; copy < build->copies; copy++)
            memcpy(slot + (size_t)copy * build->slot_bytes, slot, build->slot_bytes);
        frames[count] = (struct ssi_frame){
            .slot = first_slot + count * build->copies,
            .copies = (uint16_t)build->copies,
            .payload_bytes = (uint16_t)payload_bytes,
            .payload_sum = unpatched_sum(build, slot + SSI_PAYLOAD_OFFSET, payload_sum, patched),
            .flags = patched ? SSI_FRAME_PATCHED : 0,
        };
    }
    return count;
}

uint32_t frame_build_streams(const struct frame_build_whole *wholes, uint32_t count, const uint8_t *streams,
                             uint32_t first_slot, uint8_t *slots, struct ssi_frame *frames)
{
    uint32_t made = 0, filled = 0; /* frames, slots */
    for (const struct frame_build_whole *whole = wholes; whole < wholes + count; whole++) {
        const struct frame_build *build = &whole->build;
        uint32_t cut = frame_build_stream(build, streams, whole->len_bytes, 0, 1, first_slot + filled,
                                          slots + (size_t)filled * build->slot_bytes, frames + made);
        made += cut;
        filled += cut * build->copies;
        streams += whole->len_bytes;
    }
    return made;
}

int frame_build_check(const struct frame_build *build, const struct ssi_frame *frame, const uint8_t *slot)
{
    const uint8_t *payload = slot + SSI_PAYLOAD_OFFSET;
    const uint8_t *ip = payload - frame_build_header_bytes(build->ipv6) + sizeof(struct wire_eth);
    const uint8_t *tcp = payload - TCP_HEADER_BYTES;
    uint32_t segment_bytes = (uint32_t)TCP_HEADER_BYTES + frame->payload_bytes;
    uint64_t addresses;
    uint32_t stated_bytes;
    if (build->ipv6) {
        stated_bytes = load_be16(ip + 4);
        addresses = checksum_sum(ip + 8, 32);
    } else {
        stated_bytes = load_be16(ip + 2) - (uint32_t)sizeof(struct wire_ipv4);
        addresses = checksum_sum(ip + 12, 8);
        if (checksum_fold(checksum_sum(ip, sizeof(struct wire_ipv4))) != 0xffff)
            return 1;
    }
    if (stated_bytes != segment_bytes)
        return 3;
    uint64_t sum = addresses + checksum_pseudo(IP_PROTOCOL_TCP, segment_bytes) + checksum_sum(tcp, segment_bytes);
    if (checksum_fold(sum) != 0xffff)
        return 2;
    uint64_t payload_sum = checksum_sum(payload, frame->payload_bytes);
    int patched = (frame->flags & SSI_FRAME_PATCHED) != 0;
    return unpatched_sum(build, payload, payload_sum, patched) == frame->payload_sum ? 0 : 4;
}
