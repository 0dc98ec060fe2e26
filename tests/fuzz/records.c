/* Records of connections as no build of ours leaves them (libtcpip/records.h): real ones with edits, | width:8 | offset:16 | value:64 |, of
 * width bytes; width 0: the rest is cut off there. Whatever goes on of them is served, without a read or a write out of bounds,
 * and has ended a day later. */
#include "libtcpip/records.h"
#include "client.h"

#define CLIENTS 3 /* no more connections has the harness */
#define EDIT_BYTES 11
#define FIRST_PORT 40000

static struct client clients[CLIENTS];

static void hear(void *context, const struct sent_frame *frame)
{
    bool v6 = get16(frame->data + 12) == 0x86dd;
    uint32_t protocol = frame->data[v6 ? 20 : 23], port = get16(frame->data + (v6 ? 56 : 36));
    (void)context;
    if (protocol == 6 && port - FIRST_PORT < CLIENTS)
        client_hear(&clients[port - FIRST_PORT], frame);
}

static void ask(struct client *client, const char *text)
{
    client_send(client, ACK | PSH, (const uint8_t *)text, (uint32_t)strlen(text));
}

/* In the middle of a download, with a part of a request, and with a composed answer. */
static void serve(struct host *host, const struct image *image)
{
    static const char *const texts[CLIENTS] = {"GET /big HTTP/1.1\r\nHost: a\r\n\r\n",
                                               "GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /a HTTP/1.1\r\nHo",
                                               "GET /m/x?y HTTP/1.1\r\nHost: a\r\n\r\n"};
    host->on_frame = hear;
    host_start(host, image, 1);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        clients[i] =
            (struct client){.host = host, .port = (uint16_t)(FIRST_PORT + i), .mss = 1400, .wscale = 7, .sack = true};
        client_open(&clients[i], 1000 + 1000 * i);
        ask(&clients[i], texts[i]);
    }
}

/* Exactly so long, so that a read beyond it is seen. */
static uint8_t *records_of(const struct host *host, uint64_t *bytes)
{
    uint64_t most = stack_records_bytes(host->stack);
    uint8_t *all = calloc(1, most), *exact;
    CHECK(all != NULL);
    *bytes = stack_records_write(host->stack, all, most);
    CHECK(*bytes > sizeof(struct records_header) && *bytes <= most);
    exact = malloc(*bytes);
    CHECK(exact != NULL);
    memcpy(exact, all, *bytes);
    free(all);
    return exact;
}

/* Returns how many bytes there are then. */
static uint64_t edit(uint8_t *records, uint64_t bytes, const uint8_t *at)
{
    uint32_t width = at[0] % 9, offset = get16(at + 1);
    if (width == 0)
        return bytes < offset ? bytes : offset;
    if (bytes >= width)
        memcpy(records + offset % (bytes - width + 1), at + 3, width);
    return bytes;
}

/* The clients go on, whatever has become of them. */
static void go_on(struct host *host)
{
    for (uint32_t i = 0; i < CLIENTS; i++) {
        ask(&clients[i], "GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
        struct segment ack = client_segment(&clients[i], ACK);
        client_say(&clients[i], &ack);
        host_advance(host, 300);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct host host = {0};
    struct image image;
    uint64_t bytes;
    CHECK(fuzz_image_open(&image, &fuzz_image) == 0);
    serve(&host, &image);
    uint8_t *records = records_of(&host, &bytes);
    uint64_t whole = bytes;
    bool edited = size >= EDIT_BYTES;
    for (; size >= EDIT_BYTES; data += EDIT_BYTES, size -= EDIT_BYTES)
        bytes = edit(records, bytes, data);
    uint8_t *left = bytes < whole ? memcpy(malloc(bytes + 1), records, bytes) : records;
    host.on_frame = NULL;
    host.unjudged = edited; /* headers are what the records say */
    host_start(&host, &image, 1);
    CHECK(stack_resume_records(host.stack, left, bytes) || edited);
    CHECK(edited || host.stack->tcpip.counters.tcp_resumed == CLIENTS);
    if (left != records)
        free(left);
    free(records);
    host_run(&host);
    go_on(&host);
    host_end(&host);
    return 0;
}
