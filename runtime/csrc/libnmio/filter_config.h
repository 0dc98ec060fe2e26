/* What the programs of filter.bpf.c and their loader share. */
#ifndef SANDSTORM_FILTER_CONFIG_H
#define SANDSTORM_FILTER_CONFIG_H

#include <linux/types.h>

#define FILTER_QUEUES 64
#define FILTER_ADDRESSES 64

/* As they are in packets. */
struct filter_ipv6 {
    __u32 words[4];
};

/* It lies in memory that the loader and the programs share, and changes while frames come. An address keeps its place for as long as it
 * is there, so whatever comes or goes beside it no frame for it is missed. They are compared one after the other: to look one up in a
 * hash map of the kernel's takes as many instructions as to pass by twenty-five. */
struct filter_config {
    __be16 tcp_port;
    __u16 own_address; /* all that is for our addresses is ours: ARP, neighbour discovery, ICMP, every TCP port */
    __u32 ipv4_places, ipv6_places; /* behind the last one that has been taken */
    __u32 ipv4[FILTER_ADDRESSES]; /* 0: an empty place */
    struct filter_ipv6 ipv6[FILTER_ADDRESSES]; /* zeros: an empty place */
};

#endif
