/* The whole stack in memory, from received frames to a TX ring, with as many workers as asked for: each a thread with its
 * own stack, arena, region and clients, sharing nothing but the image. Frames in the ring are complete after `delay`
 * rounds, and must not have changed by then (strict). What the clients get is compared with the image.
 *
 *   memory [option=value ...] IMAGE REQUESTS:PATH[,PATH...] ...
 *
 * Each REQUESTS:PATHS is a phase, which begins when the one before has ended. Prints a JSON object for each phase. bound=1 or 2
 * (bounds.h) sends the same answers without the stack. close=1: a new connection for each request. random=1: connections and
 * paths in no order, else in turn. join=1: clients acknowledge all that came in a round at once, as behind a NIC that joins
 * segments; else every second segment, with a frame for each.
 * follow=1: answers are followed as for an access log, and its entries are read, which is not counted.
 * programs=5: each path is asked for as five programs do, in turn (clients.h).
 * Cycles are those of the processor's time stamp counter, spent in the stack alone; clients and checks are left out. */
#define _GNU_SOURCE
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <x86intrin.h>

#include "../clock.h"
#include "arguments.h"
#include "bounds.h"
#include "clients.h"
#include "image_file.h"
#include "libnmio/region.h"
#include "stack.h"
#include "web/access_line.h"
#include "web/followed.h"
#include "web/web.h"

#define BATCH 64
#define BUFFERS 4096
#define WORKERS_MAX 64
#define PHASES_MAX 16
#define ROUND_NS                                                                                                     \
    50 /* the stack's time goes on so much a round: slower than in truth, or who waits for 100,000 others is taken for lost */
#define ROUNDS_IDLE_MAX 1000000

struct options {
    uint64_t connections, ring, delay, arena, workers, gather, strict, memcpy_tx, bound, check, close, random, join,
        programs, follow;
};

static struct options options = {
    .connections = 1, .ring = 1024, .workers = 1, .gather = 1, .check = 1, .programs = 1};
static struct image_file file;
static struct target targets[CLIENT_TARGETS_MAX];
static uint32_t target_count;

struct phase {
    uint64_t requests;
    uint32_t first_target, target_count;
};
static struct phase phases[PHASES_MAX];
static uint32_t phase_count;
static pthread_barrier_t barrier;

/* A frame in the ring. */
struct flying {
    uint64_t due, digest;
    uint32_t first_chunk, chunk_count; /* of chunks */
    uint32_t first_part, part_count; /* of parts */
};

struct result {
    uint64_t requests, bytes, segments, mismatches, violations, cycles;
    uint64_t all_cycles; /* clients and checks too */
    double seconds;
};

struct worker {
    struct nmio_region region;
    struct nmio_tx tx;
    struct stack *stack;
    struct clients clients;
    struct access_reader reader; /* with follow */
    struct flying *flying; /* [ring], a ring */
    uint32_t *chunks; /* [ring][1 + NMIO_PIECES_MAX] */
    struct {
        const uint8_t *data;
        uint32_t bytes;
    } *parts; /* [ring][1 + NMIO_PIECES_MAX] */
    uint32_t flying_first, flying_count;
    uint64_t round, now_ns, violations, cycles;
    uint8_t rx[BATCH][CLIENT_FRAME_BYTES];
    struct result results[PHASES_MAX];
    uint32_t number;
    char apart[64]; /* from what the next worker writes */
};

static struct access_format log_format; /* nothing: what is written is not of interest here */
static _Thread_local uint8_t log_lines[ACCESS_OUT_BYTES_MIN];
static struct web_config web_config = {.log_read = true, .log_heads = true};

static struct stack_config configuration(void)
{
    struct stack_config config = {.app = options.follow != 0 ? &web_followed_app : &web_app,
                                  .app_data = options.follow != 0 ? &web_config : NULL,
                                  .eth = {.mac = {2, 0, 0, 0, 0, 1}, .address_count = 1},
                                  .tcpip = {.tcp_port = 80,
                                            .mtu_bytes = file.image.header->mtu_bytes,
                                            .gather_max = (uint32_t)options.gather,
                                            .tx_memcpy = options.memcpy_tx != 0,
                                            .max_connections = (uint32_t)options.connections + 1,
                                            .max_incomplete_requests = 1,
                                            .keep_alive_ms = 1u << 30,
                                            .request_ms = 1u << 30,
                                            .send_ms = 1u << 30}};
    config.eth.addresses[0] = (struct eth_address){.family = IP_FAMILY_V4, .prefix_bits = 24};
    memcpy(config.eth.addresses[0].bytes, (uint8_t[]){192, 0, 2, 1}, 4);
    return config;
}

static void worker_open(struct worker *w, uint32_t number)
{
    const struct ssi_header *h = file.image.header;
    uint32_t residents = options.arena == 0 ? h->slot_count : 0;
    uint32_t spares = (uint32_t)(options.arena == 0 ? options.ring : options.arena);
    struct stack_config config = configuration();
    w->number = number;
    web_config.followed_max = (uint32_t)options.connections + 1024;
    w->now_ns = 1000000000000;
    if (nmio_region_create(&w->region, h->slot_bytes, BUFFERS, residents, spares) != 0 ||
        nmio_region_read(&w->region, file.fd, file.slots_offset) != 0 ||
        nmio_tx_create(&w->tx, (uint32_t)options.ring) != 0)
        stop("no memory for the region");
    size_t bytes = stack_memory_bytes(&config, &file.image, &w->region);
    void *memory = bytes > 0 ? nmio_alloc(bytes) : NULL;
    if (memory == NULL)
        stop("no memory for the stack, or the options are out of bounds");
    w->stack = stack_init(memory, bytes, &config, &file.image, &w->region, &w->tx);
    if (options.follow != 0)
        access_reader_open(&w->reader, web_access_log(stack_app_state(w->stack)));
    w->flying = calloc(options.ring, sizeof(*w->flying));
    w->chunks = calloc(options.ring * (1 + NMIO_PIECES_MAX), sizeof(*w->chunks));
    w->parts = calloc(options.ring * (1 + NMIO_PIECES_MAX), sizeof(*w->parts));
    if (w->stack == NULL || w->flying == NULL || w->chunks == NULL || w->parts == NULL)
        stop("no memory");
    clients_open(&w->clients, &file.image, (uint32_t)options.connections, number * (uint32_t)options.connections);
    w->clients.check_every = options.check;
    if (options.join != 0)
        w->clients.ack_bytes = UINT32_MAX;
    w->clients.close = options.close != 0;
    w->clients.random = options.random != 0;
}

/* FNV-1a. */
static uint64_t digest_of(const struct worker *w, const struct flying *f)
{
    uint64_t hash = 0xcbf29ce484222325;
    for (uint32_t part = 0; part < f->part_count; part++)
        for (uint32_t i = 0; i < w->parts[f->first_part + part].bytes; i++)
            hash = (hash ^ w->parts[f->first_part + part].data[i]) * 0x100000001b3;
    return hash;
}

static void fly(struct worker *w, const struct nmio_tx_desc *desc)
{
    uint32_t at = (w->flying_first + w->flying_count++) % (uint32_t)options.ring;
    struct flying *f = &w->flying[at];
    *f = (struct flying){.due = w->round + options.delay,
                         .first_chunk = at * (1 + NMIO_PIECES_MAX),
                         .first_part = at * (1 + NMIO_PIECES_MAX)};
    w->chunks[f->first_chunk + f->chunk_count++] = desc->chunk;
    w->parts[f->first_part].data = desc->head;
    w->parts[f->first_part + f->part_count++].bytes = desc->head_bytes;
    for (uint32_t i = 0; i < desc->piece_count; i++) {
        const struct nmio_piece *piece = &w->tx.piece[desc->first_piece + i];
        if (piece->chunk != NMIO_NONE)
            w->chunks[f->first_chunk + f->chunk_count++] = piece->chunk;
        w->parts[f->first_part + f->part_count].data = piece->data;
        w->parts[f->first_part + f->part_count++].bytes = piece->len_bytes;
    }
    if (options.strict)
        f->digest = digest_of(w, f);
}

static void complete(struct worker *w)
{
    while (w->flying_count > 0 && w->flying[w->flying_first].due <= w->round) {
        const struct flying *f = &w->flying[w->flying_first];
        if (options.strict && digest_of(w, f) != f->digest)
            w->violations++;
        for (uint32_t i = 0; i < f->chunk_count; i++)
            nmio_release(&w->region, w->chunks[f->first_chunk + i]);
        w->flying_first = (w->flying_first + 1) % (uint32_t)options.ring;
        w->flying_count--;
    }
}

static uint32_t client_frames(struct worker *w, struct nmio_rx *batch)
{
    uint32_t count = 0;
    w->clients.now_ms = (uint32_t)(w->now_ns / 1000000);
    for (; count < BATCH; count++) {
        uint32_t bytes = clients_say(&w->clients, w->rx[count]);
        if (bytes == 0)
            break;
        batch[count] = (struct nmio_rx){.data = w->rx[count], .len_bytes = bytes, .flags = NMIO_RX_CHECKSUM_OK};
    }
    return count;
}

/* The stack's work in a round, in a function of its own so that callgrind can count it alone. */
__attribute__((noipa)) void stack_round(struct stack *stack, uint64_t now_ns, struct nmio_rx *batch, uint32_t count)
{
    stack_clock(stack, now_ns, (int64_t)(784111777 + now_ns / 1000000000));
    stack_input(stack, batch, count);
    stack_output(stack);
}

/* What a worker does all the time. Returns whether anything moved. */
static bool serve_round(struct worker *w)
{
    struct nmio_rx batch[BATCH];
    uint32_t count = client_frames(w, batch);
    w->round++;
    w->now_ns += ROUND_NS;
    uint64_t before = __rdtsc();
    stack_round(w->stack, w->now_ns, batch, count);
    w->cycles += __rdtsc() - before;
    if (options.follow != 0)
        access_log_read(&w->reader, &log_format, log_lines, sizeof(log_lines));
    uint32_t sent = w->tx.count;
    for (uint32_t i = 0; i < sent; i++) {
        clients_hear(&w->clients, &w->tx, &w->tx.desc[i]);
        fly(w, &w->tx.desc[i]);
    }
    w->tx.count = w->tx.piece_count = 0;
    complete(w);
    w->tx.space = (uint32_t)options.ring - w->flying_count;
    return count > 0 || sent > 0 || w->flying_count > 0;
}

static double seconds(void)
{
    return (double)clock_ns() / 1e9;
}

/* A phase without the stack. */
static void run_bound(struct worker *w, const struct phase *phase, struct result *result)
{
    struct bound_result found =
        bound_run(options.bound, &file.image, &w->region, &w->tx, targets + phase->first_target, phase->target_count,
                  (uint32_t)options.connections, options.random != 0, phase->requests);
    *result = (struct result){
        .requests = phase->requests, .bytes = found.bytes, .segments = found.segments, .cycles = found.cycles};
}

static void run_phase(struct worker *w, uint32_t number)
{
    const struct phase *phase = &phases[number];
    struct result *result = &w->results[number];
    uint32_t idle = 0;
    double start = seconds();
    uint64_t before = __rdtsc();
    if (options.bound != BOUND_NONE) {
        run_bound(w, phase, result);
        result->seconds = seconds() - start;
        result->all_cycles = __rdtsc() - before;
        return;
    }
    clients_start(&w->clients, targets + phase->first_target, phase->target_count, phase->requests);
    w->cycles = 0;
    while (w->clients.requests < phase->requests) {
        idle = serve_round(w) ? 0 : idle + 1;
        if (idle > ROUNDS_IDLE_MAX)
            stop("the clients wait, and nothing comes");
    }
    *result = (struct result){w->clients.requests, w->clients.bytes, w->clients.segments, w->clients.mismatches,
                              w->violations,       w->cycles,        __rdtsc() - before,  seconds() - start};
}

static struct worker *all_workers;

/* All workers wait while one of them prints. */
static void print_phase(uint32_t number)
{
    struct result sum = {0};
    for (uint32_t i = 0; i < options.workers; i++) {
        const struct result *r = &all_workers[i].results[number];
        sum.requests += r->requests;
        sum.bytes += r->bytes;
        sum.segments += r->segments;
        sum.mismatches += r->mismatches;
        sum.violations += r->violations;
        sum.cycles += r->cycles;
        sum.all_cycles = r->all_cycles > sum.all_cycles ? r->all_cycles : sum.all_cycles;
        sum.seconds = r->seconds > sum.seconds ? r->seconds : sum.seconds;
    }
    printf("{\"requests\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"segments\": %" PRIu64 ", \"mismatches\": %" PRIu64
           ", \"violations\": %" PRIu64 ", \"cycles\": %" PRIu64
           ", \"seconds\": %.6f, \"cycles_s\": %.0f, \"counters\": {",
           sum.requests, sum.bytes, sum.segments, sum.mismatches, sum.violations, sum.cycles, sum.seconds,
           (double)sum.all_cycles / sum.seconds);
    struct stack_view views[WORKERS_MAX];
    for (uint32_t w = 0; w < options.workers; w++)
        stack_view(all_workers[w].stack, &views[w]);
    print_counters(views, (uint32_t)options.workers);
    printf("}}\n");
    fflush(stdout);
}

static void *work(void *argument)
{
    struct worker *w = argument;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(w->number % (uint32_t)sysconf(_SC_NPROCESSORS_ONLN), &set);
    pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
    for (uint32_t number = 0; number < phase_count; number++) {
        pthread_barrier_wait(&barrier);
        run_phase(w, number);
        pthread_barrier_wait(&barrier);
        if (w->number == 0)
            print_phase(number);
    }
    return NULL;
}

static const struct number_option known_options[] = {
    {"connections", &options.connections},
    {"ring", &options.ring},
    {"delay", &options.delay},
    {"arena", &options.arena},
    {"workers", &options.workers},
    {"gather", &options.gather},
    {"strict", &options.strict},
    {"memcpy", &options.memcpy_tx},
    {"bound", &options.bound},
    {"check", &options.check},
    {"close", &options.close},
    {"random", &options.random},
    {"join", &options.join},
    {"programs", &options.programs},
    {"follow", &options.follow},
};

static void take_phase(char *word)
{
    if (phase_count == PHASES_MAX)
        stop("too many phases");
    struct phase *phase = &phases[phase_count++];
    phase->first_target = target_count;
    phase->requests =
        take_targets(&file.image, word, (uint32_t)options.programs, targets, &target_count, CLIENT_TARGETS_MAX);
    phase->target_count = target_count - phase->first_target;
}

static void check_options(void)
{
    if (options.bound != BOUND_NONE && (options.arena > 0 || options.gather > 1 || options.bound > BOUND_MEMCPY))
        stop("the bounds are for whole frames and resident images");
    if (options.workers == 0 || options.workers > WORKERS_MAX || options.connections == 0 || options.ring == 0 ||
        options.check == 0 || options.programs == 0 || options.programs > TARGET_PROGRAMS)
        stop("an option is out of bounds");
}

/* Opens all workers before the first one starts, and waits until they have been through all phases. */
static void run_workers(void)
{
    pthread_t threads[WORKERS_MAX];
    all_workers = nmio_alloc(options.workers * sizeof(*all_workers));
    if (all_workers == NULL)
        stop("no memory");
    pthread_barrier_init(&barrier, NULL, (unsigned)options.workers);
    for (uint32_t i = 0; i < options.workers; i++)
        worker_open(&all_workers[i], i);
    for (uint32_t i = 0; i < options.workers; i++)
        if (pthread_create(&threads[i], NULL, work, &all_workers[i]) != 0)
            stop("no thread");
    for (uint32_t i = 0; i < options.workers; i++)
        pthread_join(threads[i], NULL);
}

int main(int argc, char **argv)
{
    int at = 1;
    for (; at < argc && strchr(argv[at], '=') != NULL; at++)
        take_option(known_options, sizeof(known_options) / sizeof(known_options[0]), argv[at]);
    if (argc - at < 2)
        stop("usage: memory [option=value ...] IMAGE REQUESTS:PATH[,PATH...] ...");
    check_options();
    image_file_open(&file, argv[at++]);
    for (; at < argc; at++)
        take_phase(argv[at]);
    run_workers();
    return 0;
}
