#define _GNU_SOURCE
#include "afxdp.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>

#ifdef SANDSTORM_AFXDP

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <xdp/xsk.h>

#include "region.h"

#define AFXDP_TX_RING 2048    /* descriptors, and of what is completed */
#define AFXDP_SEND_SHARE 5     /* of the region's buffers one in so many at least stays for what we send */
#define AFXDP_BIND_TRIES 40   /* a queue stays busy for a moment after its last socket has gone */
#define AFXDP_BIND_PAUSE_NS 50000000
#define AFXDP_UNSENT_NS 1000000 /* between looks at what is still to be sent: completions don't wake */
#define AFXDP_SENT_NS 100000000 /* at what has been, or can't be as the interface is down */
#define AFXDP_TELL_ROUNDS 32 /* in which a driver that was told of frames may come for them before it is told again */

/* Where it is; the interface by its number, as it may be renamed. */
struct afxdp_place {
    struct nmio_filter *filter;
    uint32_t ifindex, queue;
};

struct afxdp_port {
    struct nmio_port port;
    struct afxdp_place place;
    struct xsk_umem *umem;
    struct xsk_socket *socket;
    struct xsk_ring_prod fill, sending;
    struct xsk_ring_cons completed, received;
    uint32_t outstanding; /* given to the kernel and not yet completed */
    uint32_t told; /* how far the ring was filled when the driver was last told of frames */
    uint32_t patience; /* rounds until it is told again, if it has not come */
    uint32_t rx_flags;
    uint32_t buffer_bytes; /* of each buffer to receive into: one chunk of the region, or several */
    uint32_t idle_count;
    uint64_t idle[AFXDP_RX_RING]; /* buffers to receive into that the kernel has not been given */
    bool down; /* the interface; what is in the ring goes when it is up again */
};

/* Takes buffers of the region to receive into, for as long as the port is open. They are taken first of all, so chunks that lie side by
 * side come one after the other. */
static void take_buffers(struct afxdp_port *xdp, uint32_t buffer_bytes)
{
    struct nmio_region *region = xdp->port.region;
    uint32_t chunks = buffer_bytes / region->chunk_bytes, reserve = region->buffer_count / AFXDP_SEND_SHARE;
    xdp->buffer_bytes = buffer_bytes;
    while (xdp->idle_count < AFXDP_RX_RING && region->free_count >= reserve + chunks) {
        uint64_t first = nmio_buffer_take(region);
        for (uint32_t i = 1; i < chunks; i++)
            (void)nmio_buffer_take(region);
        xdp->idle[xdp->idle_count++] = first * region->chunk_bytes;
    }
}

/* Gives the kernel as many buffers to receive into as its ring takes. */
static void refill(struct afxdp_port *xdp)
{
    uint32_t index, room = xsk_prod_nb_free(&xdp->fill, AFXDP_RX_RING);
    uint32_t count = room < xdp->idle_count ? room : xdp->idle_count;
    if (count == 0 || xsk_ring_prod__reserve(&xdp->fill, count, &index) != count)
        return;
    for (uint32_t i = 0; i < count; i++)
        *xsk_ring_prod__fill_addr(&xdp->fill, index + i) = xdp->idle[--xdp->idle_count];
    xsk_ring_prod__submit(&xdp->fill, count);
}

/* A driver in zero-copy mode that found no buffers receives nothing more until it is woken, and says so. To sleep wakes it as
 * well; this is for rounds that nobody sleeps between. What is wrong with the interface is seen elsewhere. */
static void wake_receiver(struct afxdp_port *xdp)
{
    if (xsk_ring_prod__needs_wakeup(&xdp->fill))
        (void)recvfrom(xsk_socket__fd(xdp->socket), NULL, 0, MSG_DONTWAIT, NULL, NULL);
}

static int afxdp_input(struct nmio_port *base, struct nmio_rx *batch, uint32_t max)
{
    struct afxdp_port *xdp = (struct afxdp_port *)base;
    uint32_t index, count = xsk_ring_cons__peek(&xdp->received, max, &index);
    for (uint32_t i = 0; i < count; i++) {
        const struct xdp_desc *desc = xsk_ring_cons__rx_desc(&xdp->received, index + i);
        batch[i] = (struct nmio_rx){.data = base->region->base + desc->addr,
                                    .len_bytes = desc->len,
                                    .flags = xdp->rx_flags,
                                    .token = desc->addr};
        base->counters.rx_bytes += desc->len;
    }
    if (count > 0)
        xsk_ring_cons__release(&xdp->received, count);
    else
        wake_receiver(xdp);
    base->counters.rx_frames += count;
    return (int)count;
}

static void afxdp_release(struct nmio_port *base, struct nmio_rx *batch, uint32_t count)
{
    struct afxdp_port *xdp = (struct afxdp_port *)base;
    for (uint32_t i = 0; i < count; i++)
        xdp->idle[xdp->idle_count++] = batch[i].token - batch[i].token % xdp->buffer_bytes;
    refill(xdp);
}

static void reclaim(struct afxdp_port *xdp)
{
    struct nmio_region *region = xdp->port.region;
    uint32_t index, count = xsk_ring_cons__peek(&xdp->completed, AFXDP_TX_RING, &index);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t address = *xsk_ring_cons__comp_addr(&xdp->completed, index + i);
        nmio_release(region, (uint32_t)(address / region->chunk_bytes));
    }
    if (count > 0)
        xsk_ring_cons__release(&xdp->completed, count);
    xdp->outstanding -= count;
}

static uint32_t taken(const struct afxdp_port *xdp)
{
    return __atomic_load_n(xdp->sending.consumer, __ATOMIC_ACQUIRE);
}

/* Frames in the ring that the kernel has not taken yet. */
static uint32_t unsent(const struct afxdp_port *xdp)
{
    return *xdp->sending.producer - taken(xdp);
}

/* A driver that is on its way for some frames takes those behind them too: to tell it again would be a call and an interrupt for
 * nothing. If it has looked a moment before the last ones came they go with its next interrupt, at the latest when it has taken those
 * that it saw, or who sleeps by poll(), which tells it. Where many frames lie there it is told each time: the longer they are in flight
 * the more of those that others want as well are copied. Should it have forgotten, as when its link is reset, it is told again. */
static bool comes_anyway(struct afxdp_port *xdp)
{
    bool is_coming = (int32_t)(xdp->told - taken(xdp)) > 0 && xdp->patience > 0;
    if (!is_coming || xdp->outstanding > AFXDP_TX_RING / 4)
        return false;
    xdp->patience--;
    return true;
}

/* Tells the kernel that there are frames. One call is enough where it succeeds: a driver in zero-copy mode is awake then, though
 * it may take the frames later, and on a moderated interrupt. In copy mode a call sends a few and says EAGAIN while there are
 * more; also if its queue stands still, which is seen by no frame having gone. */
static int kick(struct afxdp_port *xdp)
{
    int fd = xsk_socket__fd(xdp->socket);
    xdp->down = false;
    for (uint32_t left = unsent(xdp), before; left > 0 && xsk_ring_prod__needs_wakeup(&xdp->sending);) {
        if (sendto(fd, NULL, 0, MSG_DONTWAIT, NULL, 0) >= 0) {
            xdp->told = *xdp->sending.producer;
            xdp->patience = AFXDP_TELL_ROUNDS;
            return 0;
        }
        xdp->down = errno == ENETDOWN || errno == ENXIO;
        if (errno != EAGAIN)
            return xdp->down || errno == EBUSY || errno == ENOBUFS || errno == EINTR ? 0 : -errno;
        reclaim(xdp);
        before = left;
        left = unsent(xdp);
        if (left == before)
            return 0;
    }
    return 0;
}

static int afxdp_output(struct nmio_port *base)
{
    struct afxdp_port *xdp = (struct afxdp_port *)base;
    struct nmio_tx *tx = base->tx;
    uint32_t index, count = tx->count;
    reclaim(xdp);
    if (count > AFXDP_TX_RING - xdp->outstanding)
        count = AFXDP_TX_RING - xdp->outstanding;
    if (count > 0 && xsk_ring_prod__reserve(&xdp->sending, count, &index) == count) {
        for (uint32_t i = 0; i < count; i++) {
            const struct nmio_tx_desc *desc = &tx->desc[i];
            *xsk_ring_prod__tx_desc(&xdp->sending, index + i) =
                (struct xdp_desc){.addr = (uint64_t)(desc->head - base->region->base), .len = desc->head_bytes};
            base->counters.tx_bytes += desc->head_bytes;
        }
        xsk_ring_prod__submit(&xdp->sending, count);
        base->counters.tx_frames += count;
        xdp->outstanding += count;
        nmio_tx_taken(tx, count);
    }
    int error = comes_anyway(xdp) ? 0 : kick(xdp);
    reclaim(xdp);
    tx->space = AFXDP_TX_RING - xdp->outstanding - tx->count;
    return error;
}

/* Takes it away. That the interface has gone is seen by others, who can wait for it. */
static int socket_error(struct afxdp_port *xdp)
{
    int error = 0;
    socklen_t bytes = sizeof(error);
    if (getsockopt(xsk_socket__fd(xdp->socket), SOL_SOCKET, SO_ERROR, &error, &bytes) < 0)
        return -errno;
    return error == ENETDOWN ? 0 : -error;
}

/* How long to sleep at most; -1: nothing is to be looked at. Slots of what has been sent are taken back whenever something wakes us,
 * before they are wanted, so that alone is worth no waking; room for more is. */
static int64_t pause_ns(const struct afxdp_port *xdp)
{
    const struct nmio_tx *tx = xdp->port.tx;
    if (xdp->outstanding == 0)
        return -1;
    bool is_pressing = unsent(xdp) > 0 || tx->count > 0 || tx->space < AFXDP_TX_RING / 2;
    return is_pressing && !xdp->down ? AFXDP_UNSENT_NS : AFXDP_SENT_NS;
}

static int afxdp_wait(struct nmio_port *base, int64_t timeout_ns, int wake_fd)
{
    struct afxdp_port *xdp = (struct afxdp_port *)base;
    struct pollfd fds[2] = {{.fd = xsk_socket__fd(xdp->socket), .events = POLLIN}, {.fd = wake_fd, .events = POLLIN}};
    if (unsent(xdp) > AFXDP_TX_RING / 2) /* with less the kernel says that there is room, and nobody would sleep */
        fds[0].events |= POLLOUT;
    int64_t most_ns = pause_ns(xdp);
    if (most_ns >= 0 && (timeout_ns < 0 || timeout_ns > most_ns))
        timeout_ns = most_ns;
    struct timespec limit = {timeout_ns / 1000000000, timeout_ns % 1000000000};
    if (ppoll(fds, 2, timeout_ns < 0 ? NULL : &limit, NULL) < 0 && errno != EINTR)
        return -errno;
    xdp->patience = 0;
    reclaim(xdp);
    return (fds[0].revents & (POLLERR | POLLNVAL)) != 0 ? socket_error(xdp) : 0;
}

static void afxdp_close(struct nmio_port *base)
{
    struct afxdp_port *xdp = (struct afxdp_port *)base;
    if (xdp->socket != NULL)
        xsk_socket__delete(xdp->socket);
    if (xdp->umem != NULL)
        xsk_umem__delete(xdp->umem);
    nmio_free(xdp);
}

static int bind_queue(struct afxdp_port *xdp, bool zero_copy)
{
    char ifname[IF_NAMESIZE];
    if (if_indextoname(xdp->place.ifindex, ifname) == NULL)
        return -errno;
    struct xsk_socket_config config = {
        .rx_size = AFXDP_RX_RING,
        .tx_size = AFXDP_TX_RING,
        .libxdp_flags = XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD,
        .bind_flags = (uint16_t)(XDP_USE_NEED_WAKEUP | (zero_copy ? XDP_ZEROCOPY : XDP_COPY)),
    };
    struct timespec pause = {0, AFXDP_BIND_PAUSE_NS};
    for (int tries = 0;; tries++) {
        int error = xsk_socket__create(&xdp->socket, ifname, xdp->place.queue, xdp->umem, &xdp->received,
                                       &xdp->sending, &config);
        if (error != -EBUSY || tries == AFXDP_BIND_TRIES)
            return error;
        nanosleep(&pause, NULL);
    }
}

/* The region as UMEM whose chunks are of so many bytes, and a socket over it. */
static int open_socket(struct afxdp_port *xdp, uint32_t buffer_bytes, bool zero_copy)
{
    struct nmio_region *region = xdp->port.region;
    struct xsk_umem_config config = {
        .fill_size = AFXDP_RX_RING, .comp_size = AFXDP_TX_RING, .frame_size = buffer_bytes, .frame_headroom = 0};
    uint64_t bytes = (uint64_t)region->chunk_count * region->chunk_bytes;
    bytes = (bytes + buffer_bytes - 1) / buffer_bytes * buffer_bytes; /* a region is of whole pages */
    int error = xsk_umem__create(&xdp->umem, region->base, bytes, &xdp->fill, &xdp->completed, &config);
    if (error != 0)
        return error;
    take_buffers(xdp, buffer_bytes);
    refill(
        xdp); /* from when it is bound the queue receives into these, also what is the kernel's, long before the first round */
    return bind_queue(xdp, zero_copy);
}

/* After a mode that the driver has not, or when who has used it is gone. */
static void start_anew(struct afxdp_port *xdp)
{
    struct nmio_region *region = xdp->port.region;
    for (uint32_t i = 0; i < region->buffer_count; i++)
        if (region->in_flight[i] != NMIO_FREE)
            nmio_release(region, i);
    xsk_umem__delete(xdp->umem);
    *xdp = (struct afxdp_port){.port = xdp->port, .place = xdp->place}; /* the library takes its rings to be zeroed */
}

/* In zero-copy mode a buffer to receive into is a page, whatever the chunks: the kernel keeps 256 bytes of it, and of what is left some
 * drivers use whole kilobytes only (igb, igc, ixgbe with an 82599). So 2,048 bytes would lose all frames of more than 1,024. */
static int open_either(struct afxdp_port *xdp, bool *zero_copy)
{
    *zero_copy = true;
    int error = open_socket(xdp, (uint32_t)sysconf(_SC_PAGESIZE), true);
    if (error == 0 || error == -EBUSY)
        return error;
    if (xdp->umem != NULL)
        start_anew(xdp);
    *zero_copy = false;
    return open_socket(xdp, xdp->port.region->chunk_bytes, false);
}

/* Frames come to the socket from now on. */
static int attach(struct afxdp_port *xdp, bool zero_copy)
{
    struct nmio_tx *tx = xdp->port.tx;
    xdp->port.fd = xsk_socket__fd(xdp->socket);
    fcntl(xdp->port.fd, F_SETFD, FD_CLOEXEC); /* as libxdp does not: one that stayed would keep its queue */
    xdp->rx_flags = zero_copy ? 0 : NMIO_RX_CHECKSUM_MAY_BE_PARTIAL;
    tx->space = AFXDP_TX_RING < tx->capacity ? AFXDP_TX_RING : tx->capacity;
    return nmio_filter_socket(xdp->place.filter, xdp->place.queue, xdp->port.fd);
}

/* With another socket: what was in the rings of the one before is lost, as if the link had lost it. */
static int afxdp_reopen(struct nmio_port *base)
{
    struct afxdp_port *xdp = (struct afxdp_port *)base;
    bool zero_copy = (xdp->rx_flags & NMIO_RX_CHECKSUM_MAY_BE_PARTIAL) == 0;
    uint32_t buffer_bytes = xdp->buffer_bytes;
    xsk_socket__delete(xdp->socket);
    start_anew(xdp);
    xdp->port.fd = -1;
    int error = open_socket(xdp, buffer_bytes, zero_copy);
    return error == 0 ? attach(xdp, zero_copy) : error;
}

static const struct nmio_port_ops afxdp_ops = {"afxdp",    afxdp_input, afxdp_release, afxdp_output,
                                               afxdp_wait, afxdp_close, afxdp_reopen};

int afxdp_open(struct nmio_port **port, struct nmio_filter *filter, const char *ifname, uint32_t queue,
               struct nmio_region *region, struct nmio_tx *tx, bool *zero_copy)
{
    if (region->chunk_bytes > (uint32_t)sysconf(_SC_PAGESIZE))
        return -EINVAL;
    struct afxdp_port *xdp = nmio_alloc(sizeof(*xdp));
    if (xdp == NULL)
        return -ENOMEM;
    xdp->port = (struct nmio_port){.ops = &afxdp_ops, .region = region, .tx = tx, .gather_max = 1, .fd = -1};
    xdp->place = (struct afxdp_place){.filter = filter, .ifindex = if_nametoindex(ifname), .queue = queue};
    int error = open_either(xdp, zero_copy);
    if (error == 0)
        error = attach(xdp, *zero_copy);
    if (error != 0) {
        afxdp_close(&xdp->port);
        return error;
    }
    *port = &xdp->port;
    return 0;
}

#else /* built without libxdp, libbpf or clang */

int afxdp_open(struct nmio_port **port, struct nmio_filter *filter, const char *ifname, uint32_t queue,
               struct nmio_region *region, struct nmio_tx *tx, bool *zero_copy)
{
    (void)port, (void)filter, (void)ifname, (void)queue, (void)region, (void)tx, (void)zero_copy;
    return -ENOSYS;
}

#endif
