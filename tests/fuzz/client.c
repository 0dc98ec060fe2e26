#include "client.h"

#include "wire/seq.h"

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* The payload that one segment may have. */
static uint32_t payload_max(const struct client *client)
{
    uint32_t fallback = client_v6(client) ? TCP_MSS_DEFAULT_IPV6 : TCP_MSS_DEFAULT_IPV4;
    uint32_t mss = client->mss == 0 ? fallback : client->mss;
    return (mss > TCP_MSS_MIN ? mss : TCP_MSS_MIN) - (client->timestamps ? 12 : 0);
}

/* Takes in [start, end): in order, or held beyond the hole; what there is no place for is forgotten. */
static void receive(struct client *client, uint32_t start, uint32_t end)
{
    struct range *unused = NULL;
    for (uint32_t i = 0; i < CLIENT_HELD; i++) {
        struct range *held = &client->held[i];
        if (held->end != 0 && held->start <= end && start <= held->end) {
            start = held->start < start ? held->start : start;
            end = held->end > end ? held->end : end;
            *held = (struct range){0, 0};
        }
        if (held->end == 0)
            unused = held;
    }
    if (start <= client->known)
        client->known = end > client->known ? end : client->known;
    else if (unused != NULL)
        *unused = (struct range){start, end};
}

static void hear_data(struct client *client, uint32_t start, const uint8_t *data, uint32_t bytes)
{
    uint32_t end = start + bytes;
    CHECK(bytes <= payload_max(client));
    /* What the stream has no room for has been sent, but never arrives. */
    bool beyond = start < 1u << 31 && end > CLIENT_STREAM_BYTES;
    if (beyond && start >= CLIENT_STREAM_BYTES)
        return;
    if (beyond) {
        end = CLIENT_STREAM_BYTES;
        bytes = end - start;
    }
    CHECK(start <= client->high && end <= client->edge);
    CHECK(!client->fin || end <= client->fin_at);
    uint32_t again = least(client->high - start, bytes);
    CHECK(client->host->untrusted || memcmp(client->stream + start, data, again) == 0);
    memcpy(client->stream + start + again, data + again, bytes - again);
    client->high = end > client->high ? end : client->high;
    if (beyond)
        return;
    bool lost = (client->loss & 1) != 0;
    client->loss >>= 1;
    if (!lost)
        receive(client, start, end);
}

static void hear_fin(struct client *client, uint32_t at)
{
    if (at > CLIENT_STREAM_BYTES)
        return;
    CHECK(client->fin ? at == client->fin_at : at >= client->high);
    client->fin = true;
    client->fin_at = at;
}

static void hear_syn_ack(struct client *client, const uint8_t *tcp)
{
    if (client->connected || get32(tcp + 8) != client->seq)
        return;
    client->irs = get32(tcp + 4);
    client->connected = true;
    if (client->timestamps)
        client->ts_echo = get32(tcp + 28);
}

void client_hear(struct client *client, const struct sent_frame *frame)
{
    const uint8_t *tcp = frame->data + (client_v6(client) ? 54 : 34);
    const uint8_t *data = tcp + (tcp[12] >> 4) * 4u;
    uint32_t bytes = (uint32_t)(frame->data + frame->len_bytes - data);
    uint32_t seq = get32(tcp + 4), start = seq - client->irs - 1, flags = tcp[13];
    if ((flags & SYN) != 0)
        hear_syn_ack(client, tcp);
    if (!client->connected || (flags & SYN) != 0)
        return;
    if ((flags & RST) != 0) {
        client->connected = start - client->known > client->high + 1 - client->known;
        return;
    }
    if (tcp[12] >> 4 >= 8)
        client->ts_echo = get32(tcp + 24);
    if (bytes > 0 || (flags & FIN) != 0)
        CHECK(seq_leq(get32(tcp + 8), client->seq_max));
    uint32_t size = frame->segment_bytes > 0 ? frame->segment_bytes : bytes;
    for (uint32_t at = 0; at < bytes; at += size)
        hear_data(client, start + at, data + at, least(size, bytes - at));
    if ((flags & FIN) != 0)
        hear_fin(client, start + bytes);
}

uint32_t client_headers(const struct client *client, uint8_t *frame, uint8_t protocol, uint32_t payload_bytes)
{
    static const uint8_t macs[12] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2};
    uint8_t *ip = frame + 14;
    memcpy(frame, macs, sizeof(macs));
    memset(ip, 0, 40);
    if (client_v6(client)) {
        put16(frame + 12, 0x86dd);
        ip[0] = 0x60;
        put16(ip + 4, payload_bytes);
        ip[6] = protocol;
        ip[7] = 64;
        memcpy(ip + 8, (const uint8_t[16]){0x20, 1, 0x0d, 0xb8, [15] = 2}, 16);
        memcpy(ip + 24, (const uint8_t[16]){0x20, 1, 0x0d, 0xb8, [15] = 1}, 16);
        return 54;
    }
    put16(frame + 12, 0x0800);
    ip[0] = 0x45;
    put16(ip + 2, 20 + payload_bytes);
    ip[8] = 64;
    ip[9] = protocol;
    memcpy(ip + 12, (const uint8_t[8]){192, 0, 2, 2, 192, 0, 2, 1}, 8);
    put16(ip + 10, (uint16_t)~ones_sum(ip, 20, 0));
    return 34;
}

static uint32_t put_options(const struct client *client, const struct segment *segment, uint8_t *options)
{
    uint8_t *at = options;
    bool syn = (segment->flags & SYN) != 0;
    if (syn && client->mss != 0) {
        memcpy(at, (const uint8_t[]){2, 4, (uint8_t)(client->mss >> 8), (uint8_t)client->mss}, 4);
        at += 4;
    }
    if (syn && client->wscale != NO_WSCALE) {
        memcpy(at, (const uint8_t[]){1, 3, 3, client->wscale}, 4);
        at += 4;
    }
    if (syn && client->sack) {
        memcpy(at, (const uint8_t[]){1, 1, 4, 2}, 4);
        at += 4;
    }
    if (client->timestamps) {
        put32(at, 0x0101080a);
        put32(at + 4, segment->ts_value);
        put32(at + 8, segment->ts_echo);
        at += 12;
    }
    uint32_t sacks = syn ? 0 : segment->sack_count; /* there is no room for all of it */
    if (sacks > 0) {
        memcpy(at, (const uint8_t[]){1, 1, 5, (uint8_t)(2 + 8 * sacks)}, 4);
        at += 4;
    }
    for (uint32_t i = 0; i < sacks; i++, at += 8) {
        put32(at, segment->sacks[i].start);
        put32(at + 4, segment->sacks[i].end);
    }
    return (uint32_t)(at - options);
}

struct segment client_segment(struct client *client, uint8_t flags)
{
    bool all = client->fin && client->known == client->fin_at;
    struct segment segment = {.flags = flags,
                              .seq = client->seq,
                              .ack = client->irs + 1 + client->known + (all ? 1 : 0),
                              .window = 65535,
                              .ts_value = (uint32_t)(client->host->now_ns / 1000000),
                              .ts_echo = client->ts_echo};
    for (uint32_t i = 0; client->sack && i < CLIENT_HELD && segment.sack_count < 3; i++) {
        const struct range *held = &client->held[client->told++ % CLIENT_HELD];
        uint32_t first = client->irs + 1;
        if (held->end != 0)
            segment.sacks[segment.sack_count++] = (struct range){first + held->start, first + held->end};
    }
    return segment;
}

/* The server's stream is a new one, and seq is what the client sends next. */
static void begin_stream(struct client *client, uint32_t seq)
{
    client->seq = client->seq_max = seq;
    client->known = client->high = 0;
    client->edge = 0;
    client->fin = false;
    memset(client->held, 0, sizeof(client->held));
}

static void allow(struct client *client, const struct segment *segment)
{
    uint32_t position = segment->ack - client->irs - 1;
    uint64_t window = (uint64_t)segment->window << (client->wscale != NO_WSCALE ? client->wscale : 0);
    if ((segment->flags & ACK) != 0 && position <= client->high + 1 && position + window > client->edge)
        client->edge = position + window;
}

void client_say(struct client *client, const struct segment *segment)
{
    uint8_t options[40], frame[54 + 60 + 1500];
    struct host *host = client->host;
    uint32_t tcp_bytes = 20 + put_options(client, segment, options);
    uint32_t at = client_headers(client, frame, 6, tcp_bytes + segment->bytes);
    uint8_t *tcp = frame + at;
    put16(tcp, client->port);
    put16(tcp + 2, 80);
    put32(tcp + 4, segment->seq);
    put32(tcp + 8, segment->ack);
    put32(tcp + 12, tcp_bytes / 4 << 28 | (uint32_t)segment->flags << 16 | segment->window);
    put32(tcp + 16, 0);
    memcpy(tcp + 20, options, tcp_bytes - 20);
    if (segment->bytes > 0)
        memcpy(tcp + tcp_bytes, segment->data, segment->bytes);
    uint64_t opened = host->stack->tcpip.counters.tcp_opened;
    uint32_t end = segment->seq + segment->bytes + ((segment->flags & (SYN | FIN)) != 0);
    if (seq_lt(client->seq_max, end))
        client->seq_max = end;
    host_input(host, frame, at + tcp_bytes + segment->bytes, true);
    if (host->stack->tcpip.counters.tcp_opened != opened) /* a cookie may be good for several connections */
        begin_stream(client, end);
    allow(client, segment);
    host_run(host);
}

void client_open(struct client *client, uint32_t iss)
{
    client->connected = false;
    client->irs = 0;
    begin_stream(client, iss + 1);
    struct segment syn = client_segment(client, SYN);
    syn.seq = iss;
    syn.ack = 0;
    client_say(client, &syn);
}

void client_send(struct client *client, uint8_t flags, const uint8_t *data, uint32_t bytes)
{
    struct segment segment = client_segment(client, flags);
    segment.data = data;
    segment.bytes = bytes;
    client->seq += bytes + (flags & FIN);
    client_say(client, &segment);
}
