#define _GNU_SOURCE
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "region.h"
#include "vnet.h"

#define TAP_BATCH 64
#define TAP_SENDBUF_BYTES (4 << 20)

struct tap_port {
    struct nmio_port port;
    uint8_t *rx; /* [TAP_BATCH][VNET_RX_BYTES] */
};

static int tap_input(struct nmio_port *base, struct nmio_rx *batch, uint32_t max)
{
    struct tap_port *tap = (struct tap_port *)base;
    uint32_t count = 0;
    while (count < max && count < TAP_BATCH) {
        uint8_t *at = tap->rx + (size_t)count * VNET_RX_BYTES;
        ssize_t got = read(tap->port.fd, at, VNET_RX_BYTES);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (got < 0)
            return count > 0 ? (int)count : -errno;
        if ((size_t)got < sizeof(struct virtio_net_hdr))
            continue;
        struct virtio_net_hdr header;
        memcpy(&header, at, sizeof(header));
        batch[count] = (struct nmio_rx){.data = at + sizeof(header),
                                        .len_bytes = (uint32_t)((size_t)got - sizeof(header)),
                                        .flags = vnet_rx_flags(&header)};
        base->counters.rx_bytes += batch[count].len_bytes;
        count++;
    }
    base->counters.rx_frames += count;
    return (int)count;
}

static void tap_release(struct nmio_port *base, struct nmio_rx *batch, uint32_t count)
{
    (void)base;
    (void)batch;
    (void)count;
}

/* Writes are synchronous: the kernel has its own copy when one returns. */
static int tap_output(struct nmio_port *base)
{
    struct tap_port *tap = (struct tap_port *)base;
    struct nmio_tx *tx = base->tx;
    uint32_t done = 0;
    for (; done < tx->count; done++) {
        struct nmio_tx_desc *desc = &tx->desc[done];
        struct virtio_net_hdr header;
        struct iovec iov[VNET_IOVECS];
        uint32_t len_bytes;
        int iovecs = vnet_gather(tx, desc, &header, iov, &len_bytes);
        if (writev(tap->port.fd, iov, iovecs) >= 0) {
            base->counters.tx_frames++;
            base->counters.tx_bytes += len_bytes;
        } else if (errno == EAGAIN || errno == EINTR) {
            break;
        } else {
            base->counters.tx_dropped++; /* as a wire would: TCP sends it again */
        }
        vnet_release(base, desc);
    }
    vnet_done(base, done);
    return 0;
}

static int tap_wait(struct nmio_port *base, int64_t timeout_ns, int wake_fd)
{
    return vnet_wait(base, base->fd, timeout_ns, wake_fd);
}

static void tap_close(struct nmio_port *base)
{
    struct tap_port *tap = (struct tap_port *)base;
    if (tap->port.fd >= 0)
        close(tap->port.fd);
    if (tap->rx != NULL)
        munmap(tap->rx, (size_t)TAP_BATCH * VNET_RX_BYTES);
    nmio_free(tap);
}

static const struct nmio_port_ops tap_ops = {"tap", tap_input, tap_release, tap_output, tap_wait, tap_close, NULL};

/* Is it of a TAP device of that name? */
static bool is_of(int fd, const char *name)
{
    struct ifreq request = {0};
    return ioctl(fd, TUNGETIFF, &request) == 0 && strncmp(request.ifr_name, name, IFNAMSIZ) == 0 &&
           (request.ifr_flags & IFF_TAP) != 0 && (request.ifr_flags & IFF_VNET_HDR) != 0;
}

/* fd: it is attached already; or -1. */
static int tap_attach(struct tap_port *tap, const char *name, bool multi_queue, int fd)
{
    struct ifreq request = {0};
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    if (multi_queue)
        request.ifr_flags |= IFF_MULTI_QUEUE;
    int header_bytes = sizeof(struct virtio_net_hdr);
    unsigned offload = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
    int sendbuf = TAP_SENDBUF_BYTES;
    tap->port.fd = fd >= 0 ? fd : open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0 && !is_of(fd, name))
        return -EBADF;
    if (tap->port.fd < 0 || (fd < 0 && ioctl(tap->port.fd, TUNSETIFF, &request) < 0) ||
        ioctl(tap->port.fd, TUNSETVNETHDRSZ, &header_bytes) < 0 || ioctl(tap->port.fd, TUNSETOFFLOAD, offload) < 0 ||
        ioctl(tap->port.fd, TUNSETSNDBUF, &sendbuf) < 0)
        return -errno;
    return 0;
}

int tap_open(struct nmio_port **port, const char *name, bool multi_queue, int fd, struct nmio_region *region,
             struct nmio_tx *tx, uint32_t gather_max)
{
    struct tap_port *tap = nmio_alloc(sizeof(*tap));
    if (tap == NULL)
        return -ENOMEM;
    tap->port = (struct nmio_port){.ops = &tap_ops, .region = region, .tx = tx, .gather_max = gather_max, .fd = -1};
    tap->rx = mmap(NULL, (size_t)TAP_BATCH * VNET_RX_BYTES, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    int error = tap->rx == MAP_FAILED ? -ENOMEM : tap_attach(tap, name, multi_queue, fd);
    if (error != 0) {
        if (tap->rx == MAP_FAILED)
            tap->rx = NULL;
        tap_close(&tap->port);
        return error;
    }
    *port = &tap->port;
    return 0;
}
