#include "segment.h"

#include "libnmio/nmio.h"
#include "wire/checksum.h"

struct headers {
    struct wire_eth eth;
    struct wire_ipv4 ip;
    struct wire_tcp tcp;
} __attribute__((packed));

/* NOP NOP timestamps and nothing else before it: what everybody sends once a connection is there. */
static bool read_aligned_timestamps(const uint8_t *at, uint32_t bytes, struct segment_options *options)
{
    if (bytes < sizeof(struct wire_tcp_timestamps) || load_be32(at) != TCP_TIMESTAMPS_ALIGNED)
        return false;
    options->has_timestamps = true;
    options->ts_value = load_be32(at + 4);
    options->ts_echo = load_be32(at + 8);
    return true;
}

static void read_option(const uint8_t *at, uint32_t bytes, struct segment_options *options)
{
    if (at[0] == TCP_OPTION_MSS && bytes == 4)
        options->mss = load_be16(at + 2);
    if (at[0] == TCP_OPTION_WINDOW_SCALE && bytes == 3) {
        options->has_window_scale = true;
        options->window_scale = at[2] < TCP_WINDOW_SCALE_MAX ? at[2] : TCP_WINDOW_SCALE_MAX;
    }
    if (at[0] == TCP_OPTION_SACK_PERMITTED)
        options->sack_permitted = true;
    if (at[0] == TCP_OPTION_TIMESTAMPS && bytes == 10) {
        options->has_timestamps = true;
        options->ts_value = load_be32(at + 2);
        options->ts_echo = load_be32(at + 6);
    }
}

static void read_options(const uint8_t *at, uint32_t bytes, struct segment_options *options)
{
    *options = (struct segment_options){0};
    if (read_aligned_timestamps(at, bytes, options))
        return;
    while (bytes > 0 && at[0] != TCP_OPTION_END) {
        uint32_t option_bytes = at[0] == TCP_OPTION_NOP ? 1 : bytes > 1 ? at[1] : 0;
        if (option_bytes > bytes || option_bytes == 0 || (option_bytes == 1 && at[0] != TCP_OPTION_NOP))
            return;
        read_option(at, option_bytes, options);
        at += option_bytes;
        bytes -= option_bytes;
    }
}

static uint64_t pseudo_sum(const struct wire_ipv4 *ip, uint32_t tcp_bytes)
{
    uint64_t sum = checksum_sum(ip->source, sizeof(ip->source) + sizeof(ip->destination));
    return sum + checksum_pseudo(IP_PROTOCOL_TCP, tcp_bytes);
}

static uint16_t tcp_sum(const struct wire_ipv4 *ip, const void *tcp, uint32_t tcp_bytes)
{
    return checksum_fold(pseudo_sum(ip, tcp_bytes) + checksum_sum(tcp, tcp_bytes));
}

/* Of IP, and of TCP: whole, or as a local sender leaves it. */
static bool checksums_good(const struct headers *h, uint32_t tcp_bytes, uint32_t rx_flags)
{
    if (checksum_fold(checksum_sum(&h->ip, sizeof(h->ip))) != 0xffff)
        return false;
    return tcp_sum(&h->ip, &h->tcp, tcp_bytes) == 0xffff ||
           ((rx_flags & NMIO_RX_CHECKSUM_MAY_BE_PARTIAL) != 0 &&
            h->tcp.checksum == checksum_fold(pseudo_sum(&h->ip, tcp_bytes)));
}

/* The headers of a frame whose addresses and ports are ours and the server's, or NULL. We are sent no IP options. */
static const struct headers *headers_of(const struct endpoints *ends, const uint8_t *frame, uint32_t len_bytes)
{
    const struct headers *h = (const struct headers *)frame;
    if (len_bytes < sizeof(*h) || be16(h->eth.type) != ETH_TYPE_IPV4 || h->ip.version_ihl != 0x45 ||
        h->ip.protocol != IP_PROTOCOL_TCP || (be16(h->ip.fragment) & IPV4_FRAGMENT_MASK) != 0)
        return NULL;
    if (load_be32(h->ip.source) != ends->server_address ||
        load_be32(h->ip.destination) - ends->address >= ends->address_count)
        return NULL;
    if (be16(h->tcp.source_port) != ends->server_port)
        return NULL;
    return (uint32_t)(be16(h->tcp.destination_port) - SEGMENT_PORT_FIRST) < SEGMENT_PORTS ? h : NULL;
}

enum segment_verdict segment_read(const struct endpoints *ends, const uint8_t *frame, uint32_t len_bytes,
                                  uint32_t rx_flags, struct segment *segment)
{
    const struct headers *h = headers_of(ends, frame, len_bytes);
    if (h == NULL)
        return SEGMENT_FOREIGN;
    uint32_t total_bytes = be16(h->ip.total_bytes), header_bytes = (uint32_t)(h->tcp.offset >> 4) * 4;
    if (total_bytes > len_bytes - sizeof(h->eth) || header_bytes < sizeof(h->tcp) ||
        total_bytes < sizeof(h->ip) + header_bytes)
        return SEGMENT_DAMAGED;
    uint32_t tcp_bytes = total_bytes - (uint32_t)sizeof(h->ip);
    if ((rx_flags & NMIO_RX_CHECKSUM_OK) == 0 && !checksums_good(h, tcp_bytes, rx_flags))
        return SEGMENT_DAMAGED;
    segment->flow = (load_be32(h->ip.destination) - ends->address) * SEGMENT_PORTS +
                    (be16(h->tcp.destination_port) - SEGMENT_PORT_FIRST);
    segment->seq = be32(h->tcp.seq);
    segment->ack = be32(h->tcp.ack);
    segment->window = be16(h->tcp.window);
    segment->flags = h->tcp.flags;
    segment->data = (const uint8_t *)&h->tcp + header_bytes;
    segment->data_bytes = tcp_bytes - header_bytes;
    read_options((const uint8_t *)(&h->tcp + 1), header_bytes - (uint32_t)sizeof(h->tcp), &segment->options);
    return SEGMENT_OURS;
}

static uint32_t write_syn_options(uint8_t *at, const struct segment_options *options)
{
    const uint8_t fixed[20] = {TCP_OPTION_MSS,
                               4,
                               (uint8_t)(options->mss >> 8),
                               (uint8_t)options->mss,
                               TCP_OPTION_SACK_PERMITTED,
                               2,
                               TCP_OPTION_TIMESTAMPS,
                               10,
                               [16] = TCP_OPTION_NOP,
                               TCP_OPTION_WINDOW_SCALE,
                               3,
                               options->window_scale};
    uint32_t value = be32(options->ts_value);
    memcpy(at, fixed, sizeof(fixed));
    memcpy(at + 8, &value, sizeof(value));
    return sizeof(fixed);
}

static uint32_t write_timestamps(uint8_t *at, const struct segment_options *options)
{
    struct wire_tcp_timestamps option = {be32(TCP_TIMESTAMPS_ALIGNED), be32(options->ts_value),
                                         be32(options->ts_echo)};
    memcpy(at, &option, sizeof(option));
    return sizeof(option);
}

static uint32_t write_sacks(uint8_t *at, const struct reassembly_range *sacks, uint32_t count)
{
    memcpy(at, (uint8_t[]){TCP_OPTION_NOP, TCP_OPTION_NOP, TCP_OPTION_SACK, (uint8_t)(2 + 8 * count)}, 4);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t block[2] = {be32(sacks[i].start), be32(sacks[i].end)};
        memcpy(at + 4 + sizeof(block) * i, block, sizeof(block));
    }
    return 4 + 8 * count;
}

static uint32_t write_options(uint8_t *at, const struct segment *segment, const struct reassembly_range *sacks,
                              uint32_t sack_count)
{
    if ((segment->flags & TCP_SYN) != 0)
        return write_syn_options(at, &segment->options);
    uint32_t bytes = segment->options.has_timestamps ? write_timestamps(at, &segment->options) : 0;
    return bytes + (sack_count > 0 ? write_sacks(at + bytes, sacks, sack_count) : 0);
}

static void write_ip(const struct endpoints *ends, uint32_t flow, uint32_t tcp_bytes, struct wire_ipv4 *ip)
{
    uint32_t source = be32(ends->address + flow / SEGMENT_PORTS), destination = be32(ends->server_address);
    *ip = (struct wire_ipv4){.version_ihl = 0x45,
                             .total_bytes = be16((uint16_t)(sizeof(*ip) + tcp_bytes)),
                             .fragment = be16(IPV4_DONT_FRAGMENT),
                             .ttl = IP_TTL,
                             .protocol = IP_PROTOCOL_TCP};
    memcpy(ip->source, &source, sizeof(source));
    memcpy(ip->destination, &destination, sizeof(destination));
    ip->checksum = (uint16_t)~checksum_fold(checksum_sum(ip, sizeof(*ip)));
}

uint32_t segment_write(const struct endpoints *ends, const struct segment *segment,
                       const struct reassembly_range *sacks, uint32_t sack_count, uint8_t *frame)
{
    struct headers *h = (struct headers *)frame;
    uint8_t *options = (uint8_t *)(h + 1);
    uint32_t option_bytes = write_options(options, segment, sacks, sack_count);
    uint32_t header_bytes = (uint32_t)sizeof(h->tcp) + option_bytes, tcp_bytes = header_bytes + segment->data_bytes;
    memcpy(h->eth.destination, ends->server_mac, ETH_ADDRESS_BYTES);
    memcpy(h->eth.source, ends->mac, ETH_ADDRESS_BYTES);
    h->eth.type = be16(ETH_TYPE_IPV4);
    write_ip(ends, segment->flow, tcp_bytes, &h->ip);
    h->tcp = (struct wire_tcp){.source_port = be16((uint16_t)(SEGMENT_PORT_FIRST + segment->flow % SEGMENT_PORTS)),
                               .destination_port = be16(ends->server_port),
                               .seq = be32(segment->seq),
                               .ack = be32(segment->ack),
                               .offset = (uint8_t)(header_bytes / 4 << 4),
                               .flags = segment->flags,
                               .window = be16((uint16_t)segment->window)};
    if (segment->data_bytes > 0)
        memcpy(options + option_bytes, segment->data, segment->data_bytes);
    h->tcp.checksum = (uint16_t)~tcp_sum(&h->ip, &h->tcp, tcp_bytes);
    return (uint32_t)(sizeof(h->eth) + sizeof(h->ip)) + tcp_bytes;
}
