/* /dev/netmap itself. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "netmap.h"
#include "netmap_abi.h"
#include "netmap_check.h"

static int kernel_open(void *context)
{
    (void)context;
    int fd = open("/dev/netmap", O_RDWR | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int kernel_control(void *context, int fd, struct nm_abi_header *request)
{
    (void)context;
    return ioctl(fd, NM_ABI_CTRL, request) < 0 ? -errno : 0;
}

static void *kernel_map(void *context, int fd, uint64_t bytes)
{
    (void)context;
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static void kernel_unmap(void *context, void *memory, uint64_t bytes)
{
    (void)context;
    munmap(memory, bytes);
}

static int sync_rings(int fd, unsigned long request)
{
    while (ioctl(fd, request, NULL) < 0)
        if (errno != EINTR)
            return errno == EAGAIN ? 0 : -errno;
    return 0;
}

static int kernel_sync_tx(void *context, int fd)
{
    (void)context;
    return sync_rings(fd, NM_ABI_TXSYNC);
}

static int kernel_sync_rx(void *context, int fd)
{
    (void)context;
    return sync_rings(fd, NM_ABI_RXSYNC);
}

static int kernel_wait(void *context, int rx_fd, int tx_fd, int64_t timeout_ns, int wake_fd)
{
    (void)context;
    struct pollfd fds[3] = {
        {.fd = rx_fd, .events = POLLIN}, {.fd = tx_fd, .events = POLLOUT}, {.fd = wake_fd, .events = POLLIN}};
    /* In milliseconds, which every system's poll has; rounded up, or the last one would be spun away. */
    int64_t timeout_ms = timeout_ns < 0 ? -1 : (timeout_ns + 999999) / 1000000;
    int ready = poll(fds, 3, timeout_ms > 1000000 ? 1000000 : (int)timeout_ms);
    if (ready < 0)
        return errno == EINTR ? 0 : -errno;
    return ready > 0 && ((fds[0].revents | fds[1].revents) & (POLLERR | POLLNVAL)) != 0 ? -EIO : 0;
}

static void kernel_close(void *context, int fd)
{
    (void)context;
    close(fd);
}

const struct netmap_system *netmap_kernel(void)
{
    static const struct netmap_system system = {NULL,           kernel_open,  kernel_control,
                                                kernel_map,     kernel_unmap, kernel_sync_tx,
                                                kernel_sync_rx, kernel_wait,  kernel_close};
    return &system;
}
