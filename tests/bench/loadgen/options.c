#define _GNU_SOURCE
#include "options.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ADDRESSES_MAX 64 /* as many as the XDP program knows */
#define WINDOW_BYTES_MAX (1u << 30) /* RFC 7323 section 2.3 */
#define NUMBER_MAX 1e9 /* seconds, or requests a second */

static const char usage[] =
    "usage: loadgen --interface NAME --address IPV4 --server IPV4[:PORT] --path PATH[=FILE] ...\n"
    "  --interface NAME    whose frames are ours; it needs no address\n"
    "  --backend KIND      packet (AF_PACKET, takes superframes; the default) or afxdp\n"
    "  --address IPV4      ours; nobody else's, the kernel's neither\n"
    "  --addresses N       so many from that on (1): each has 64,000 ports\n"
    "  --mac MAC           ours; without it the interface's\n"
    "  --server IPV4[:PORT]\n"
    "  --host NAME         what Host says; without it the server's address\n"
    "  --path PATH[=FILE]  asked for; the body must be the file's. Several take turns\n"
    "  --connections N     at once (64)\n"
    "  --close             a connection for each request\n"
    "  --rate R            requests a second, whether the server keeps up or not; without it as many as can be\n"
    "  --poisson           with --rate: at random times instead of evenly\n"
    "  --seed N            of those times and of the first port\n"
    "  --seconds S         measured (5)\n"
    "  --warmup S          before that, not counted (0.5); longer until all connections are open, unless it is 0\n"
    "  --window BYTES      to receive into, of each connection (262144)\n"
    "  --mss BYTES         (1460)\n"
    "  --check-every N     compare one body in so many (64); 1: all, 0: none\n"
    "  --busy-poll         never sleep: for latencies\n"
    "  --marks             say on stderr when measuring begins (\"measuring\") and ends (\"measured\")\n"
    "  --pcap FILE         a sample of the frames: the first --pcap-frames N (10000)\n";

_Noreturn void stop(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("loadgen: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(2);
}

static uint64_t whole_number(const char *text, uint64_t least, uint64_t most)
{
    char *end;
    uint64_t value = strtoull(text, &end, 10);
    if (*end != '\0' || end == text || value < least || value > most)
        stop("%s: not a number from %llu to %llu", text, (unsigned long long)least, (unsigned long long)most);
    return value;
}

static double number(const char *text, double least)
{
    char *end;
    double value = strtod(text, &end);
    if (*end != '\0' || end == text || !(value >= least && value <= NUMBER_MAX))
        stop("%s: not a number from %g to %g", text, least, NUMBER_MAX);
    return value;
}

static uint32_t address_of(const char *text)
{
    struct in_addr address;
    if (inet_pton(AF_INET, text, &address) != 1)
        stop("%s: not an IPv4 address", text);
    return ntohl(address.s_addr);
}

static void take_server(struct endpoints *ends, char *text)
{
    char *port = strchr(text, ':');
    ends->server_port = port != NULL ? (uint16_t)whole_number(port + 1, 1, UINT16_MAX) : 80;
    if (port != NULL)
        *port = '\0';
    ends->server_address = address_of(text);
}

static void take_mac(struct options *options, const char *text)
{
    uint8_t *mac = options->client.ends.mac;
    options->has_mac = true;
    if (sscanf(text, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &mac[0], &mac[1], &mac[2], &mac[3], &mac[4], &mac[5]) != 6)
        stop("%s: not a MAC", text);
}

static void read_body(struct target *target, const char *path)
{
    FILE *file = fopen(path, "rbe");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0)
        stop("%s can't be read", path);
    target->body_bytes = (uint64_t)ftell(file);
    target->body = malloc(target->body_bytes + 1); /* an empty one has a body too */
    rewind(file);
    if (target->body == NULL || fread(target->body, 1, target->body_bytes, file) != target->body_bytes)
        stop("%s can't be read", path);
    fclose(file);
}

/* The path waits in request until all options are known. */
static void take_path(struct options *options, char *text)
{
    uint32_t count = options->client.target_count++;
    char *file = strchr(text, '=');
    options->targets = realloc(options->targets, (count + 1) * sizeof(*options->targets));
    if (options->targets == NULL)
        stop("no memory");
    struct target *target = &options->targets[count];
    *target = (struct target){0};
    if (file != NULL)
        *file++ = '\0';
    if (strlen(text) >= CLIENT_REQUEST_BYTES / 2 || text[0] != '/')
        stop("%s: not a path, or too long", text);
    strcpy(target->request, text);
    if (file != NULL)
        read_body(target, file);
}

static void write_requests(struct options *options, const char *server)
{
    for (uint32_t i = 0; i < options->client.target_count; i++) {
        struct target *target = &options->targets[i];
        char path[CLIENT_REQUEST_BYTES / 2];
        memcpy(path, target->request, sizeof(path));
        int bytes = snprintf(target->request, sizeof(target->request), "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", path,
                             options->host != NULL ? options->host : server,
                             options->client.close ? "Connection: close\r\n" : "");
        if (bytes >= (int)sizeof(target->request))
            stop("%s: the request is too long", path);
        target->request_bytes = (uint32_t)bytes;
    }
}

enum {
    INTERFACE,
    BACKEND,
    ADDRESS,
    ADDRESSES,
    MAC,
    SERVER,
    HOST,
    PATH,
    CONNECTIONS,
    CLOSE,
    RATE,
    POISSON,
    SEED,
    SECONDS,
    WARMUP,
    WINDOW,
    MSS,
    CHECK_EVERY,
    BUSY_POLL,
    MARKS,
    PCAP,
    PCAP_FRAMES,
};

static const struct option known[] = {
    {"interface", required_argument, NULL, INTERFACE},
    {"backend", required_argument, NULL, BACKEND},
    {"address", required_argument, NULL, ADDRESS},
    {"addresses", required_argument, NULL, ADDRESSES},
    {"mac", required_argument, NULL, MAC},
    {"server", required_argument, NULL, SERVER},
    {"host", required_argument, NULL, HOST},
    {"path", required_argument, NULL, PATH},
    {"connections", required_argument, NULL, CONNECTIONS},
    {"close", no_argument, NULL, CLOSE},
    {"rate", required_argument, NULL, RATE},
    {"poisson", no_argument, NULL, POISSON},
    {"seed", required_argument, NULL, SEED},
    {"seconds", required_argument, NULL, SECONDS},
    {"warmup", required_argument, NULL, WARMUP},
    {"window", required_argument, NULL, WINDOW},
    {"mss", required_argument, NULL, MSS},
    {"check-every", required_argument, NULL, CHECK_EVERY},
    {"busy-poll", no_argument, NULL, BUSY_POLL},
    {"marks", no_argument, NULL, MARKS},
    {"pcap", required_argument, NULL, PCAP},
    {"pcap-frames", required_argument, NULL, PCAP_FRAMES},
    {0},
};

static void take_backend(struct options *options, const char *text)
{
    options->afxdp = strcmp(text, "afxdp") == 0;
    if (!options->afxdp && strcmp(text, "packet") != 0)
        stop("%s: not packet, nor afxdp", text);
}

/* Options of the network. False: it is none. */
static bool take_network_option(struct options *options, int which)
{
    struct endpoints *ends = &options->client.ends;
    switch (which) {
    case INTERFACE:
        options->interface = optarg;
        return true;
    case BACKEND:
        take_backend(options, optarg);
        return true;
    case ADDRESS:
        ends->address = address_of(optarg);
        return true;
    case ADDRESSES:
        ends->address_count = (uint32_t)whole_number(optarg, 1, ADDRESSES_MAX);
        return true;
    case MAC:
        take_mac(options, optarg);
        return true;
    case SERVER:
        take_server(ends, optarg);
        return true;
    case WINDOW:
        options->client.window_bytes = (uint32_t)whole_number(optarg, 2048, WINDOW_BYTES_MAX);
        return true;
    case MSS:
        options->client.mss = (uint16_t)whole_number(optarg, 88, 1460);
        return true;
    default:
        return false;
    }
}

/* Options of the load. False: it is none. */
static bool take_load_option(struct options *options, int which)
{
    struct load *load = &options->client.load;
    switch (which) {
    case HOST:
        options->host = optarg;
        return true;
    case PATH:
        take_path(options, optarg);
        return true;
    case CONNECTIONS:
        options->client.connections = (uint32_t)whole_number(optarg, 1, 1000000);
        return true;
    case CLOSE:
        options->client.close = true;
        return true;
    case RATE:
        load->interval_ns = 1e9 / number(optarg, 0.001);
        return true;
    case POISSON:
        load->poisson = true;
        return true;
    case SEED:
        load->random_state = whole_number(optarg, 1, UINT32_MAX);
        return true;
    default:
        return false;
    }
}

/* Options of the measurement. */
static void take_option(struct options *options, int which)
{
    switch (which) {
    case SECONDS:
        options->seconds = number(optarg, 0.001);
        break;
    case WARMUP:
        options->warmup_seconds = number(optarg, 0);
        break;
    case CHECK_EVERY:
        options->client.check_every = (uint32_t)whole_number(optarg, 0, UINT32_MAX);
        break;
    case BUSY_POLL:
        options->busy_poll = true;
        break;
    case MARKS:
        options->marks = true;
        break;
    case PCAP:
        options->pcap_path = optarg;
        break;
    case PCAP_FRAMES:
        options->pcap_frames = whole_number(optarg, 1, UINT64_MAX);
        break;
    default:
        fputs(usage, stderr);
        exit(2);
    }
}

void options_take(struct options *options, int argc, char **argv)
{
    *options = (struct options){
        .seconds = 5,
        .warmup_seconds = 0.5,
        .pcap_frames = 10000,
        .client = {.ends.address_count = 1,
                   .connections = 64,
                   .window_bytes = 262144,
                   .mss = 1460,
                   .check_every = 64,
                   .load.random_state = 1},
    };
    int which;
    while ((which = getopt_long(argc, argv, "", known, NULL)) >= 0)
        if (!take_network_option(options, which) && !take_load_option(options, which))
            take_option(options, which);
    const struct endpoints *ends = &options->client.ends;
    if (optind < argc || options->interface == NULL || ends->address == 0 || ends->server_address == 0 ||
        options->targets == NULL)
        take_option(options, -1);
    struct in_addr server = {htonl(ends->server_address)};
    write_requests(options, inet_ntoa(server));
    options->client.targets = options->targets;
}
