/* A load on an HTTP/1.1 server, made frame by frame, so that the server is the limit and not a kernel's TCP on the side
 * that asks. It has addresses of its own, beside the kernel's. Without arguments it says how it is called; it prints one
 * JSON object. One thread: it was the limit if cpu_seconds and waiting_seconds make up seconds. */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../clock.h"
#include "arp.h"
#include "capture.h"
#include "libnmio/afxdp.h"
#include "libnmio/packet.h"
#include "libnmio/region.h"
#include "options.h"

#define BATCH 64
#define CHUNK_BYTES 2048
#define HEADROOM_BYTES 64
#define BUFFERS 10240
#define TX_RING 2048
#define ASK_NS 200000000 /* for the server's MAC */
#define ASKS_MAX 25
#define OPEN_NS 10000000000 /* for all connections to be open before it is measured */
#define SPIN_NS 50000 /* shorter waits are not worth sleeping */
#define LAST_TURNS 1000 /* for what has to go out at the end */

static struct options options;
static struct clients clients;
static struct capture capture;
static struct nmio_region region;
static struct nmio_tx tx;
static struct nmio_port *port;
static bool resolved;

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* How long this thread was ready to run, and the processor was not free. 0 where the kernel does not say. */
static double waiting_seconds(void)
{
    uint64_t run_ns, waiting_ns;
    FILE *file = fopen("/proc/self/schedstat", "re");
    int known = file != NULL ? fscanf(file, "%" SCNu64 " %" SCNu64, &run_ns, &waiting_ns) : 0;
    if (file != NULL)
        fclose(file);
    return known == 2 ? (double)waiting_ns / 1e9 : 0;
}

/* What it took. */
struct cost {
    double seconds, cpu_seconds, waiting_seconds;
};

static struct cost cost_now(void)
{
    return (struct cost){(double)clock_ns() / 1e9, cpu_seconds(), waiting_seconds()};
}

static struct cost cost_since(struct cost then)
{
    struct cost now = cost_now();
    return (struct cost){now.seconds - then.seconds, now.cpu_seconds - then.cpu_seconds,
                         now.waiting_seconds - then.waiting_seconds};
}

/* --- the port --- */

static void find_mac(uint8_t *mac)
{
    struct ifreq request = {0};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    strncpy(request.ifr_name, options.interface, IFNAMSIZ - 1);
    if (fd < 0 || ioctl(fd, SIOCGIFHWADDR, &request) < 0)
        stop("%s: %s", options.interface, strerror(errno));
    memcpy(mac, request.ifr_hwaddr.sa_data, ETH_ADDRESS_BYTES);
    close(fd);
}

static int open_afxdp(int ifindex)
{
    const struct endpoints *ends = &options.client.ends;
    struct nmio_filter *filter = NULL;
    bool native, zero_copy;
    int error = nmio_filter_xdp(&filter, ifindex, 0, true, &native);
    for (uint32_t i = 0; error == 0 && i < ends->address_count; i++) {
        uint32_t address = be32(ends->address + i);
        error = nmio_filter_address(filter, (const uint8_t *)&address, sizeof(address));
    }
    if (error != 0)
        return error;
    return afxdp_open(&port, filter, options.interface, 0, &region, &tx, &zero_copy);
}

static void open_port(void)
{
    int ifindex = (int)if_nametoindex(options.interface);
    if (ifindex == 0)
        stop("%s: no such interface", options.interface);
    if (nmio_region_create(&region, CHUNK_BYTES, BUFFERS, 0, 0) != 0 || nmio_tx_create(&tx, TX_RING) != 0)
        stop("no memory");
    int error = options.afxdp ? open_afxdp(ifindex) : packet_open(&port, ifindex, 0, true, &region, &tx, 1);
    if (error != 0)
        stop("%s: %s", options.interface, strerror(-error));
}

/* A frame of len_bytes, which lies in a chunk behind the headroom, is to go out. */
static void append(uint32_t chunk, uint32_t len_bytes, uint64_t now_ns)
{
    uint8_t *head = nmio_chunk(&region, chunk) + HEADROOM_BYTES;
    tx.desc[tx.count++] = (struct nmio_tx_desc){.head = head, .head_bytes = len_bytes, .chunk = chunk};
    tx.space--;
    capture_add(&capture, head, len_bytes, now_ns);
}

/* Room for a frame, or NMIO_NONE. */
static uint32_t take_chunk(void)
{
    return tx.space > 0 ? nmio_buffer_take(&region) : NMIO_NONE;
}

static void flush(void)
{
    int error = port->ops->output(port);
    if (error != 0)
        stop("%s: %s", options.interface, strerror(-error));
}

/* --- a turn: what has come, what is to be said --- */

static void take_frame(const struct nmio_rx *rx, uint64_t now_ns)
{
    capture_add(&capture, rx->data, rx->len_bytes, now_ns);
    if (rx->len_bytes < sizeof(struct wire_eth))
        return;
    if (be16(((const struct wire_eth *)rx->data)->type) == ETH_TYPE_IPV4) {
        clients_hear(&clients, rx->data, rx->len_bytes, rx->flags);
        return;
    }
    uint32_t chunk = take_chunk();
    if (chunk == NMIO_NONE)
        return;
    uint8_t *answer = nmio_chunk(&region, chunk) + HEADROOM_BYTES;
    uint32_t bytes = arp_take(&clients.config.ends, rx->data, rx->len_bytes, &resolved, answer);
    if (bytes > 0)
        append(chunk, bytes, now_ns);
    else
        nmio_release(&region, chunk);
}

static int take_frames(uint64_t now_ns)
{
    struct nmio_rx batch[BATCH];
    int count = port->ops->input(port, batch, BATCH);
    if (count < 0)
        stop("%s: %s", options.interface, strerror(-count));
    for (int i = 0; i < count; i++)
        take_frame(&batch[i], now_ns);
    port->ops->release(port, batch, (uint32_t)count);
    return count;
}

static uint32_t say_all(uint64_t now_ns)
{
    uint32_t count = 0;
    for (;; count++) {
        uint32_t chunk = take_chunk(), bytes;
        if (chunk == NMIO_NONE)
            return count;
        bytes = clients_say(&clients, nmio_chunk(&region, chunk) + HEADROOM_BYTES);
        if (bytes == 0) {
            nmio_release(&region, chunk);
            return count;
        }
        append(chunk, bytes, now_ns);
    }
}

static void turn(uint64_t end_ns)
{
    uint64_t now_ns = clock_ns();
    clients_clock(&clients, now_ns);
    int taken = take_frames(now_ns);
    uint32_t said = say_all(now_ns);
    flush();
    uint64_t next_ns = clients_next_ns(&clients);
    next_ns = next_ns < end_ns ? next_ns : end_ns;
    if (taken == 0 && said == 0 && !options.busy_poll && next_ns > now_ns + SPIN_NS)
        port->ops->wait(port, (int64_t)(next_ns - now_ns), -1);
}

static void run_until(uint64_t end_ns)
{
    while (clock_ns() < end_ns)
        turn(end_ns);
}

/* A time that is not measured; longer, if not all connections are open by then. */
static void warm_up(uint64_t warmup_ns)
{
    uint64_t end_ns = clock_ns() + warmup_ns;
    run_until(end_ns);
    while (warmup_ns > 0 && !clients_are_open(&clients) && clock_ns() < end_ns + OPEN_NS)
        turn(end_ns + OPEN_NS);
}

static void resolve(void)
{
    for (int asks = 0; asks < ASKS_MAX; asks++) {
        uint64_t now_ns = clock_ns(), end_ns = now_ns + ASK_NS;
        uint32_t chunk = take_chunk();
        if (chunk != NMIO_NONE)
            append(chunk, arp_ask(&clients.config.ends, nmio_chunk(&region, chunk) + HEADROOM_BYTES), now_ns);
        for (; now_ns < end_ns; now_ns = clock_ns()) {
            flush();
            port->ops->wait(port, (int64_t)(end_ns - now_ns), -1);
            take_frames(now_ns);
            if (resolved)
                return;
        }
    }
    stop("the server does not answer ARP");
}

/* Resets the connections, so that the server need not wait for them. */
static void leave(void)
{
    clients_abort(&clients);
    for (int turns = 0; turns < LAST_TURNS && (say_all(clock_ns()) > 0 || tx.count > 0); turns++)
        flush();
}

/* --- the report --- */

static const char *const error_names[CLIENT_ERRORS] = {
    [CLIENT_REFUSED] = "refused",     [CLIENT_UNREACHABLE] = "unreachable", [CLIENT_TIMEOUT] = "timeout",
    [CLIENT_RESET] = "reset",         [CLIENT_CLOSED] = "closed",           [CLIENT_STATUS] = "status",
    [CLIENT_MALFORMED] = "malformed", [CLIENT_MISMATCH] = "mismatch",
};

static void print_errors(const struct client_counters *counters)
{
    printf("\"errors\": {");
    for (int i = 0; i < CLIENT_ERRORS; i++)
        printf("%s\"%s\": %" PRIu64, i > 0 ? ", " : "", error_names[i], counters->errors[i]);
    printf("}, ");
}

static void print_counters(const struct client_counters *counters)
{
    const struct {
        const char *name;
        uint64_t value;
    } all[] = {
        {"requests", counters->requests},
        {"bytes", counters->bytes},
        {"checked", counters->checked},
        {"opened", counters->opened},
        {"segments_in", counters->segments_in},
        {"frames_in", counters->frames_in},
        {"acks_out", counters->acks_out},
        {"retransmitted_syns", counters->retransmitted_syns},
        {"retransmitted_requests", counters->retransmitted_requests},
        {"retransmitted_fins", counters->retransmitted_fins},
        {"out_of_order", counters->out_of_order},
        {"duplicates", counters->duplicates},
        {"not_kept", counters->not_kept},
        {"damaged", counters->damaged},
        {"unknown", counters->unknown},
        {"late", counters->late},
    };
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        printf("\"%s\": %" PRIu64 ", ", all[i].name, all[i].value);
}

static void print_latency(const struct histogram *latency)
{
    const struct {
        const char *name;
        double share;
    } quantiles[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99_9", 0.999}};
    printf("\"latency_us\": {");
    for (size_t i = 0; i < sizeof(quantiles) / sizeof(quantiles[0]); i++)
        printf("\"%s\": %.1f, ", quantiles[i].name,
               (double)histogram_quantile_ns(latency, quantiles[i].share) / 1000);
    printf("\"max\": %.1f}, \"histogram_us\": [", (double)latency->max_ns / 1000);
    const char *between = "";
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        if (latency->bucket[i] == 0)
            continue;
        printf("%s[%.3f, %" PRIu64 "]", between, (double)histogram_value_ns(i) / 1000, latency->bucket[i]);
        between = ", ";
    }
    printf("]");
}

static void report(const struct cost *cost, uint64_t unfinished)
{
    const struct client_counters *counters = &clients.counters;
    printf("{\"seconds\": %.6f, \"cpu_seconds\": %.6f, \"waiting_seconds\": %.6f, ", cost->seconds, cost->cpu_seconds,
           cost->waiting_seconds);
    printf("\"requests_s\": %.1f, \"opened_s\": %.1f, \"unfinished\": %" PRIu64 ", ",
           (double)counters->requests / cost->seconds, (double)counters->opened / cost->seconds, unfinished);
    print_counters(counters);
    print_errors(counters);
    print_latency(&clients.latency);
    puts("}");
}

static void open_all(void)
{
    if (!options.has_mac)
        find_mac(options.client.ends.mac);
    open_port();
    if (!clients_open(&clients, &options.client))
        stop("no memory, or more connections than --addresses have ports for");
    int error =
        options.pcap_path != NULL ? capture_open(&capture, options.pcap_path, options.pcap_frames, clock_ns()) : 0;
    if (error != 0)
        stop("%s: %s", options.pcap_path, strerror(-error));
}

static uint64_t ns_of(double seconds)
{
    return (uint64_t)llround(seconds * 1e9);
}

/* For who reads counters of the system over the measured time. */
static void mark(const char *what)
{
    if (options.marks)
        dprintf(STDERR_FILENO, "%s\n", what);
}

int main(int argc, char **argv)
{
    options_take(&options, argc, argv);
    prctl(PR_SET_TIMERSLACK, 1);
    open_all();
    resolve();
    clients.config.load.next_ns = (double)clock_ns();
    warm_up(ns_of(options.warmup_seconds));
    clients_measure(&clients);
    struct cost cost = cost_now();
    mark("measuring");
    run_until(clock_ns() + ns_of(options.seconds));
    cost = cost_since(cost);
    mark("measured");
    uint64_t unfinished = clients_stop(&clients);
    leave();
    report(&cost, unfinished);
    if (capture_close(&capture) != 0)
        stop("%s could not be written", options.pcap_path);
    return 0;
}
