/* Images as no compiler makes them. The first byte: bit 0 the port takes superframes, bit 1 sections get the sizes
 * that the header says. Edits follow: | section:4 width:4 | offset:16 | value:32 |; width 0 sets the section's size.
 * What image_open lets pass is served to a client, and must not be read out of bounds. */
#include "client.h"

#define SECTIONS 12
#define EDIT_BYTES 7
#define SECTION_BYTES_MAX (1u << 20)

/* Sections on the heap, exactly so long. */
struct copy {
    uint8_t *data[SECTIONS];
    uint64_t bytes[SECTIONS];
};

static void copy_base(struct copy *copy)
{
    const struct image_sections *s = &fuzz_image;
    const void *data[SECTIONS] = {s->header,   s->strings,   s->hosts,   s->sites,  s->buckets, s->routes,
                                  s->variants, s->responses, s->patches, s->errors, s->frames,  s->slots};
    memcpy(copy->bytes, &s->header_bytes, sizeof(copy->bytes));
    for (uint32_t i = 0; i < SECTIONS; i++) {
        copy->data[i] = malloc(copy->bytes[i]);
        CHECK(copy->data[i] != NULL);
        memcpy(copy->data[i], data[i], copy->bytes[i]);
    }
}

static void resize(struct copy *copy, uint32_t section, uint64_t bytes)
{
    uint64_t before = copy->bytes[section];
    if (bytes > SECTION_BYTES_MAX || bytes == before)
        return;
    copy->data[section] = realloc(copy->data[section], bytes > 0 ? bytes : 1);
    CHECK(copy->data[section] != NULL);
    copy->bytes[section] = bytes;
    if (bytes > before)
        memset(copy->data[section] + before, 0, bytes - before);
}

static void edit(struct copy *copy, const uint8_t *at)
{
    uint32_t section = (at[0] >> 4) % SECTIONS, width = at[0] % 5u, offset = get16(at + 1), value = get32(at + 3);
    if (width == 0)
        resize(copy, section, value);
    else if (copy->bytes[section] >= width)
        memcpy(copy->data[section] + offset % (copy->bytes[section] - width + 1), &value, width);
}

static void follow_header(struct copy *copy)
{
    struct ssi_header h;
    if (copy->bytes[0] != sizeof(h))
        return;
    memcpy(&h, copy->data[0], sizeof(h));
    const uint64_t bytes[SECTIONS] = {sizeof(h),
                                      h.string_bytes,
                                      (uint64_t)h.host_count * sizeof(struct ssi_host),
                                      (uint64_t)h.site_count * sizeof(struct ssi_site),
                                      (uint64_t)h.bucket_count * sizeof(uint32_t),
                                      (uint64_t)h.route_table_len * sizeof(struct ssi_route),
                                      (uint64_t)h.variant_count * sizeof(struct ssi_variant),
                                      (uint64_t)h.response_count * sizeof(struct ssi_response),
                                      (uint64_t)h.patch_count * sizeof(struct ssi_patch),
                                      (uint64_t)h.error_count * sizeof(struct ssi_error),
                                      (uint64_t)h.frame_count * sizeof(struct ssi_frame),
                                      (uint64_t)h.slot_count * h.slot_bytes};
    for (uint32_t i = 0; i < SECTIONS; i++)
        resize(copy, i, bytes[i]);
}

static void on_frame(void *context, const struct sent_frame *frame)
{
    client_hear(context, frame);
}

static void serve(const struct image *image, bool gather)
{
    static const char *const requests[] = {
        "GET /big HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\nIf-None-Match: \"0123456789abcdef\"\r\n\r\n",
        "HEAD /a HTTP/1.1\r\nHost: a\r\nIf-Modified-Since: Sun, 06 Nov 2094 08:49:37 GMT\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: a\r\nIf-None-Match: *\r\n\r\n",
        "GET /big HTTP/1.1\r\nHost: a\r\nRange: bytes=5-9\r\n\r\n",
        "GET /big HTTP/1.1\r\nHost: a\r\nRange: bytes=5-9,100-200\r\n\r\n",
        "GET /none HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /p/x/y HTTP/1.1\r\nHost: a\r\n\r\nOPTIONS /p/x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: b.example\r\n\r\nPOST /x HTTP/1.1\r\nHost: x.b.example:80\r\n\r\n",
        "nonsense\r\n\r\n",
    };
    static struct client client;
    struct host host = {.untrusted = true, .on_frame = on_frame, .context = &client};
    host_start(&host, image, gather ? NMIO_GATHER_MAX : 1);
    client = (struct client){.host = &host, .port = 40000, .mss = 1460, .wscale = 5, .sack = true};
    client_open(&client, 1000);
    for (uint32_t i = 0; i < sizeof(requests) / sizeof(requests[0]) && client.connected; i++) {
        client.loss = 5;
        client_send(&client, ACK | PSH, (const uint8_t *)requests[i], (uint32_t)strlen(requests[i]));
        for (uint32_t round = 0; round < 8; round++) {
            host_advance(&host, 20);
            struct segment ack = client_segment(&client, ACK);
            client_say(&client, &ack);
        }
    }
    host_end(&host);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct copy copy;
    struct image image;
    char text[100];
    uint8_t how = size > 0 ? data[0] : 0;
    copy_base(&copy);
    for (size_t at = 1; at + EDIT_BYTES <= size; at += EDIT_BYTES)
        edit(&copy, data + at);
    if ((how & 2) != 0)
        follow_header(&copy);
    struct image_sections sections = {copy.data[0], copy.data[1], copy.data[2],  copy.data[3],
                                      copy.data[4], copy.data[5], copy.data[6],  copy.data[7],
                                      copy.data[8], copy.data[9], copy.data[10], copy.data[11]};
    memcpy(&sections.header_bytes, copy.bytes, sizeof(copy.bytes));
    int error = fuzz_image_open(&image, &sections);
    image_error_text(error, text, sizeof(text));
    CHECK((error == 0) == (strncmp(text, "no error", 8) == 0));
    if (error == 0)
        serve(&image, (how & 1) != 0);
    for (uint32_t i = 0; i < SECTIONS; i++)
        free(copy.data[i]);
    return 0;
}
