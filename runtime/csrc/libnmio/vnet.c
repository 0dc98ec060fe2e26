#define _GNU_SOURCE
#include "vnet.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#define TCP_CHECKSUM_OFFSET 16 /* in the TCP header */

void vnet_header(const struct nmio_tx_desc *desc, struct virtio_net_hdr *header)
{
    memset(header, 0, sizeof(*header));
    if (!desc->checksum_partial)
        return;
    header->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    header->csum_start = desc->l4_offset;
    header->csum_offset = TCP_CHECKSUM_OFFSET;
    header->hdr_len = (uint16_t)desc->head_bytes;
    if (desc->gso_bytes != 0) {
        header->gso_type = desc->ipv6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4;
        header->gso_size = desc->gso_bytes;
    }
}

uint32_t vnet_rx_flags(const struct virtio_net_hdr *header)
{
    const uint8_t sure = VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID;
    return (header->flags & sure) != 0 ? NMIO_RX_CHECKSUM_OK : 0;
}

int vnet_gather(const struct nmio_tx *tx, const struct nmio_tx_desc *desc, struct virtio_net_hdr *header,
                struct iovec *iov, uint32_t *len_bytes)
{
    vnet_header(desc, header);
    iov[0] = (struct iovec){header, sizeof(*header)};
    iov[1] = (struct iovec){desc->head, desc->head_bytes};
    *len_bytes = desc->head_bytes;
    for (uint32_t i = 0; i < desc->piece_count; i++) {
        const struct nmio_piece *piece = &tx->piece[desc->first_piece + i];
        iov[2 + i] = (struct iovec){(void *)(uintptr_t)piece->data, piece->len_bytes};
        *len_bytes += piece->len_bytes;
    }
    return 2 + desc->piece_count;
}

void vnet_release(struct nmio_port *port, const struct nmio_tx_desc *desc)
{
    nmio_release(port->region, desc->chunk);
    for (uint32_t i = 0; i < desc->piece_count; i++) {
        uint32_t chunk = port->tx->piece[desc->first_piece + i].chunk;
        if (chunk != NMIO_NONE)
            nmio_release(port->region, chunk);
    }
}

void vnet_done(struct nmio_port *port, uint32_t done)
{
    struct nmio_tx *tx = port->tx;
    nmio_tx_taken(tx, done);
    if (tx->count == 0)
        tx->piece_count = 0;
    tx->space = tx->capacity - tx->count;
}

int vnet_wait(struct nmio_port *port, int fd, int64_t timeout_ns, int wake_fd)
{
    struct pollfd fds[2] = {{.fd = fd, .events = POLLIN}, {.fd = wake_fd, .events = POLLIN}};
    if (port->tx->count > 0)
        fds[0].events |= POLLOUT;
    struct timespec limit = {timeout_ns / 1000000000, timeout_ns % 1000000000};
    if (ppoll(fds, 2, timeout_ns < 0 ? NULL : &limit, NULL) < 0 && errno != EINTR)
        return -errno;
    return (fds[0].revents & (POLLERR | POLLNVAL | POLLHUP)) != 0 && (fds[0].revents & POLLIN) == 0 ? -ENETDOWN : 0;
}
