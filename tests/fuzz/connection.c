/* Whole connections: the input is a program of what up to four clients do, knowing what the server has said. So
 * states are reached that random bytes never reach. In the first byte bit 0 says that the port takes superframes, bit
 * 1 that NewReno is used, bit 2 that segments are paced. Instructions of six bytes follow:
 *
 *   | client:2 modifiers:2 operation:4 | how:8 | value:16 | extra:16 |
 */
#include "client.h"

#define CLIENTS 4
#define STEPS_MAX 200
#define INSTRUCTION_BYTES 6

struct instruction {
    uint8_t operation, modifiers, how;
    uint16_t value, extra;
};

struct world {
    struct host host;
    struct client clients[CLIENTS];
};

static void on_frame(void *context, const struct sent_frame *frame)
{
    struct world *world = context;
    bool v6 = get16(frame->data + 12) == 0x86dd;
    const uint8_t *ip = frame->data + 14;
    if (ip[v6 ? 6 : 9] != 6)
        return;
    uint32_t index = get16(ip + (v6 ? 40 : 20) + 2) - 40000;
    if (index < CLIENTS)
        client_hear(&world->clients[index], frame);
}

/* how: bit 0 timestamps, 1 SACK, 2 no window scale, 3 no ACK before the first data, 4 to 7 the scale; value: the MSS;
 * extra: how far from the connection before this one begins; the window of the ACK. */
static void open_connection(struct client *client, const struct instruction *in)
{
    static const uint16_t sizes[8] = {1460, 1460, 88, 536, 0, 1440, 9000};
    client->timestamps = (in->how & 1) != 0;
    client->sack = (in->how & 2) != 0;
    client->wscale = (in->how & 4) != 0 ? NO_WSCALE : in->how >> 4;
    client->wscale = client->wscale > 14 ? NO_WSCALE : client->wscale;
    client->mss = in->value % 8 == 7 ? in->value : sizes[in->value % 8];
    client->loss = 0;
    client_open(client, (in->modifiers & 1) != 0 ? client->seq - in->extra : client->seq + in->extra);
    if (!client->connected || (in->how & 8) != 0)
        return;
    struct segment ack = client_segment(client, ACK);
    ack.window = (in->modifiers & 2) != 0 ? in->extra : 65535;
    client_say(client, &ack);
}

/* how: bits 0 to 3 what to ask, 4 with FIN, 5 it is lost, 6 out of order by value, 7 only its first value bytes. */
static void request(struct client *client, const struct instruction *in)
{
    static const char *const texts[16] = {
        "GET /big HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n",
        "HEAD /big HTTP/1.0\r\n\r\n",
        "GET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET /a HTTP/1.1\r\n",
        "Host: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhello",
        "GET /r?x HTTP/1.1\r\nHost: a\r\n\r\nGET /big HTTP/1.1\r\nHost: a\r\n\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n"
        "GET /m/x%2fy?y HTTP/1.1\r\nHost: a\r\n\r\nGET /big HTTP/1.1\r\nHost: a\r\n"
        "Range: bytes=0-1,5-6,9-9,20-40000,50000-50002\r\n\r\nGET /r?z HTTP/1.1\r\nHost: "
        "a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: a\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n",
        "",
        "\r\n",
        "nonsense\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 99999\r\n\r\n",
        "A: very long field, to be sent again and again until no request may be so "
        "long..............................",
    };
    struct segment segment = client_segment(client, (in->how & 16) != 0 ? ACK | PSH | FIN : ACK | PSH);
    segment.data = (const uint8_t *)texts[in->how & 15];
    segment.bytes = (uint32_t)strlen(texts[in->how & 15]);
    if ((in->how & 128) != 0 && in->value < segment.bytes)
        segment.bytes = in->value;
    uint32_t end = segment.seq + segment.bytes + (segment.flags & FIN);
    if ((in->how & 64) != 0)
        segment.seq += in->value - 32768u;
    else
        client->seq = end;
    if ((in->how & 32) == 0)
        client_say(client, &segment);
}

/* A long head, or a body: value segments of extra bytes. */
static void pour(struct client *client, const struct instruction *in)
{
    static uint8_t data[1400];
    memset(data, 'a', sizeof(data));
    for (uint32_t i = 0; i < in->value % 16u && client->connected; i++)
        client_send(client, ACK, data, in->extra % sizeof(data));
}

/* how: bit 0 the window is value, 1 acknowledges value less, 2 value more, 3 a timestamp value ms old, 4 an old echo,
 * 5 no SACK blocks, 6 one block anywhere, 7 another. */
static void acknowledge(struct client *client, const struct instruction *in)
{
    struct segment segment = client_segment(client, ACK);
    if ((in->how & 1) != 0)
        segment.window = in->value;
    if ((in->how & 2) != 0)
        segment.ack -= in->value;
    if ((in->how & 4) != 0)
        segment.ack += in->value;
    if ((in->how & 8) != 0)
        segment.ts_value -= in->value;
    if ((in->how & 16) != 0)
        segment.ts_echo -= in->value % 256;
    if ((in->how & 32) != 0)
        segment.sack_count = 0;
    for (uint32_t bit = 64; bit <= 128 && segment.sack_count < 3; bit *= 2) {
        uint32_t start = segment.ack + (uint32_t)(int16_t)(bit == 64 ? in->extra : in->value);
        if ((in->how & bit) != 0)
            segment.sacks[segment.sack_count++] = (struct range){start, start + in->extra % 4000};
    }
    client_say(client, &segment);
}

/* The client as it should be, for a while: how rounds of value ms with an ACK each, losing by extra in each. */
static void flow(struct client *client, const struct instruction *in)
{
    for (uint32_t i = 0; i < in->how % 32u && client->connected; i++) {
        if (in->extra != 0)
            client->loss = in->extra * 0x10001u;
        host_advance(client->host, in->value % 1024u);
        struct segment ack = client_segment(client, ACK);
        client_say(client, &ack);
    }
}

/* how: the flags; value and extra move the numbers. */
static void anything(struct client *client, const struct instruction *in)
{
    struct segment segment = client_segment(client, in->how);
    segment.seq += in->value - 32768u;
    segment.ack += in->extra - 32768u;
    client_say(client, &segment);
}

/* Fragmentation needed, or packet too big: the MTU is value, about a segment how * 64 bytes beyond. */
static void too_big(struct client *client, const struct instruction *in)
{
    uint8_t frame[200] = {0}, inner[54 + 8] = {0};
    bool v6 = client_v6(client);
    uint32_t ip_bytes = v6 ? 40 : 20, bytes = 8 + ip_bytes + 8;
    uint32_t at = client_headers(client, inner, 6, 0);
    uint8_t swapped[16];
    uint32_t source = v6 ? 22 : 26, address = v6 ? 16 : 4;
    memcpy(swapped, inner + source, address);
    memmove(inner + source, inner + source + address, address);
    memcpy(inner + source + address, swapped, address);
    put16(inner + at, 80);
    put16(inner + at + 2, client->port);
    put32(inner + at + 4, client->irs + 1 + client->known + in->how * 64u);
    at = client_headers(client, frame, v6 ? 58 : 1, bytes);
    frame[at] = v6 ? 2 : 3;
    frame[at + 1] = v6 ? 0 : 4;
    put32(frame + at + 4, in->value);
    memcpy(frame + at + 8, inner + 14, ip_bytes + 8);
    host_input(client->host, frame, at + bytes, true);
    host_run(client->host);
}

/* What is not the clients' to do. */
static void happen(struct host *host, const struct instruction *in)
{
    uint8_t secret[TCPIP_SECRET_BYTES];
    switch (in->how % 8) {
    case 0:
        memset(secret, in->value, sizeof(secret));
        stack_rotate_secret(host->stack, secret);
        break;
    case 1:
        if (in->value == 0x6464) /* nothing else happens after it */
            stack_drain(host->stack);
        break;
    case 2:
    case 3:
        host->slow = in->how % 8 == 2;
        break;
    default:
        host_complete(host, in->value % 8);
    }
    host_run(host);
}

/* Without a word. */
static void forget(struct client *client, const struct instruction *in)
{
    (void)in;
    client->connected = false;
}

static void lose(struct client *client, const struct instruction *in)
{
    client->loss = (uint32_t)in->value << 16 | in->extra;
}

static void (*const of_client[])(struct client *client, const struct instruction *in) = {
    forget, request, request, pour, acknowledge, acknowledge, flow, flow, lose, anything, too_big};
#define OF_CLIENT (sizeof(of_client) / sizeof(of_client[0]))

static void step(struct world *world, struct client *client, const struct instruction *in)
{
    if (in->operation >= OF_CLIENT + 2)
        host_advance(&world->host, in->value);
    else if (in->operation >= OF_CLIENT)
        happen(&world->host, in);
    else if (client->connected)
        of_client[in->operation](client, in);
    else
        open_connection(client, in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed);

/* Instructions as wholes: one is changed, doubled, moved or left out. Half of the time libFuzzer does as it likes. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
    size_t count = size > 0 ? (size - 1) / INSTRUCTION_BYTES : 0;
    if (count < 2 || seed % 2 == 0)
        return LLVMFuzzerMutate(data, size, max_size);
    uint8_t *at = data + 1 + seed / 16 % count * INSTRUCTION_BYTES, *end = data + size;
    uint8_t *other = data + 1 + seed / 16 / 256 % count * INSTRUCTION_BYTES, copy[INSTRUCTION_BYTES];
    memcpy(copy, at, INSTRUCTION_BYTES);
    switch (seed / 2 % 4) {
    case 0:
        memmove(at, at + INSTRUCTION_BYTES, (size_t)(end - at) - INSTRUCTION_BYTES);
        return size - INSTRUCTION_BYTES;
    case 1:
        if (size + INSTRUCTION_BYTES > max_size)
            return size;
        memmove(other + INSTRUCTION_BYTES, other, (size_t)(end - other));
        memcpy(other, copy, INSTRUCTION_BYTES);
        return size + INSTRUCTION_BYTES;
    case 2:
        memcpy(at, other, INSTRUCTION_BYTES);
        memcpy(other, copy, INSTRUCTION_BYTES);
        return size;
    default:
        LLVMFuzzerMutate(at, INSTRUCTION_BYTES, INSTRUCTION_BYTES);
        return size;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct world world;
    struct image image;
    CHECK(fuzz_image_open(&image, &fuzz_image) == 0);
    world.host.on_frame = on_frame;
    world.host.context = &world;
    uint8_t how = size > 0 ? data[0] : 0;
    world.host.congestion = (how & 2) != 0 ? CONGESTION_NEWRENO : CONGESTION_CUBIC;
    world.host.pacing = (how & 4) != 0;
    host_start(&world.host, &image, (how & 1) != 0 ? NMIO_GATHER_MAX : 1);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        memset(&world.clients[i], 0, offsetof(struct client, stream)); /* or an input does not run the same again */
        world.clients[i].host = &world.host;
        world.clients[i].port = (uint16_t)(40000 + i);
    }
    size_t steps = size > 0 ? (size - 1) / INSTRUCTION_BYTES : 0;
    for (size_t i = 0; i < steps && i < STEPS_MAX; i++) {
        const uint8_t *at = data + 1 + i * INSTRUCTION_BYTES;
        struct instruction in = {at[0] & 15, at[0] >> 4 & 3, at[1], (uint16_t)get16(at + 2), (uint16_t)get16(at + 4)};
        step(&world, &world.clients[at[0] >> 6], &in);
    }
    host_end(&world.host);
    return 0;
}
