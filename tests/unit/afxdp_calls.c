/* The AF_XDP port over rings in memory and a kernel that is played: how many system calls it makes. Prints a line for each case,
 * its name, the calls of sendto and how many frames are still unsent; for waiting whether it asked for POLLOUT. */
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
static int played_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *limit, const void *mask);
#define sendto played_sendto
#define ppoll played_ppoll
#define SANDSTORM_AFXDP
#include "libnmio/afxdp.c"

#define RING AFXDP_TX_RING
#define CALLS_MAX 1000
#define COPIED_AT_ONCE 32 /* TX_BATCH_SIZE of Linux's xsk.c */

static uint32_t tx_producer, tx_consumer, tx_flags, done_producer, done_consumer, done_flags;
static struct xdp_desc descriptors[RING];
static uint64_t completed[RING];

/* What the kernel does with a call. */
static int (*answer)(void);
static uint32_t calls;
static short polled;

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

static int played_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *limit, const void *mask)
{
    (void)count, (void)limit, (void)mask;
    polled = fds[0].events;
    fds[0].revents = 0;
    return 0;
}

/* A NIC in zero-copy mode: only wakes up. */
static int wakes(void)
{
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

int main(void)
{
    static struct nmio_region region;
    static struct nmio_tx tx;
    const struct {
        const char *name;
        int (*answer)(void);
        uint32_t frames;
    } cases[] = {
        {"wakes", wakes, 3}, {"copies", copies, 100}, {"stopped", stopped, 3}, {"stopped-full", stopped, 1500},
        {"busy", busy, 3},   {"down", down, 3},       {"gone", gone, 3},       {"broken", broken, 3}};
    if (nmio_region_create(&region, 2048, RING, 0, 0) != 0 || nmio_tx_create(&tx, RING) != 0)
        return 2;
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        struct afxdp_port xdp = {.port = {.region = &region, .tx = &tx}};
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
        answer = cases[c].answer;
        calls = 0;
        for (tx.count = 0; tx.count < cases[c].frames; tx.count++) {
            uint32_t chunk = nmio_buffer_take(&region);
            tx.desc[tx.count] =
                (struct nmio_tx_desc){.head = nmio_chunk(&region, chunk), .head_bytes = 60, .chunk = chunk};
        }
        int error = afxdp_output(&xdp.port);
        uint32_t once = calls;
        afxdp_wait(&xdp.port, -1, -1);
        printf("%s %u %u %d %s\n", cases[c].name, once, tx_producer - tx_consumer, error,
               (polled & POLLOUT) != 0 ? "POLLOUT" : "-");
        for (uint32_t i = 0; i < region.buffer_count; i++)
            if (region.in_flight[i] != NMIO_FREE)
                nmio_release(&region, i);
    }
    return 0;
}
