/* Round trips to a server of memcached's protocol: connections that each ask for one key after the other and wait for the
 * whole answer in between. Every byte is compared.
 *
 *   kv_latency HOST PORT CONNECTIONS SECONDS KEYS VALUE_BYTES
 *
 * Key N is "keyN"; byte i of its value is 'a' + (N + i) % 26. Prints a JSON object. Times are from before send() to behind
 * the recv() that ends the answer, so they hold both sides' system calls. The first tenth of the time is not counted. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../clock.h"

#define CONNECTIONS_MAX 1024
#define SAMPLES_MAX 20000000
#define TIMEOUT_MS 5000

struct answer {
    char request[32];
    size_t request_bytes, len_bytes;
    char *bytes;
};

struct connection {
    int fd;
    const struct answer *asked;
    size_t received;
    uint64_t sent_ns;
};

static struct connection connections[CONNECTIONS_MAX];
static struct answer *answers;
static uint32_t answer_count;
static uint32_t *samples_ns;
static size_t sample_count;
static uint64_t counted_from_ns, end_ns, mismatches;
static uint32_t chance = 1;

_Noreturn static void stop(const char *why)
{
    fprintf(stderr, "kv_latency: %s: %s\n", why, strerror(errno));
    exit(1);
}

static void make_answers(uint32_t keys, uint32_t value_bytes)
{
    answer_count = keys;
    answers = calloc(keys, sizeof(*answers));
    if (answers == NULL)
        stop("no memory");
    for (uint32_t key = 0; key < keys; key++) {
        struct answer *answer = &answers[key];
        answer->bytes = malloc(value_bytes + 64);
        if (answer->bytes == NULL)
            stop("no memory");
        answer->request_bytes = (size_t)sprintf(answer->request, "get key%u\r\n", key);
        size_t at = (size_t)sprintf(answer->bytes, "VALUE key%u 0 %u\r\n", key, value_bytes);
        for (uint32_t i = 0; i < value_bytes; i++)
            answer->bytes[at++] = (char)('a' + (key + i) % 26);
        memcpy(answer->bytes + at, "\r\nEND\r\n", 7);
        answer->len_bytes = at + 7;
    }
}

/* xorshift: the same keys in the same order in every run. */
static uint32_t random_key(void)
{
    chance ^= chance << 13;
    chance ^= chance >> 17;
    chance ^= chance << 5;
    return chance % answer_count;
}

static void ask(struct connection *connection)
{
    connection->asked = &answers[random_key()];
    connection->received = 0;
    connection->sent_ns = clock_ns();
    if (send(connection->fd, connection->asked->request, connection->asked->request_bytes, MSG_NOSIGNAL) !=
        (ssize_t)connection->asked->request_bytes)
        stop("send");
}

static void open_connection(struct connection *connection, int epoll, const struct sockaddr_in *server)
{
    int one = 1;
    connection->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connection->fd < 0 || connect(connection->fd, (const struct sockaddr *)server, sizeof(*server)) != 0)
        stop("connect");
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, connection->fd, &event) != 0)
        stop("epoll_ctl");
}

static void take_sample(const struct connection *connection)
{
    uint64_t now = clock_ns();
    if (connection->sent_ns >= counted_from_ns && sample_count < SAMPLES_MAX)
        samples_ns[sample_count++] = (uint32_t)(now - connection->sent_ns);
}

static void hear(struct connection *connection)
{
    static char data[65536];
    const struct answer *asked = connection->asked;
    ssize_t got = recv(connection->fd, data, sizeof(data), MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0)
        stop("the server ended a connection");
    if (connection->received + (size_t)got > asked->len_bytes ||
        memcmp(data, asked->bytes + connection->received, (size_t)got) != 0) {
        mismatches++;
        stop("another answer than there should be");
    }
    connection->received += (size_t)got;
    if (connection->received < asked->len_bytes)
        return;
    take_sample(connection);
    if (clock_ns() < end_ns)
        ask(connection);
    else
        connection->asked = NULL;
}

static int by_size(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return left < right ? -1 : left > right;
}

static double percentile_us(double share)
{
    return samples_ns[(size_t)(share * (double)(sample_count - 1))] / 1000.0;
}

static void print_result(double seconds)
{
    if (sample_count == 0)
        stop("no answer came");
    qsort(samples_ns, sample_count, sizeof(*samples_ns), by_size);
    printf("{\"requests\": %zu, \"requests_s\": %.1f, \"p50_us\": %.2f, \"p99_us\": %.2f, \"p999_us\": %.2f, "
           "\"max_us\": %.2f, \"mismatches\": %" PRIu64 "}\n",
           sample_count, (double)sample_count / seconds, percentile_us(0.5), percentile_us(0.99),
           percentile_us(0.999), samples_ns[sample_count - 1] / 1000.0, mismatches);
}

static void run(int epoll, uint32_t count)
{
    struct epoll_event events[64];
    for (uint32_t i = 0; i < count; i++)
        ask(&connections[i]);
    while (clock_ns() < end_ns) {
        int ready = epoll_wait(epoll, events, 64, TIMEOUT_MS);
        if (ready == 0)
            stop("no answer for seconds");
        for (int i = 0; i < ready; i++)
            hear(events[i].data.ptr);
    }
}

int main(int argc, char **argv)
{
    if (argc != 7)
        stop("usage: kv_latency HOST PORT CONNECTIONS SECONDS KEYS VALUE_BYTES");
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
    uint32_t count = (uint32_t)atoi(argv[3]);
    double seconds = atof(argv[4]);
    if (inet_pton(AF_INET, argv[1], &server.sin_addr) != 1 || count == 0 || count > CONNECTIONS_MAX)
        stop("an argument is out of bounds");
    make_answers((uint32_t)atoi(argv[5]), (uint32_t)atoi(argv[6]));
    samples_ns = malloc(SAMPLES_MAX * sizeof(*samples_ns));
    int epoll = epoll_create1(0);
    if (samples_ns == NULL || epoll < 0)
        stop("no memory");
    for (uint32_t i = 0; i < count; i++)
        open_connection(&connections[i], epoll, &server);
    uint64_t start_ns = clock_ns();
    counted_from_ns = start_ns + (uint64_t)(seconds * 1e8);
    end_ns = start_ns + (uint64_t)(seconds * 1e9);
    run(epoll, count);
    print_result(seconds * 0.9);
    return 0;
}
