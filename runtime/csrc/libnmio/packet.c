#define _GNU_SOURCE
#include "packet.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/icmp.h>
#include <linux/icmpv6.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "region.h"
#include "vnet.h"

#define PACKET_BATCH 64
#define PACKET_BUFFER_BYTES (8 << 20)
/* The receive ring: what comes is mostly requests and ACKs, which fit; a longer frame waits in the socket's queue, whole. */
#define PACKET_FRAME_BYTES 2048
#define PACKET_FRAMES 4096
#define PACKET_BLOCK_BYTES (64 << 10)
#define PACKET_RING_BYTES ((size_t)PACKET_FRAMES * PACKET_FRAME_BYTES)

struct packet_port {
    struct nmio_port port;
    uint8_t *ring; /* [PACKET_FRAMES][PACKET_FRAME_BYTES], shared with the kernel */
    uint32_t next; /* frame of the ring to look at */
    uint8_t *rx; /* [PACKET_BATCH][VNET_RX_BYTES], for long frames */
};

static struct tpacket2_hdr *frame_at(const struct packet_port *packet, uint32_t place)
{
    return (struct tpacket2_hdr *)(packet->ring + (size_t)(place % PACKET_FRAMES) * PACKET_FRAME_BYTES);
}

/* The kernel may write there again. */
static void give_back(struct tpacket2_hdr *head)
{
    __atomic_store_n(&head->tp_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
}

/* Where a frame of the ring begins, with its virtio-net header in front; NULL: it is lost, as it was too long and the socket's
 * queue was full. */
static uint8_t *frame_bytes(struct packet_port *packet, struct tpacket2_hdr *head, uint32_t status, uint8_t *spare,
                            uint32_t *len_bytes)
{
    *len_bytes = head->tp_snaplen;
    if ((status & TP_STATUS_COPY) != 0) {
        ssize_t got = recv(packet->port.fd, spare, VNET_RX_BYTES, MSG_DONTWAIT);
        *len_bytes = (uint32_t)(got - (ssize_t)sizeof(struct virtio_net_hdr));
        return got >= (ssize_t)sizeof(struct virtio_net_hdr) ? spare : NULL;
    }
    return head->tp_snaplen == head->tp_len ? (uint8_t *)head + head->tp_mac - sizeof(struct virtio_net_hdr) : NULL;
}

static int packet_input(struct nmio_port *base, struct nmio_rx *batch, uint32_t max)
{
    struct packet_port *packet = (struct packet_port *)base;
    uint32_t count = 0;
    for (uint32_t looked = 0; looked < max && looked < PACKET_BATCH; looked++) {
        struct tpacket2_hdr *head = frame_at(packet, packet->next);
        uint32_t len_bytes, status = __atomic_load_n(&head->tp_status, __ATOMIC_ACQUIRE);
        if ((status & TP_STATUS_USER) == 0)
            break;
        packet->next++;
        uint8_t *at = frame_bytes(packet, head, status, packet->rx + (size_t)looked * VNET_RX_BYTES, &len_bytes);
        if (at == NULL) {
            base->counters.rx_dropped++;
            give_back(head);
            continue;
        }
        struct virtio_net_hdr header;
        memcpy(&header, at, sizeof(header));
        batch[count++] = (struct nmio_rx){.data = at + sizeof(header),
                                          .len_bytes = len_bytes,
                                          .flags = vnet_rx_flags(&header),
                                          .token = packet->next - 1};
        base->counters.rx_bytes += len_bytes;
    }
    base->counters.rx_frames += count;
    return (int)count;
}

static void packet_release(struct nmio_port *base, struct nmio_rx *batch, uint32_t count)
{
    const struct packet_port *packet = (struct packet_port *)base;
    for (uint32_t i = 0; i < count; i++)
        give_back(frame_at(packet, (uint32_t)batch[i].token));
}

/* One system call for up to PACKET_BATCH descriptors; the number sent, or -errno of the first. */
static int send_batch(struct packet_port *packet, uint32_t first)
{
    struct nmio_tx *tx = packet->port.tx;
    struct mmsghdr messages[PACKET_BATCH];
    struct virtio_net_hdr headers[PACKET_BATCH];
    struct iovec iov[PACKET_BATCH][VNET_IOVECS];
    uint32_t wanted = tx->count - first < PACKET_BATCH ? tx->count - first : PACKET_BATCH;
    for (uint32_t i = 0; i < wanted; i++) {
        uint32_t len_bytes;
        int iovecs = vnet_gather(tx, &tx->desc[first + i], &headers[i], iov[i], &len_bytes);
        messages[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = iov[i], .msg_iovlen = (size_t)iovecs}};
    }
    int sent = sendmmsg(packet->port.fd, messages, wanted, MSG_DONTWAIT);
    for (int i = 0; i < sent; i++)
        packet->port.counters.tx_bytes += messages[i].msg_len - sizeof(struct virtio_net_hdr);
    return sent < 0 ? -errno : sent;
}

static int packet_output(struct nmio_port *base)
{
    struct packet_port *packet = (struct packet_port *)base;
    struct nmio_tx *tx = base->tx;
    uint32_t done = 0;
    while (done < tx->count) {
        int sent = send_batch(packet, done);
        if (sent == -EAGAIN || sent == -EINTR || sent == -ENOBUFS)
            break;
        if (sent < 0) { /* this one can't go, or the interface is down: dropped, as a wire would */
            base->counters.tx_dropped++;
            vnet_release(base, &tx->desc[done++]);
            continue;
        }
        base->counters.tx_frames += (uint32_t)sent;
        for (int i = 0; i < sent; i++)
            vnet_release(base, &tx->desc[done++]);
    }
    vnet_done(base, done);
    return 0;
}

/* Takes the error away: that the interface is down is told once, and frames come again when it is up. */
static int socket_error(const struct packet_port *packet)
{
    int error = 0;
    socklen_t bytes = sizeof(error);
    if (getsockopt(packet->port.fd, SOL_SOCKET, SO_ERROR, &error, &bytes) < 0)
        return -errno;
    return error == ENETDOWN ? 0 : -error;
}

static int packet_wait(struct nmio_port *base, int64_t timeout_ns, int wake_fd)
{
    const struct packet_port *packet = (struct packet_port *)base;
    int error = vnet_wait(base, packet->port.fd, timeout_ns, wake_fd);
    return error == -ENETDOWN ? socket_error(packet) : error;
}

static void packet_close(struct nmio_port *base)
{
    struct packet_port *packet = (struct packet_port *)base;
    if (packet->ring != NULL)
        munmap(packet->ring, PACKET_RING_BYTES);
    if (packet->port.fd >= 0)
        close(packet->port.fd);
    if (packet->rx != NULL)
        munmap(packet->rx, (size_t)PACKET_BATCH * VNET_RX_BYTES);
    nmio_free(packet);
}

/* The kernel puts what comes where we read it, at no system call of ours. */
static int make_ring(struct packet_port *packet)
{
    int version = TPACKET_V2, one = 1;
    struct tpacket_req request = {.tp_block_size = PACKET_BLOCK_BYTES,
                                  .tp_block_nr = PACKET_RING_BYTES / PACKET_BLOCK_BYTES,
                                  .tp_frame_size = PACKET_FRAME_BYTES,
                                  .tp_frame_nr = PACKET_FRAMES};
    if (setsockopt(packet->port.fd, SOL_PACKET, PACKET_VERSION, &version, sizeof(version)) < 0 ||
        setsockopt(packet->port.fd, SOL_PACKET, PACKET_COPY_THRESH, &one, sizeof(one)) < 0 ||
        setsockopt(packet->port.fd, SOL_PACKET, PACKET_RX_RING, &request, sizeof(request)) < 0)
        return -errno;
    void *ring = mmap(NULL, PACKET_RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, packet->port.fd, 0);
    if (ring == MAP_FAILED)
        return -errno;
    packet->ring = ring;
    return 0;
}

/* Frames that wait there are lost, as if the link had lost them. */
static int packet_reopen(struct nmio_port *base)
{
    struct packet_port *packet = (struct packet_port *)base;
    struct tpacket_req none = {0};
    munmap(packet->ring, PACKET_RING_BYTES);
    packet->ring = NULL;
    packet->next = 0;
    if (setsockopt(packet->port.fd, SOL_PACKET, PACKET_RX_RING, &none, sizeof(none)) < 0)
        return -errno;
    return make_ring(packet);
}

static const struct nmio_port_ops packet_ops = {"packet",    packet_input, packet_release, packet_output,
                                                packet_wait, packet_close, packet_reopen};

/* What isn't ours is not copied to us: TCP to the port, and ICMP saying that a packet from the port was too big; in
 * own-address mode also ARP, all ICMP and TCP to any port. Offsets are those of Ethernet frames without VLAN tag: the kernel
 * has taken it off by then, and the frames stay with it unless the tag says VLAN 0, a priority. What has IPv6 extension
 * headers is copied to us whatever is behind them, as a filter can't follow a chain, and looked at by the stack. Places in the
 * program: */
enum {
    FILTER_TYPE = 5,
    FILTER_IPV4 = 9,
    FILTER_ICMP = 14,
    FILTER_IPV6 = 21,
    FILTER_ICMPV6 = 25,
    FILTER_EXTENSION = 32,
    FILTER_OWN = 36,
    FILTER_ACCEPT,
    FILTER_DROP
};
#define VLAN_ID_MASK 0xfff
#define LOAD(size, offset) BPF_STMT(BPF_LD | (size) | BPF_ABS, (uint32_t)(offset))
#define LOAD_BEHIND_IPV4(size, offset) BPF_STMT(BPF_LD | (size) | BPF_IND, (offset))
#define IF_EQUAL(at, value, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), (yes) - (at) - 1, (no) - (at) - 1)

/* long: a program, an instruction a line */
static int set_filter(int fd, uint16_t tcp_port, bool own_address)
{
    struct sock_filter code[] = {
        [0] = LOAD(BPF_W, SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT),
        [1] = IF_EQUAL(1, 0, FILTER_TYPE, 2),
        [2] = LOAD(BPF_W, SKF_AD_OFF + SKF_AD_VLAN_TAG),
        [3] = BPF_STMT(BPF_ALU | BPF_AND | BPF_K, VLAN_ID_MASK),
        [4] = IF_EQUAL(4, 0, FILTER_TYPE, FILTER_DROP),
        [FILTER_TYPE] = LOAD(BPF_H, 12),
        [6] = IF_EQUAL(6, ETH_P_IP, FILTER_IPV4, 7),
        [7] = IF_EQUAL(7, ETH_P_IPV6, FILTER_IPV6, 8),
        [8] = IF_EQUAL(8, ETH_P_ARP, FILTER_OWN, FILTER_DROP),
        [FILTER_IPV4] = LOAD(BPF_B, 23),
        [10] = BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, 14),
        [11] = IF_EQUAL(11, IPPROTO_TCP, 12, FILTER_ICMP),
        [12] = LOAD_BEHIND_IPV4(BPF_H, 16),
        [13] = IF_EQUAL(13, tcp_port, FILTER_ACCEPT, FILTER_OWN),
        [FILTER_ICMP] = IF_EQUAL(14, IPPROTO_ICMP, 15, FILTER_OWN),
        [15] = LOAD_BEHIND_IPV4(BPF_H, 14),
        [16] = IF_EQUAL(16, ICMP_DEST_UNREACH << 8 | ICMP_FRAG_NEEDED, 17, FILTER_OWN),
        [17] = LOAD_BEHIND_IPV4(BPF_B, 14 + 8 + 9), /* the protocol of the packet quoted */
        [18] = IF_EQUAL(18, IPPROTO_TCP, 19, FILTER_OWN),
        [19] = LOAD_BEHIND_IPV4(BPF_H, 14 + 8 + 20), /* and its source port: we send no IP options */
        [20] = IF_EQUAL(20, tcp_port, FILTER_ACCEPT, FILTER_OWN),
        [FILTER_IPV6] = LOAD(BPF_B, 20),
        [22] = IF_EQUAL(22, IPPROTO_TCP, 23, FILTER_ICMPV6),
        [23] = LOAD(BPF_H, 56),
        [24] = IF_EQUAL(24, tcp_port, FILTER_ACCEPT, FILTER_OWN),
        [FILTER_ICMPV6] = IF_EQUAL(25, IPPROTO_ICMPV6, 26, FILTER_EXTENSION),
        [26] = LOAD(BPF_B, 54),
        [27] = IF_EQUAL(27, ICMPV6_PKT_TOOBIG, 28, FILTER_OWN),
        [28] = LOAD(BPF_B, 54 + 8 + 6),
        [29] = IF_EQUAL(29, IPPROTO_TCP, 30, FILTER_OWN),
        [30] = LOAD(BPF_H, 54 + 8 + 40),
        [31] = IF_EQUAL(31, tcp_port, FILTER_ACCEPT, FILTER_OWN),
        [FILTER_EXTENSION] = IF_EQUAL(32, IPPROTO_HOPOPTS, FILTER_ACCEPT, 33),
        [33] = IF_EQUAL(33, IPPROTO_ROUTING, FILTER_ACCEPT, 34),
        [34] = IF_EQUAL(34, IPPROTO_DSTOPTS, FILTER_ACCEPT, 35),
        [35] = IF_EQUAL(35, IPPROTO_FRAGMENT, FILTER_ACCEPT, FILTER_OWN),
        [FILTER_OWN] = BPF_STMT(BPF_RET | BPF_K, own_address ? 0xffffffff : 0),
        [FILTER_ACCEPT] = BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
        [FILTER_DROP] = BPF_STMT(BPF_RET | BPF_K, 0),
    };
    struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0 ? -errno : 0;
}

/* Without CAP_NET_ADMIN as much as net.core.rmem_max and wmem_max allow. */
static void set_buffer(int fd, int force, int option)
{
    int bytes = PACKET_BUFFER_BYTES;
    if (setsockopt(fd, SOL_SOCKET, force, &bytes, sizeof(bytes)) < 0)
        setsockopt(fd, SOL_SOCKET, option, &bytes, sizeof(bytes));
}

static int packet_attach(struct packet_port *packet, int ifindex, uint16_t tcp_port, bool own_address)
{
    int one = 1;
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = ifindex};
    packet->port.fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (packet->port.fd < 0)
        return -errno;
    int error = set_filter(packet->port.fd, tcp_port, own_address);
    if (error != 0)
        return error;
    set_buffer(packet->port.fd, SO_RCVBUFFORCE, SO_RCVBUF);
    set_buffer(packet->port.fd, SO_SNDBUFFORCE, SO_SNDBUF);
    if (setsockopt(packet->port.fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof(one)) < 0 ||
        setsockopt(packet->port.fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one)) < 0)
        return -errno;
    error = make_ring(packet);
    if (error == 0 && bind(packet->port.fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        error = -errno;
    return error;
}

int packet_open(struct nmio_port **port, int ifindex, uint16_t tcp_port, bool own_address, struct nmio_region *region,
                struct nmio_tx *tx, uint32_t gather_max)
{
    struct packet_port *packet = nmio_alloc(sizeof(*packet));
    if (packet == NULL)
        return -ENOMEM;
    packet->port =
        (struct nmio_port){.ops = &packet_ops, .region = region, .tx = tx, .gather_max = gather_max, .fd = -1};
    packet->rx = mmap(NULL, (size_t)PACKET_BATCH * VNET_RX_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    int error = packet->rx == MAP_FAILED ? -ENOMEM : packet_attach(packet, ifindex, tcp_port, own_address);
    if (error != 0) {
        if (packet->rx == MAP_FAILED)
            packet->rx = NULL;
        packet_close(&packet->port);
        return error;
    }
    *port = &packet->port;
    return 0;
}
