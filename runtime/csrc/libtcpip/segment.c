#include "segment.h"

#include "libnmio/nmio.h"
#include "wire/checksum.h"

uint64_t ip_pseudo_sum(const struct packet *packet, uint8_t protocol, uint32_t payload_bytes)
{
    const struct wire_ipv4 *v4 = (const struct wire_ipv4 *)packet->ip;
    const struct wire_ipv6 *v6 = (const struct wire_ipv6 *)packet->ip;
    uint64_t addresses = packet->family == IP_FAMILY_V4 ? checksum_sum(v4->source, 8) : checksum_sum(v6->source, 32);
    return addresses + checksum_pseudo(protocol, payload_bytes);
}

/* Reads one option of len bytes (kind and length included). Those of a wrong length are ignored, RFC 9293 section 3.1. */
static void parse_option(struct tcp_options *options, const uint8_t *at, uint8_t len)
{
    switch (at[0]) {
    case TCP_OPTION_MSS:
        if (len == 4)
            options->mss = load_be16(at + 2);
        break;
    case TCP_OPTION_WINDOW_SCALE:
        if (len == 3)
            options->wscale = at[2] > TCP_WINDOW_SCALE_MAX ? TCP_WINDOW_SCALE_MAX : at[2];
        break;
    case TCP_OPTION_SACK_PERMITTED:
        options->sack_permitted = len == 2;
        break;
    case TCP_OPTION_SACK:
        for (uint32_t i = 0; i < 4 && len >= 2 + 8 * (i + 1); i++) {
            options->sacks[i][0] = load_be32(at + 2 + 8 * i);
            options->sacks[i][1] = load_be32(at + 6 + 8 * i);
            options->sack_count = i + 1;
        }
        break;
    case TCP_OPTION_TIMESTAMPS:
        if (len == 10) {
            options->timestamps = true;
            options->ts_value = load_be32(at + 2);
            options->ts_echo = load_be32(at + 6);
        }
        break;
    default:
        break;
    }
}

static void parse_options(struct tcp_options *options, const uint8_t *at, uint32_t bytes)
{
    *options = (struct tcp_options){.wscale = TCP_NO_WSCALE};
    if (bytes == TCP_TIMESTAMPS_BYTES && load_be32(at) == TCP_TIMESTAMPS_ALIGNED) {
        options->timestamps = true;
        options->ts_value = load_be32(at + 4);
        options->ts_echo = load_be32(at + 8);
        return;
    }
    const uint8_t *end = at + bytes;
    while (at < end && *at != TCP_OPTION_END) {
        if (*at == TCP_OPTION_NOP) {
            at++;
            continue;
        }
        if (end - at < 2 || at[1] < 2 || at[1] > end - at)
            return;
        parse_option(options, at, at[1]);
        at += at[1];
    }
}

/* It is whole (RFC 9293 section 3.1), the port vouches for it, or it is as a local sender leaves it for its NIC. */
bool segment_checksum_good(const struct packet *packet)
{
    if ((packet->rx_flags & NMIO_RX_CHECKSUM_OK) != 0)
        return true;
    uint64_t sum = ip_pseudo_sum(packet, IP_PROTOCOL_TCP, packet->payload_bytes);
    uint16_t field = ((const struct wire_tcp *)packet->payload)->checksum;
    return checksum_fold(sum + checksum_sum(packet->payload, packet->payload_bytes)) == 0xffff ||
           ((packet->rx_flags & NMIO_RX_CHECKSUM_MAY_BE_PARTIAL) != 0 && field == checksum_fold(sum));
}

bool segment_parse(const struct packet *packet, struct tcp_segment *segment)
{
    const struct wire_tcp *tcp = (const struct wire_tcp *)packet->payload;
    uint32_t header_bytes = packet->payload_bytes >= sizeof(*tcp) ? (tcp->offset >> 4) * 4u : 0;
    if (header_bytes < sizeof(*tcp) || header_bytes > packet->payload_bytes)
        return false;
    segment->seq = be32(tcp->seq);
    segment->ack = be32(tcp->ack);
    segment->window = be16(tcp->window);
    segment->flags = tcp->flags;
    segment->data = packet->payload + header_bytes;
    segment->data_bytes = packet->payload_bytes - header_bytes;
    parse_options(&segment->options, packet->payload + sizeof(*tcp), header_bytes - (uint32_t)sizeof(*tcp));
    return true;
}

/* Put together in registers, as it is read again at once in whole words: a load would have to wait for what several smaller
 * stores have left behind. */
struct tcp_flow segment_flow(const struct packet *packet)
{
    uint16_t port = ((const struct wire_tcp *)packet->payload)->source_port;
    uint64_t words[TCP_FLOW_WORDS] = {0, 0,
                                      in_word(port, 0) | in_word(packet->local, 2) | in_word(packet->family, 3)};
    struct tcp_flow flow;
    if (packet->family == IP_FAMILY_V4) {
        uint32_t source;
        memcpy(&source, ((const struct wire_ipv4 *)packet->ip)->source, sizeof(source));
        words[0] = in_word(source, 0);
    } else {
        const uint8_t *source = ((const struct wire_ipv6 *)packet->ip)->source;
        words[0] = load64(source);
        words[1] = load64(source + 8);
    }
    memcpy(&flow, words, sizeof(flow));
    return flow;
}
