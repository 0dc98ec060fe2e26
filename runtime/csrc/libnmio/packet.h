/* The AF_PACKET port: an existing interface, through the kernel's packet sockets with virtio-net headers. */
#ifndef SANDSTORM_PACKET_H
#define SANDSTORM_PACKET_H

#include "nmio.h"

/* Takes TCP to tcp_port; own_address: ARP and ICMP too, and all TCP. Returns 0, or -errno. */
int packet_open(struct nmio_port **port, int ifindex, uint16_t tcp_port, bool own_address, struct nmio_region *region,
                struct nmio_tx *tx, uint32_t gather_max);

#endif
