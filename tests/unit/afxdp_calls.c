/* The AF_XDP port over rings in memory and a kernel that is played: how many system calls it makes. Prints a line for each case,
 * its name, the calls of sendto and how many frames are still unsent; for waiting whether it asked for POLLOUT and for how many
 * milliseconds. Then the calls of sendto so far after each of some rounds and sleeps. Then those about
 * receiving: the frames, the calls of recvfrom and where the next buffer lies; and the buffers' size and how many stood ready each
 * time that a socket was to be bound, and whether the ring has one where the kernel looks first. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>

static ssize_t played_sendto(int fd, const void *data, size_t bytes, int flags, const void *to, socklen_t to_bytes);
static ssize_t played_recvfrom(int fd, void *data, size_t bytes, int flags, void *from, socklen_t *from_bytes);
static int played_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *limit, const void *mask);
#define sendto played_sendto
#define recvfrom played_recvfrom
#define ppoll played_ppoll
#define xsk_umem__create played_umem_create
#define xsk_umem__delete played_umem_delete
#define xsk_socket__create played_socket_create
#define SANDSTORM_AFXDP
#include "libnmio/afxdp.c"

#define RING AFXDP_TX_RING
#define CALLS_MAX 1000
#define PATIENT_ROUNDS 32
#define COPIED_AT_ONCE 32 /* TX_BATCH_SIZE of Linux's xsk.c */

static uint32_t tx_producer, tx_consumer, tx_flags, done_producer, done_consumer, done_flags;
static uint32_t fill_producer, fill_consumer, fill_flags, rx_producer, rx_consumer, rx_flags;
static struct xdp_desc descriptors[RING], arrived[AFXDP_RX_RING];
static uint64_t completed[RING], filled[AFXDP_RX_RING];

/* What the kernel does with a call. */
static int (*answer)(void);
static uint32_t calls, frame_size;
static short polled;
static long limit_ms; /* of sleeping */

static ssize_t played_sendto(int fd, const void *data, size_t bytes, int flags, const void *to, socklen_t to_bytes)
{
    (void)fd, (void)data, (void)bytes, (void)flags, (void)to, (void)to_bytes;
    if (++calls > CALLS_MAX) {
        puts("endless");
        exit(1);
    }
    errno = answer();
    return errno == 0 ? 0 : -1;
}

static ssize_t played_recvfrom(int fd, void *data, size_t bytes, int flags, void *from, socklen_t *from_bytes)
{
    (void)fd, (void)data, (void)bytes, (void)from, (void)from_bytes;
    calls++;
    errno = EAGAIN;
    return (flags & MSG_DONTWAIT) != 0 ? -1 : 0;
}

static int played_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *limit, const void *mask)
{
    (void)count, (void)mask;
    limit_ms = limit == NULL ? -1 : (long)limit->tv_sec * 1000 + limit->tv_nsec / 1000000;
    polled = fds[0].events;
    fds[0].revents = 0;
    return 0;
}

/* A NIC in zero-copy mode: only wakes up. */
static int wakes(void)
{
    return 0;
}

/* The same, and the NIC has them soon. */
static int takes(void)
{
    tx_consumer = tx_producer;
    return 0;
}

/* A few frames a call, and EAGAIN while there are more. */
static int copies(void)
{
    for (uint32_t i = 0; i < COPIED_AT_ONCE; i++) {
        if (tx_consumer == tx_producer)
            return 0;
        completed[done_producer++ % RING] = descriptors[tx_consumer++ % RING].addr;
    }
    return tx_consumer == tx_producer ? 0 : EAGAIN;
}

static int stopped(void)
{
    return EAGAIN;
}

static int busy(void)
{
    return EBUSY;
}

static int down(void)
{
    return ENETDOWN;
}

static int gone(void)
{
    return ENXIO;
}

static int broken(void)
{
    return EIO;
}

/* Not reached: no queue is bound here. */
int nmio_filter_socket(struct nmio_filter *filter, uint32_t queue, int socket_fd)
{
    (void)filter, (void)queue, (void)socket_fd;
    return -ENOSYS;
}

static struct xsk_ring_prod fill_ring(void)
{
    fill_producer = fill_consumer = 0;
    return (struct xsk_ring_prod){.cached_cons = AFXDP_RX_RING,
                                  .mask = AFXDP_RX_RING - 1,
                                  .size = AFXDP_RX_RING,
                                  .producer = &fill_producer,
                                  .consumer = &fill_consumer,
                                  .ring = filled,
                                  .flags = &fill_flags};
}

int played_umem_create(struct xsk_umem **umem, void *area, __u64 bytes, struct xsk_ring_prod *fill,
                       struct xsk_ring_cons *completions, const struct xsk_umem_config *config)
{
    (void)area, (void)completions;
    *umem = (struct xsk_umem *)fill; /* something that is not NULL */
    const uint32_t as_it_was = fill->cached_prod; /* the library leaves that to who has zeroed it */
    memset(filled, 0, sizeof(filled));
    *fill = fill_ring();
    fill->cached_prod = as_it_was;
    frame_size = config->frame_size;
    if (bytes % frame_size != 0)
        return -EINVAL;
    return 0;
}

int played_umem_delete(struct xsk_umem *umem)
{
    (void)umem;
    return 0;
}

int played_socket_create(struct xsk_socket **socket, const char *ifname, __u32 queue, struct xsk_umem *umem,
                         struct xsk_ring_cons *rx, struct xsk_ring_prod *tx, const struct xsk_socket_config *config)
{
    (void)socket, (void)ifname, (void)queue, (void)umem, (void)rx, (void)tx, (void)config;
    printf("binds-%u %u %d\n", frame_size, fill_producer, filled[0] != 0);
    return -EOPNOTSUPP;
}

static void release_all(struct nmio_region *region)
{
    for (uint32_t i = 0; i < region->buffer_count; i++)
        if (region->in_flight[i] != NMIO_FREE)
            nmio_release(region, i);
}

/* What a round does that finds so many frames, while the driver asks to be woken, or does not. */
static void receive(struct nmio_region *region, const char *name, uint32_t frames, uint32_t flags)
{
    struct nmio_rx batch[4];
    struct afxdp_port xdp = {.port = {.region = region}, .fill = fill_ring(), .buffer_bytes = 4096};
    for (uint32_t i = 0; i < frames; i++)
        arrived[i] = (struct xdp_desc){.addr = 3 * 4096 + 256, .len = 60};
    filled[0] = 0;
    rx_producer = frames;
    rx_consumer = 0;
    fill_flags = flags;
    calls = 0;
    xdp.received = (struct xsk_ring_cons){.mask = AFXDP_RX_RING - 1,
                                          .size = AFXDP_RX_RING,
                                          .producer = &rx_producer,
                                          .consumer = &rx_consumer,
                                          .ring = arrived,
                                          .flags = &rx_flags};
    int received = afxdp_input(&xdp.port, batch, 4);
    if (received > 0)
        afxdp_release(&xdp.port, batch, (uint32_t)received);
    printf("%s %d %u %llu\n", name, received, calls, (unsigned long long)filled[0]);
}

static void open_port(struct nmio_region *region, struct nmio_tx *tx)
{
    struct nmio_port *port = NULL;
    bool zero_copy = false;
    int error = afxdp_open(&port, NULL, "lo", 0, region, tx, &zero_copy);
    printf("opens %d\n", error);
    release_all(region);
}

static void append(struct nmio_region *region, struct nmio_tx *tx, uint32_t frames)
{
    for (tx->count = 0; tx->count < frames; tx->count++) {
        uint32_t chunk = nmio_buffer_take(region);
        tx->desc[tx->count] =
            (struct nmio_tx_desc){.head = nmio_chunk(region, chunk), .head_bytes = 60, .chunk = chunk};
    }
}

/* A port whose driver asks to be woken. */
static struct afxdp_port sender(struct nmio_region *region, struct nmio_tx *tx, int (*answers)(void))
{
    struct afxdp_port xdp = {.port = {.region = region, .tx = tx}};
    tx_producer = tx_consumer = done_producer = done_consumer = 0;
    tx_flags = XDP_RING_NEED_WAKEUP;
    xdp.sending = (struct xsk_ring_prod){.cached_cons = RING,
                                         .mask = RING - 1,
                                         .size = RING,
                                         .producer = &tx_producer,
                                         .consumer = &tx_consumer,
                                         .ring = descriptors,
                                         .flags = &tx_flags};
    xdp.completed = (struct xsk_ring_cons){.mask = RING - 1,
                                           .size = RING,
                                           .producer = &done_producer,
                                           .consumer = &done_consumer,
                                           .ring = completed,
                                           .flags = &done_flags};
    xdp.fill = fill_ring();
    fill_flags = 0;
    answer = answers;
    calls = 0;
    return xdp;
}

/* Rounds that find a driver on its way, and one that sleeps meanwhile. */
static void rounds(struct nmio_region *region, struct nmio_tx *tx)
{
    struct afxdp_port xdp = sender(region, tx, wakes);
    printf("rounds");
    for (int i = 0; i < 2; i++) {
        append(region, tx, 3);
        afxdp_output(&xdp.port);
        printf(" %u", calls);
    }
    tx_consumer = 3; /* it had not seen the others */
    afxdp_output(&xdp.port);
    printf(" %u", calls);
    append(region, tx, 1);
    afxdp_output(&xdp.port);
    printf(" %u", calls);
    afxdp_wait(&xdp.port, -1, -1);
    printf(" %u", calls);
    afxdp_output(&xdp.port);
    printf(" %u\n", calls);
    release_all(region);
}

/* One that has forgotten that it was told. */
static void forgets(struct nmio_region *region, struct nmio_tx *tx)
{
    struct afxdp_port xdp = sender(region, tx, wakes);
    append(region, tx, 3);
    for (int i = 0; i <= PATIENT_ROUNDS; i++)
        afxdp_output(&xdp.port);
    printf("forgets %u", calls);
    afxdp_output(&xdp.port);
    printf(" %u\n", calls);
    release_all(region);
}

/* One that falls behind. */
static void falls_behind(struct nmio_region *region, struct nmio_tx *tx)
{
    struct afxdp_port xdp = sender(region, tx, wakes);
    printf("behind");
    for (int i = 0; i < 3; i++) {
        append(region, tx, 400);
        afxdp_output(&xdp.port);
        printf(" %u", calls);
    }
    puts("");
    release_all(region);
}

int main(void)
{
    static struct nmio_region region;
    static struct nmio_tx tx;
    const struct {
        const char *name;
        int (*answer)(void);
        uint32_t frames;
    } cases[] = {{"wakes", wakes, 3},     {"takes", takes, 3},     {"takes-many", takes, 1500},
                 {"copies", copies, 100}, {"stopped", stopped, 3}, {"stopped-full", stopped, 1500},
                 {"busy", busy, 3},       {"down", down, 3},       {"gone", gone, 3},
                 {"broken", broken, 3}};
    if (nmio_region_create(&region, 2048, RING, 0, 0) != 0 || nmio_tx_create(&tx, RING) != 0)
        return 2;
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        struct afxdp_port xdp = sender(&region, &tx, cases[c].answer);
        append(&region, &tx, cases[c].frames);
        int error = afxdp_output(&xdp.port);
        uint32_t once = calls;
        afxdp_wait(&xdp.port, -1, -1);
        printf("%s %u %u %d %s %ld\n", cases[c].name, once, tx_producer - tx_consumer, error,
               (polled & POLLOUT) != 0 ? "POLLOUT" : "-", limit_ms);
        release_all(&region);
    }
    rounds(&region, &tx);
    forgets(&region, &tx);
    falls_behind(&region, &tx);
    receive(&region, "hungry", 0, XDP_RING_NEED_WAKEUP);
    receive(&region, "awake", 0, 0);
    receive(&region, "receives", 1, XDP_RING_NEED_WAKEUP);
    open_port(&region, &tx);
    return 0;
}
