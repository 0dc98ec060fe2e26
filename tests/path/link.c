/* An emulated link between two namespaces: a TAP device in each, and between them a queue of bounded length in front of a
 * rate, then delay and mischief, each way the same. It stands in for netem.
 *
 *     link NAMESPACE DEVICE NAMESPACE DEVICE SEED DELAY_US JITTER_US RATE_KBIT QUEUE_BYTES LOSS DUPLICATE CORRUPT REORDER
 *
 * The last four are chances in a million for a frame; a frame reordered comes up to once the delay later. Prints
 * "ready"; ends with the process that started it, or on a signal. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_ether.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "../clock.h"

#define FRAME_BYTES_MAX 2048
#define FRAMES_MAX 32768 /* on the way, each way */
#define BATCH 64 /* read from a device before what is due is delivered */

struct network {
    uint64_t delay_us, jitter_us, rate_kbit, queue_bytes;
    uint64_t loss, duplicate, corrupt, reorder;
};

/* A frame on its way. */
struct flying {
    uint64_t due_ns;
    uint32_t place; /* in frames */
    uint32_t len_bytes;
};

struct direction {
    int from, to;
    uint64_t free_at_ns; /* when the rate has let everything before through */
    struct flying *heap; /* the one due first at the top */
    uint32_t count;
    uint8_t *frames; /* [FRAMES_MAX][FRAME_BYTES_MAX] */
    uint32_t *places; /* free ones, from count on */
};

static struct network network;
static uint64_t random_state;

/* xorshift64* */
static uint64_t random_below(uint64_t bound)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    uint64_t value = random_state * 2685821657736338717u;
    return bound > 0 ? (value >> 16) % bound : 0;
}

static bool happens(uint64_t in_a_million)
{
    return random_below(1000000) < in_a_million;
}

static void fail(const char *what)
{
    fprintf(stderr, "link: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void heap_push(struct direction *direction, struct flying frame)
{
    struct flying *heap = direction->heap;
    uint32_t at = direction->count++;
    while (at > 0 && heap[(at - 1) / 2].due_ns > frame.due_ns) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = frame;
}

static void heap_pop(struct direction *direction)
{
    struct flying *heap = direction->heap;
    struct flying last = heap[--direction->count];
    uint32_t at = 0;
    for (uint32_t child = 1; child < direction->count; child = 2 * at + 1) {
        if (child + 1 < direction->count && heap[child + 1].due_ns < heap[child].due_ns)
            child++;
        if (heap[child].due_ns >= last.due_ns)
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = last;
}

static void put(struct direction *direction, const uint8_t *frame, uint32_t len_bytes, uint64_t due_ns)
{
    if (direction->count == FRAMES_MAX)
        return;
    uint32_t place = direction->places[direction->count];
    memcpy(direction->frames + (size_t)place * FRAME_BYTES_MAX, frame, len_bytes);
    heap_push(direction, (struct flying){due_ns, place, len_bytes});
}

/* Whether the receiver can tell that a frame is damaged: a TAP has no frame check sequence, and ARP no checksum of its own, so
 * that a damaged answer would be believed for as long as the neighbour's entry lasts. */
static bool has_checksum(const uint8_t *frame, uint32_t len_bytes)
{
    const struct ethhdr *header = (const struct ethhdr *)frame;
    if (len_bytes <= ETH_HLEN)
        return false;
    return header->h_proto == htons(ETH_P_IP) || header->h_proto == htons(ETH_P_IPV6);
}

/* What the link makes of a frame that was sent now. */
static void carry(struct direction *direction, uint8_t *frame, uint32_t len_bytes, uint64_t now)
{
    uint64_t backlog_ns = direction->free_at_ns > now ? direction->free_at_ns - now : 0;
    if (backlog_ns * network.rate_kbit / 8000000 > network.queue_bytes)
        return;
    direction->free_at_ns = now + backlog_ns + len_bytes * 8000000ull / network.rate_kbit;
    if (happens(network.loss))
        return;
    uint64_t due_ns = direction->free_at_ns + network.delay_us * 1000 + random_below(network.jitter_us * 1000);
    if (happens(network.reorder))
        due_ns += random_below(network.delay_us * 1000);
    if (happens(network.corrupt) && has_checksum(frame, len_bytes))
        frame[ETH_HLEN + random_below(len_bytes - ETH_HLEN)] ^= (uint8_t)(1u << random_below(8));
    put(direction, frame, len_bytes, due_ns);
    if (happens(network.duplicate))
        put(direction, frame, len_bytes, due_ns + random_below(network.delay_us * 1000));
}

static void take_in(struct direction *direction)
{
    uint8_t frame[FRAME_BYTES_MAX];
    for (int i = 0; i < BATCH; i++) {
        ssize_t got = read(direction->from, frame, sizeof(frame));
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (got < 0)
            fail("read");
        carry(direction, frame, (uint32_t)got, clock_ns());
    }
}

static void deliver(struct direction *direction)
{
    uint64_t now = clock_ns();
    while (direction->count > 0 && direction->heap[0].due_ns <= now) {
        struct flying frame = direction->heap[0];
        const uint8_t *bytes = direction->frames + (size_t)frame.place * FRAME_BYTES_MAX;
        if (write(direction->to, bytes, frame.len_bytes) < 0 && errno != EIO && errno != EAGAIN && errno != EINVAL)
            fail("write"); /* EIO: the device is down; EINVAL: the kernel refuses what we have corrupted */
        heap_pop(direction);
        direction->places[direction->count] = frame.place;
    }
}

static int open_tap(const char *space, const char *device)
{
    char path[256];
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    snprintf(path, sizeof(path), "/run/netns/%s", space);
    strncpy(request.ifr_name, device, IFNAMSIZ - 1);
    int space_fd = open(path, O_RDONLY | O_CLOEXEC);
    if (space_fd < 0 || setns(space_fd, CLONE_NEWNET) < 0)
        fail(path);
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &request) < 0)
        fail(device);
    close(space_fd);
    return fd;
}

static void set_up(struct direction *direction, int from, int to)
{
    direction->from = from;
    direction->to = to;
    direction->heap = calloc(FRAMES_MAX, sizeof(*direction->heap));
    direction->places = calloc(FRAMES_MAX, sizeof(*direction->places));
    direction->frames = mmap(NULL, (size_t)FRAMES_MAX * FRAME_BYTES_MAX, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (direction->heap == NULL || direction->places == NULL || direction->frames == MAP_FAILED)
        fail("memory");
    for (uint32_t i = 0; i < FRAMES_MAX; i++)
        direction->places[i] = i;
}

static void sleep_until_due(const struct direction directions[2])
{
    uint64_t due_ns = UINT64_MAX, now = clock_ns();
    struct pollfd fds[2];
    for (int i = 0; i < 2; i++) {
        fds[i] = (struct pollfd){.fd = directions[i].from, .events = POLLIN};
        if (directions[i].count > 0 && directions[i].heap[0].due_ns < due_ns)
            due_ns = directions[i].heap[0].due_ns;
    }
    uint64_t left_ns = due_ns > now ? due_ns - now : 0;
    struct timespec timeout = {(time_t)(left_ns / 1000000000), (long)(left_ns % 1000000000)};
    ppoll(fds, 2, due_ns == UINT64_MAX ? NULL : &timeout, NULL);
}

int main(int argc, char **argv)
{
    if (argc != 14) {
        fprintf(stderr, "link: the head of link.c says how\n");
        return 2;
    }
    uint64_t *numbers[] = {&random_state,      &network.delay_us,    &network.jitter_us,
                           &network.rate_kbit, &network.queue_bytes, &network.loss,
                           &network.duplicate, &network.corrupt,     &network.reorder};
    for (int i = 0; i < 9; i++)
        *numbers[i] = strtoull(argv[5 + i], NULL, 10);
    random_state = random_state * 2 + 1; /* never zero */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_TIMERSLACK, 1);
    static struct direction directions[2];
    int a = open_tap(argv[1], argv[2]), b = open_tap(argv[3], argv[4]);
    set_up(&directions[0], a, b);
    set_up(&directions[1], b, a);
    puts("ready");
    fflush(stdout);
    for (;;) {
        for (int i = 0; i < 2; i++) {
            take_in(&directions[i]);
            deliver(&directions[i]);
        }
        sleep_until_due(directions);
    }
}
