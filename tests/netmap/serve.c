/* The whole stack over the netmap port and a device in memory, which is strict. Clients get files again and again and
 * compare them with the image; with host rings the kernel's frames come and go between theirs.
 *
 *   serve [option=value ...] IMAGE REQUESTS:PATH[,PATH...]
 *
 * Prints one JSON object. break=RULE breaks a rule on purpose, in the middle of it all: the device must notice. */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arguments.h"
#include "clients.h"
#include "device.h"
#include "image_file.h"
#include "libnmio/netmap_abi.h"
#include "libnmio/region.h"
#include "stack.h"
#include "web/web.h"
#include "wire/checksum.h"
#include "wire/wire.h"

#define BATCH 64
#define BUFFERS 4096 /* of the region, where frames are copied */
#define ROUND_NS 20000
#define ROUNDS_IDLE_MAX 100000
#define TARGETS_MAX 1000
#define FRAME_BYTES 2048
#define PAGE_BYTES 4096
#define KERNEL_FRAMES 3 /* of the kernel's, in each direction and round */
#define KERNEL_ETH_TYPE 0x88b5 /* for local experiments */
#define ROUND_OF_BREAK 40

struct options {
    uint64_t connections, rings, slots, buffer_bytes, extra, extra_max, delay, offsets, copy, host, own, ring,
        buffers, external;
};

static struct options options = {.connections = 100,
                                 .rings = 1,
                                 .slots = 256,
                                 .buffer_bytes = 2048,
                                 .extra = 65536,
                                 .extra_max = 65536,
                                 .offsets = 1,
                                 .ring = UINT64_MAX};
static const char *rule_to_break = "";
static struct image_file file;
static struct target targets[TARGETS_MAX];
static uint32_t target_count;

static struct device *device;
static struct nmio_port *port;
static struct nmio_region region;
static struct nmio_tx tx;
static struct netmap_info info;
static uint8_t *external_memory;
static struct stack *stack;
static struct clients clients;
static uint64_t now_ns = 1000000000000, rounds;

/* The kernel's frames are numbered. */
static uint64_t to_kernel_fed, to_kernel_seen, from_kernel_fed, from_kernel_seen, wrong;

/* Frames. */

static uint64_t transport_sum(const uint8_t *frame, uint32_t len_bytes)
{
    const struct wire_ipv4 *ip = (const struct wire_ipv4 *)(frame + sizeof(struct wire_eth));
    uint32_t bytes = len_bytes - (uint32_t)(sizeof(struct wire_eth) + sizeof(*ip));
    return checksum_pseudo(IP_PROTOCOL_TCP, bytes) + checksum_sum(ip->source, 8) + checksum_sum(ip + 1, bytes);
}

static void finish_checksum(uint8_t *frame, uint32_t len_bytes)
{
    struct wire_tcp *tcp = (struct wire_tcp *)(frame + sizeof(struct wire_eth) + sizeof(struct wire_ipv4));
    tcp->checksum = (uint16_t)~checksum_fold(transport_sum(frame, len_bytes));
}

/* Frame number so and so of the kernel's, of a length that goes with it. */
static uint32_t kernel_frame(uint8_t *frame, uint64_t number)
{
    uint32_t len_bytes = 64 + (uint32_t)(number * 97 % 1450);
    memset(frame, (int)(number & 0xff), len_bytes);
    frame[12] = KERNEL_ETH_TYPE >> 8;
    frame[13] = KERNEL_ETH_TYPE & 0xff;
    memcpy(frame + 14, &number, sizeof(number));
    return len_bytes;
}

static void expect_kernel_frame(uint64_t number, const uint8_t *frame, uint32_t len_bytes)
{
    uint8_t expected[FRAME_BYTES];
    wrong += kernel_frame(expected, number) != len_bytes || memcmp(expected, frame, len_bytes) != 0;
}

/* What arrives in a round. */
static void feed(void)
{
    uint8_t frame[FRAME_BYTES];
    uint32_t ring = options.ring != UINT64_MAX ? (uint32_t)options.ring : 0;
    clients.now_ms = (uint32_t)(now_ns / 1000000);
    for (uint32_t count = 0; count < BATCH; count++) {
        uint32_t bytes = clients_say(&clients, frame);
        if (bytes == 0)
            break;
        finish_checksum(frame, bytes);
        if (!device_feed(device, ring, frame, bytes))
            stop("the device's queue is full");
        if (options.ring == UINT64_MAX)
            ring = (ring + 1) % (uint32_t)options.rings;
    }
    for (uint32_t i = 0; options.host && i < KERNEL_FRAMES; i++) {
        to_kernel_fed += device_feed(device, ring, frame, kernel_frame(frame, to_kernel_fed));
        from_kernel_fed += device_feed_host(device, frame, kernel_frame(frame, from_kernel_fed));
    }
}

/* What has left. */
static uint32_t take(void)
{
    uint8_t frame[FRAME_BYTES];
    uint32_t count = 0;
    for (uint32_t bytes; (bytes = device_take(device, frame, sizeof(frame))) > 0; count++) {
        struct nmio_tx_desc desc = {.head = frame, .head_bytes = bytes};
        if (frame[12] == KERNEL_ETH_TYPE >> 8 && frame[13] == (KERNEL_ETH_TYPE & 0xff)) {
            expect_kernel_frame(from_kernel_seen++, frame, bytes);
            continue;
        }
        wrong += checksum_fold(transport_sum(frame, bytes)) != 0xffff;
        clients_hear(&clients, &tx, &desc);
    }
    /* Several rings are not in step with each other. */
    for (uint32_t bytes; (bytes = device_take_host(device, frame, sizeof(frame))) > 0; count++) {
        uint64_t number = 0;
        memcpy(&number, frame + 14, sizeof(number));
        expect_kernel_frame(options.rings > 1 ? number : to_kernel_seen, frame, bytes);
        to_kernel_seen++;
    }
    return count;
}

/* As the worker does it. Returns whether anything moved. */
static bool serve_round(void)
{
    struct nmio_rx batch[BATCH];
    rounds++;
    now_ns += ROUND_NS;
    feed();
    int received = port->ops->input(port, batch, BATCH);
    if (received < 0)
        stop("input fails");
    stack_clock(stack, now_ns, (int64_t)(784111777 + now_ns / 1000000000));
    stack_input(stack, batch, (uint32_t)received);
    do {
        stack_output(stack);
        if (port->ops->output(port) != 0)
            stop("output fails");
    } while (stack_waits_for_space(stack) && tx.space > 0 && tx.count == 0);
    port->ops->release(port, batch, (uint32_t)received);
    if (received == 0 && port->ops->wait(port, -1, -1) != 0)
        stop("wait fails");
    return take() + (uint32_t)received > 0;
}

/* Rules to break. */

/* Of the frame given to the device last, which has not left. */
static uint32_t chunk_in_flight(const struct nm_abi_ring *ring)
{
    return ring->slot[(ring->head + ring->num_slots - 1) % ring->num_slots].buf_idx;
}

/* A frame that the port knows nothing of. */
static void send_wrong(struct nm_abi_ring *ring, struct nm_abi_slot slot)
{
    ring->slot[ring->head] = slot;
    ring->head = ring->cur = (ring->head + 1) % ring->num_slots;
}

/* There are frames in flight, and room for one more; for some rules both are needed. */
static bool can_break(void)
{
    const struct nm_abi_ring *ring = device_tx_ring(device, 0);
    bool partly = ring->head != ring->tail && ring->head != (ring->tail + 1) % ring->num_slots;
    return rounds >= ROUND_OF_BREAK && (partly || strcmp(rule_to_break, "nothing") == 0);
}

static void break_rule(const char *rule)
{
    struct nm_abi_ring *ring = device_tx_ring(device, 0), *rx = device_rx_ring(device, 0);
    uint32_t unused = region.free_buffers[0];
    if (strcmp(rule, "change") == 0)
        nmio_chunk(&region, chunk_in_flight(ring))[200] ^= 1;
    else if (strcmp(rule, "slot") == 0)
        ring->slot[ring->tail].len ^= 1;
    else if (strcmp(rule, "head") == 0)
        ring->head = ring->cur = (ring->tail + 1) % ring->num_slots;
    else if (strcmp(rule, "index") == 0)
        send_wrong(ring, (struct nm_abi_slot){.buf_idx = 1u << 30, .len = 60, .flags = NM_ABI_BUF_CHANGED});
    else if (strcmp(rule, "foreign") == 0)
        send_wrong(ring, (struct nm_abi_slot){.buf_idx = rx->slot[rx->tail].buf_idx, .len = 60, .flags = 1});
    else if (strcmp(rule, "flag") == 0)
        send_wrong(ring, (struct nm_abi_slot){.buf_idx = unused, .len = 60});
    else if (strcmp(rule, "twice") == 0)
        send_wrong(ring,
                   (struct nm_abi_slot){.buf_idx = chunk_in_flight(ring), .len = 60, .flags = NM_ABI_BUF_CHANGED});
    else if (strcmp(rule, "long") == 0)
        send_wrong(ring, (struct nm_abi_slot){.buf_idx = unused, .len = 3000, .flags = NM_ABI_BUF_CHANGED});
    else if (strcmp(rule, "offset") == 0)
        send_wrong(ring,
                   (struct nm_abi_slot){.buf_idx = unused, .len = 60, .flags = NM_ABI_BUF_CHANGED, .ptr = 1000});
    else if (strcmp(rule, "receive") == 0)
        region.base[(size_t)rx->slot[rx->tail].buf_idx * region.chunk_bytes] ^= 1;
    else if (strcmp(rule, "sealed") == 0)
        ring->tail = ring->head;
    else if (strcmp(rule, "nothing") == 0)
        return;
    else if (strcmp(rule, "lost") == 0)
        memcpy((uint8_t *)(uintptr_t)region.slot_chunks, region.slot_chunks + 1, sizeof(uint32_t));
    else
        stop("no such rule");
    if (strcmp(rule, "lost") != 0)
        device_sync(device);
}

/* Opening. */

/* The rings' and the extra ones, unless fewer are wanted; two are nobody's. */
static uint32_t buffer_count(void)
{
    uint64_t extra = options.extra_max < options.extra ? options.extra_max : options.extra;
    uint64_t all = 2 + 2 * (options.rings + 1) * options.slots + extra;
    return (uint32_t)(options.buffers > 0 ? options.buffers : all);
}

/* Memory of ours in place of the device's. */
static void plan_external(struct netmap_request *request)
{
    if (netmap_plan(device_system(device), request->name, &request->frames, 1, &request->plan) != 0)
        stop("there is no plan");
    request->external = external_memory = aligned_alloc(PAGE_BYTES, request->plan.bytes);
    if (external_memory == NULL)
        stop("no memory");
    memset(external_memory, 0, request->plan.bytes);
    request->extra_buffers = request->plan.extra_buffers;
}

static void open_port(void)
{
    struct device_options wanted = {.rings = (uint32_t)options.rings,
                                    .slots = (uint32_t)options.slots,
                                    .buffer_bytes = (uint32_t)options.buffer_bytes,
                                    .buffer_count = buffer_count(),
                                    .extra_max = (uint32_t)options.extra_max,
                                    .delay = (uint32_t)options.delay,
                                    .offsets = options.offsets != 0,
                                    .external = options.external == 1};
    struct netmap_request request = {.name = "dev0",
                                     .ring = options.ring != UINT64_MAX ? (int32_t)options.ring : NETMAP_RINGS_ALL,
                                     .copy = options.copy != 0,
                                     .host_rings = options.host != 0,
                                     .extra_buffers = (uint32_t)options.extra,
                                     .frames = {.slots = file.image.slots,
                                                .slot_count = file.image.header->slot_count,
                                                .slot_bytes = file.image.header->slot_bytes,
                                                .mtu_bytes = file.image.header->mtu_bytes},
                                     .filter = {.own_address = options.own != 0,
                                                .tcp_port = 80,
                                                .address_count = 1,
                                                .family = {IP_FAMILY_V4},
                                                .address = {{192, 0, 2, 1}}}};
    const struct ssi_header *h = file.image.header;
    device = device_create(&wanted);
    if (options.copy &&
        (nmio_region_create(&region, h->slot_bytes, BUFFERS, h->slot_count, (uint32_t)options.slots) != 0 ||
         nmio_region_map(&region, file.fd, file.slots_offset) != 0))
        stop("no memory for the region");
    if (nmio_tx_create(&tx, (uint32_t)options.slots) != 0)
        stop("no memory");
    if (options.external)
        plan_external(&request);
    int error = netmap_open(&port, device_system(device), &request, &region, &tx, &info);
    if (error != 0) {
        printf("{\"error\": %d, \"granted\": %u, \"buffer_bytes\": %u, \"violations\": %" PRIu64
               ", \"violation\": \"%s\"}\n",
               -error, info.extra_buffers, info.buffer_bytes, device_violations(device),
               device_first_violation(device));
        exit(0);
    }
}

static void open_stack(void)
{
    struct stack_config config = {
        .app = &web_app,
        .eth = {.mac = {2, 0, 0, 0, 0, 1}, .own_address = options.own != 0, .address_count = 1},
        .tcpip = {.tcp_port = 80,
                  .mtu_bytes = file.image.header->mtu_bytes,
                  .gather_max = 1,
                  .max_connections = (uint32_t)options.connections + 1,
                  .max_incomplete_requests = 1,
                  .keep_alive_ms = 1u << 30,
                  .request_ms = 1u << 30,
                  .send_ms = 1u << 30}};
    config.eth.addresses[0] = (struct eth_address){.family = IP_FAMILY_V4, .prefix_bits = 24};
    memcpy(config.eth.addresses[0].bytes, (uint8_t[]){192, 0, 2, 1}, 4);
    size_t bytes = stack_memory_bytes(&config, &file.image, &region);
    void *memory = bytes > 0 ? nmio_alloc(bytes) : NULL;
    if (memory == NULL)
        stop("no memory for the stack, or the options are out of bounds");
    stack = stack_init(memory, bytes, &config, &file.image, &region, &tx);
    clients_open(&clients, &file.image, (uint32_t)options.connections, 0);
}

/* Closes everything; what the device says then counts too. */
static void finish(bool resident)
{
    printf("{\"requests\": %" PRIu64 ", \"segments\": %" PRIu64 ", \"mismatches\": %" PRIu64 ", \"wrong\": %" PRIu64
           ", \"granted\": %u, \"resident\": %s, \"to_kernel_fed\": %" PRIu64 ", \"to_kernel\": %" PRIu64
           ", \"from_kernel_fed\": %" PRIu64 ", \"from_kernel\": %" PRIu64 ", \"dropped\": %" PRIu64
           ", \"counters\": {",
           clients.requests, clients.segments, clients.mismatches, wrong, info.extra_buffers,
           resident ? "true" : "false", to_kernel_fed, to_kernel_seen, from_kernel_fed, from_kernel_seen,
           port->counters.tx_dropped);
    struct stack_view view;
    stack_view(stack, &view);
    print_counters(&view, 1);
    port->ops->close(port);
    printf("}, \"violations\": %" PRIu64 ", \"violation\": \"%s\"}\n", device_violations(device),
           device_first_violation(device));
    device_destroy(device);
    nmio_tx_destroy(&tx);
    if (options.copy)
        nmio_region_destroy(&region);
    nmio_free(stack);
    free(clients.client);
    free(clients.queue);
    free(external_memory);
}

static const struct number_option known_options[] = {{"connections", &options.connections},
                                                     {"rings", &options.rings},
                                                     {"ring", &options.ring},
                                                     {"slots", &options.slots},
                                                     {"buffer_bytes", &options.buffer_bytes},
                                                     {"extra", &options.extra},
                                                     {"extra_max", &options.extra_max},
                                                     {"delay", &options.delay},
                                                     {"offsets", &options.offsets},
                                                     {"copy", &options.copy},
                                                     {"host", &options.host},
                                                     {"own", &options.own},
                                                     {"buffers", &options.buffers},
                                                     {"external", &options.external}};

static void take_word(const char *word)
{
    static const char breaks[] = "break=";
    if (strncmp(word, breaks, sizeof(breaks) - 1) == 0)
        rule_to_break = word + sizeof(breaks) - 1;
    else
        take_option(known_options, sizeof(known_options) / sizeof(known_options[0]), word);
}

int main(int argc, char **argv)
{
    int at = 1;
    for (; at < argc && strchr(argv[at], '=') != NULL; at++)
        take_word(argv[at]);
    if (argc - at != 2)
        stop("usage: serve [option=value ...] IMAGE REQUESTS:PATH[,PATH...]");
    image_file_open(&file, argv[at]);
    uint64_t requests = take_targets(&file.image, argv[at + 1], 1, targets, &target_count, TARGETS_MAX);
    open_port();
    open_stack();
    clients_start(&clients, targets, target_count, requests);
    for (uint32_t idle = 0; clients.requests < requests;) {
        idle = serve_round() ? 0 : idle + 1;
        if (idle > ROUNDS_IDLE_MAX)
            stop("the clients wait, and nothing comes");
        if (rule_to_break[0] != '\0' && can_break()) {
            break_rule(rule_to_break);
            rule_to_break = "";
            break;
        }
    }
    if (rule_to_break[0] != '\0')
        stop("all was over before a rule could be broken");
    finish(info.resident);
    return 0;
}
