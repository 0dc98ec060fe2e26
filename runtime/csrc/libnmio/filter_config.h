/* What the programs of filter.bpf.c and their loader share. */
#ifndef SANDSTORM_FILTER_CONFIG_H
#define SANDSTORM_FILTER_CONFIG_H

#include <linux/types.h>

#define FILTER_QUEUES 64
#define FILTER_ADDRESSES 64

struct filter_config {
    __u16 tcp_port;    /* host byte order */
    __u16 own_address; /* all that is for our addresses is ours: ARP, neighbour discovery, ICMP, every TCP port */
};

#endif
