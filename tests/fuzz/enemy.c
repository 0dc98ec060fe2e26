/* A download beside a blind enemy, who knows nothing but addresses and ports: the input is what he sends. In the first byte
 * bits 0 to 2 are as in connection.c, bit 3 says IPv6, 4 no timestamps, 5 no SACK. Instructions of 16 bytes follow:
 *
 *   | how:8 | flags:8 | seq:32 | ack:32 | timestamp:32 | window:15 then:1 |
 *
 *   how: bits 0 and 1 an ICMP message if both are set, 2 from another MAC, 3 no timestamps, 4 seq counts from what the client
 *   sends next, 5 the timestamp from the client's, 6 and 7 the payload. then: the download goes on before the next one.
 *
 * What takes more luck than a flood can buy is left out, as a fuzzer finds all numbers: see is_hit. The download must end
 * right, after as many rounds as without him. */
#define _GNU_SOURCE /* memmem */
#include "client.h"
#include "web/state.h"

#define INSTRUCTION_BYTES 16
#define STEPS_MAX 64
#define ROUNDS_MAX 2000
#define ROUND_MS 20
#define PORT 40000
#define FAR (1u << 26) /* an ACK so far from what was sent is not acceptable, RFC 5961 section 5.2 */

struct world {
    struct host host;
    struct client client;
    uint32_t rounds; /* until all was there */
    bool asked_again, closed;
};

struct shot {
    uint8_t how, flags;
    uint32_t seq, ack, ts_value, window;
    const char *payload;
};

static const char first[] = "GET /big HTTP/1.1\r\nHost: a\r\n\r\n";
static const char last[] = "GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

static void on_frame(void *context, const struct sent_frame *frame)
{
    static const uint8_t mac[6] = {2, 0, 0, 0, 0, 2};
    struct client *client = &((struct world *)context)->client;
    bool v6 = get16(frame->data + 12) == 0x86dd;
    const uint8_t *tcp = frame->data + (v6 ? 54 : 34);
    if (frame->data[v6 ? 20 : 23] != 6 || get16(tcp + 2) != client->port)
        return;
    bool ours = memcmp(frame->data, mac, sizeof(mac)) == 0;
    CHECK(ours || tcp + (tcp[12] >> 4) * 4 == frame->data + frame->len_bytes); /* no data to his MAC */
    if (ours && ((tcp[13] & RST) == 0 || get32(tcp + 4) == client->irs + 1 + client->known)) /* RFC 5961 section 3 */
        client_hear(client, frame);
}

/* Where the first answer ends; beyond everything while its head is not there. */
static uint32_t first_end(const struct client *client)
{
    static const char field[] = "Content-Length: ";
    const char *stream = (const char *)client->stream, *body = memmem(stream, client->known, "\r\n\r\n", 4);
    if (body == NULL)
        return UINT32_MAX;
    const char *length = memmem(stream, (size_t)(body - stream), field, strlen(field));
    CHECK(length != NULL);
    return (uint32_t)(body + 4 - stream) + (uint32_t)atoi(length + strlen(field));
}

static void say(struct client *client, const char *request)
{
    client_send(client, ACK | PSH, (const uint8_t *)request, (uint32_t)strlen(request));
}

/* The next round: time passes, and what has come is acknowledged. Behind the download comes a small page. */
static void progress(struct world *world)
{
    struct client *client = &world->client;
    if (world->closed)
        return;
    CHECK(++world->rounds < ROUNDS_MAX);
    CHECK(client->connected);
    host_advance(&world->host, ROUND_MS);
    world->closed = client->fin && client->known == client->fin_at;
    if (world->closed) {
        client_send(client, ACK | FIN, NULL, 0);
    } else if (!world->asked_again && client->known >= first_end(client)) {
        CHECK(client->known == first_end(client));
        say(client, last);
        world->asked_again = true;
    } else {
        struct segment ack = client_segment(client, ACK);
        client_say(client, &ack);
    }
}

/* An exact reset; a sequence number in the window with an ACK that will do; a SYN cookie; a segment in flight. */
static bool is_hit(const struct world *world, const struct shot *shot)
{
    const struct client *client = &world->client;
    uint32_t position = shot->ack - client->irs - 1;
    bool ack_close = position < FAR || 0 - position < FAR;
    uint32_t ahead = shot->seq + FAR - client->seq;
    if ((shot->how & 3) == 3)
        return shot->seq - client->irs - 1 < FAR;
    if (stack_connections(world->host.stack) == 0)
        return (shot->flags & (SYN | RST | ACK)) == ACK;
    if ((shot->flags & RST) != 0)
        return shot->seq == client->seq;
    return ahead < 2 * FAR && ack_close;
}

/* From his MAC or not, behind a good checksum. */
static void shoot_frame(struct world *world, uint8_t how, uint8_t *frame, uint32_t bytes)
{
    if ((how & 4) != 0)
        frame[11] = 0xee;
    host_input(&world->host, frame, bytes, true);
    host_run(&world->host);
}

static void shoot_segment(struct world *world, const struct shot *shot)
{
    uint8_t frame[54 + 32 + sizeof(last)];
    bool timestamps = (shot->how & 8) == 0;
    uint32_t head = timestamps ? 32 : 20, bytes = (uint32_t)strlen(shot->payload);
    uint32_t at = client_headers(&world->client, frame, 6, head + bytes);
    uint8_t *tcp = frame + at;
    put16(tcp, world->client.port);
    put16(tcp + 2, 80);
    put32(tcp + 4, shot->seq);
    put32(tcp + 8, shot->ack);
    put32(tcp + 12, head / 4 << 28 | (uint32_t)shot->flags << 16 | shot->window);
    put32(tcp + 16, 0);
    put32(tcp + 20, 0x0101080a);
    put32(tcp + 24, shot->ts_value);
    put32(tcp + 28, shot->ack);
    memcpy(tcp + head, shot->payload, bytes);
    shoot_frame(world, shot->how, frame, at + head + bytes);
}

/* About a segment of ours that may have been: too big for a path of window bytes, or whatever the flags say. */
static void shoot_icmp(struct world *world, const struct shot *shot)
{
    const struct client *client = &world->client;
    uint8_t frame[200] = {0}, inner[54 + 8] = {0};
    bool v6 = client_v6(client);
    uint32_t ip_bytes = v6 ? 40 : 20, at = client_headers(client, inner, 6, 0);
    uint8_t *source = inner + (v6 ? 22 : 26), swapped[16];
    uint32_t address = v6 ? 16 : 4;
    memcpy(swapped, source, address);
    memmove(source, source + address, address);
    memcpy(source + address, swapped, address);
    put16(inner + at, 80);
    put16(inner + at + 2, client->port);
    put32(inner + at + 4, shot->seq);
    at = client_headers(client, frame, v6 ? 58 : 1, 8 + ip_bytes + 8);
    frame[at] = shot->flags != 0 ? shot->flags : v6 ? 2 : 3;
    frame[at + 1] = v6 ? 0 : 4;
    put32(frame + at + 4, shot->window);
    memcpy(frame + at + 8, inner + 14, ip_bytes + 8);
    shoot_frame(world, shot->how, frame, at + 8 + ip_bytes + 8);
}

static void shoot(struct world *world, const uint8_t *at)
{
    static const char *const payloads[4] = {"", "", "x", "GET /none HTTP/1.1\r\nHost: a\r\n\r\n"};
    const struct client *client = &world->client;
    struct shot shot = {.how = at[0],
                        .flags = at[1],
                        .seq = get32(at + 2) + ((at[0] & 16) != 0 ? client->seq : 0),
                        .ack = get32(at + 6),
                        .ts_value = get32(at + 10),
                        .window = get16(at + 14) >> 1,
                        .payload = payloads[at[0] >> 6]};
    if ((at[0] & 32) != 0)
        shot.ts_value += (uint32_t)(world->host.now_ns / 1000000);
    if (is_hit(world, &shot))
        return;
    if ((at[0] & 3) == 3)
        shoot_icmp(world, &shot);
    else
        shoot_segment(world, &shot);
}

static void begin(struct world *world, const struct image *image, uint8_t how)
{
    struct client *client = &world->client;
    world->host.on_frame = on_frame;
    world->host.context = world;
    world->host.congestion = (how & 2) != 0 ? CONGESTION_NEWRENO : CONGESTION_CUBIC;
    world->host.pacing = (how & 4) != 0;
    host_start(&world->host, image, (how & 1) != 0 ? NMIO_GATHER_MAX : 1);
    memset(client, 0, offsetof(struct client, stream));
    world->rounds = 0;
    world->asked_again = world->closed = false;
    client->host = &world->host;
    client->port = PORT + ((how & 8) != 0);
    client->timestamps = (how & 16) == 0;
    client->sack = (how & 32) == 0;
    client->mss = 1460;
    client->wscale = 7;
    client_open(client, 1000000);
    CHECK(client->connected);
    say(client, first);
}

/* The download with what he sends, or without him; how many rounds it took. */
static uint32_t download(struct world *world, const struct image *image, const uint8_t *data, size_t size)
{
    size_t steps = size > 0 ? (size - 1) / INSTRUCTION_BYTES : 0;
    begin(world, image, size > 0 ? data[0] : 0);
    for (size_t i = 0; i < steps && i < STEPS_MAX; i++) {
        const uint8_t *at = data + 1 + i * INSTRUCTION_BYTES;
        shoot(world, at);
        if ((at[INSTRUCTION_BYTES - 1] & 1) != 0)
            progress(world);
    }
    while (!world->closed)
        progress(world);
    host_end(&world->host);
    const struct web *web = world->host.stack->tcpip.app_state;
    CHECK(web->counters.http_requests == 2);
    CHECK(web->counters.http_bad_requests == 0);
    return world->rounds;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct world world;
    struct image image;
    CHECK(fuzz_image_open(&image, &fuzz_image) == 0);
    uint32_t alone = download(&world, &image, data, size > 0);
    CHECK(download(&world, &image, data, size) <= alone);
    return 0;
}
