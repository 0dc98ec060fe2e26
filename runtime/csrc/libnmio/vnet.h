/* What TAP and AF_PACKET share: virtio-net headers, which carry superframes and unfinished checksums, and the
 * synchronous way of sending, in which nothing stays in flight. */
#ifndef SANDSTORM_VNET_H
#define SANDSTORM_VNET_H

#include <linux/virtio_net.h>
#include <sys/uio.h>

#include "nmio.h"

#define VNET_RX_BYTES 65600 /* the largest packet from a local sender: 64 KiB and its Ethernet header */
#define VNET_IOVECS (2 + NMIO_PIECES_MAX)

/* The header of a frame or superframe. */
void vnet_header(const struct nmio_tx_desc *desc, struct virtio_net_hdr *header);

/* NMIO_RX_* flags from a received header. */
uint32_t vnet_rx_flags(const struct virtio_net_hdr *header);

/* Header, frame and pieces as they are written. Returns the number of iovecs; *len_bytes: without the header. */
int vnet_gather(const struct nmio_tx *tx, const struct nmio_tx_desc *desc, struct virtio_net_hdr *header,
                struct iovec *iov, uint32_t *len_bytes);

/* Gives back what a descriptor held. */
void vnet_release(struct nmio_port *port, const struct nmio_tx_desc *desc);

/* Drops the first done descriptors of tx and sets its space. */
void vnet_done(struct nmio_port *port, uint32_t done);

/* Waits for a descriptor or wake_fd; see nmio_port_ops.wait. */
int vnet_wait(struct nmio_port *port, int fd, int64_t timeout_ns, int wake_fd);

#endif
