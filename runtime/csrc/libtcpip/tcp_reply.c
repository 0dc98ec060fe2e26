#include "tcp_reply.h"

#include "ip_reply.h"
#include "wire/checksum.h"

/* headers: ports are filled in here, offset and checksum too. options_bytes: a multiple of four, 40 at most. */
static void tcp_reply(struct tcpip *tcpip, const struct packet *packet, const struct wire_tcp *headers,
                      const uint8_t *options, uint32_t options_bytes)
{
    uint32_t chunk = eth_buffer(tcpip->eth);
    if (chunk == NMIO_NONE)
        return;
    const struct wire_tcp *received = (const struct wire_tcp *)packet->payload;
    uint8_t *frame = nmio_chunk(tcpip->region, chunk) + ETH_BUFFER_OFFSET;
    uint32_t tcp_bytes = (uint32_t)sizeof(*headers) + options_bytes;
    struct wire_tcp *tcp = (struct wire_tcp *)ip_reply_headers(tcpip->eth, packet, frame, IP_PROTOCOL_TCP, tcp_bytes);
    *tcp = *headers;
    tcp->source_port = received->destination_port;
    tcp->destination_port = received->source_port;
    tcp->offset = (uint8_t)(tcp_bytes / 4 << 4);
    tcp->checksum = 0;
    if (options_bytes > 0)
        memcpy(tcp + 1, options, options_bytes);
    uint64_t sum = ip_pseudo_sum(packet, IP_PROTOCOL_TCP, tcp_bytes) + checksum_sum(tcp, tcp_bytes);
    tcp->checksum = (uint16_t)~checksum_fold(sum);
    eth_output(tcpip->eth, frame, (uint32_t)((uint8_t *)tcp - frame) + tcp_bytes, chunk);
}

/* RFC 9293 section 3.10.7.1: what answers a segment for which there is no connection. */
void tcp_reply_rst(struct tcpip *tcpip, const struct packet *packet, const struct tcp_segment *segment)
{
    uint32_t len = segment->data_bytes + ((segment->flags & TCP_SYN) != 0) + ((segment->flags & TCP_FIN) != 0);
    struct wire_tcp rst = {.flags = TCP_RST};
    if ((segment->flags & TCP_ACK) != 0) {
        rst.seq = be32(segment->ack);
    } else {
        rst.flags = TCP_RST | TCP_ACK;
        rst.ack = be32(segment->seq + len);
    }
    COUNT(tcpip, tcp_tx_rst);
    tcp_reply(tcpip, packet, &rst, NULL, 0);
}

static uint8_t *put_timestamps(uint8_t *at, uint32_t value, uint32_t echo)
{
    struct wire_tcp_timestamps option = {be32(TCP_TIMESTAMPS_ALIGNED), be32(value), be32(echo)};
    memcpy(at, &option, sizeof(option));
    return at + sizeof(option);
}

void tcp_reply_syn_ack(struct tcpip *tcpip, const struct packet *packet, const struct tcp_flow *flow,
                       const struct tcp_segment *segment)
{
    uint32_t ts_value = 0;
    uint32_t iss = cookie_make(&tcpip->cookies, tcpip->now_us, flow, segment->seq, &segment->options, &ts_value);
    uint32_t ip_bytes = flow->family == IP_FAMILY_V4 ? sizeof(struct wire_ipv4) : sizeof(struct wire_ipv6);
    uint16_t mss = (uint16_t)(tcpip->config.mtu_bytes - ip_bytes - sizeof(struct wire_tcp));
    uint8_t options[40] = {TCP_OPTION_MSS, 4, (uint8_t)(mss >> 8), (uint8_t)mss};
    uint8_t *at = options + 4;
    if (segment->options.timestamps)
        at = put_timestamps(at, ts_value, segment->options.ts_value);
    if (segment->options.sack_permitted) {
        static const uint8_t sack[4] = {TCP_OPTION_NOP, TCP_OPTION_NOP, TCP_OPTION_SACK_PERMITTED, 2};
        memcpy(at, sack, sizeof(sack));
        at += sizeof(sack);
    }
    if (segment->options.wscale != TCP_NO_WSCALE) {
        /* Ours is 0: requests are small. Said all the same, or the peer may not scale its own. */
        static const uint8_t scale[4] = {TCP_OPTION_NOP, TCP_OPTION_WINDOW_SCALE, 3, 0};
        memcpy(at, scale, sizeof(scale));
        at += sizeof(scale);
    }
    struct wire_tcp headers = {.seq = be32(iss),
                               .ack = be32(segment->seq + 1),
                               .flags = (uint8_t)(TCP_SYN | TCP_ACK | (segment->options.ecn ? TCP_ECE : 0)),
                               .window = be16(TCB_RECEIVE_BYTES)};
    COUNT(tcpip, tcp_tx_syn_ack);
    tcp_reply(tcpip, packet, &headers, options, (uint32_t)(at - options));
}

void tcp_reply_time_wait(struct tcpip *tcpip, const struct packet *packet, const struct time_wait *wait)
{
    uint8_t options[TCP_TIMESTAMPS_BYTES];
    if (wait->timestamps)
        put_timestamps(options, tcp_ts_clock(tcpip->now_us, wait->ts_offset), wait->ts_recent);
    struct wire_tcp headers = {.seq = be32(wait->snd_nxt), .ack = be32(wait->rcv_nxt), .flags = TCP_ACK};
    tcp_reply(tcpip, packet, &headers, options, wait->timestamps ? sizeof(options) : 0);
}
