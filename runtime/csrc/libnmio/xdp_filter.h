/* What the XDP program and its loader share. */
#ifndef SANDSTORM_XDP_FILTER_H
#define SANDSTORM_XDP_FILTER_H

#include <linux/types.h>

#define XDP_FILTER_QUEUES 64
#define XDP_FILTER_ADDRESSES 64

struct xdp_filter_config {
    __u16 tcp_port;    /* host byte order */
    __u16 own_address; /* all that is for our addresses is ours: ARP, neighbour discovery, ICMP, every TCP port */
};

#endif
