/* BPF programs that an interface's frames meet on their way to the kernel, and that tell ours from its own (filter.bpf.c).
 * The kernel detaches them when this process is gone, however it ends. */
#ifndef SANDSTORM_FILTER_H
#define SANDSTORM_FILTER_H

#include "nmio.h"

struct nmio_filter;

/* Was the extension built with libxdp, libbpf and clang at hand? */
bool nmio_filter_built(void);

/* Gives what is ours to AF_XDP sockets; in the driver if that can, else generic (*native says which). Returns 0, or
 * -errno; -ENOSYS: not built. */
int nmio_filter_xdp(struct nmio_filter **filter, int ifindex, uint16_t tcp_port, bool own_address, bool *native);
/* Ends the way of what is ours once packet sockets have had their copy, so that the kernel's IP and TCP need not look at it to
 * find it is for nobody. Returns 0, or -errno; -EINVAL before Linux 6.6, -ENOSYS: not built. */
int nmio_filter_tcx(struct nmio_filter **filter, int ifindex, uint16_t tcp_port, bool own_address);
/* To take the place of a program that another build of ours has attached, with no moment without one: when it has all addresses,
 * nmio_filter_attach does it. link_fd: as the other's nmio_filter_link; the filter's from then on. xdp: it is one of XDP, else of
 * tcx. Return 0, or -errno; -EBADF: the link is of something else. */
int nmio_filter_replace(struct nmio_filter **filter, int link_fd, bool xdp, int ifindex, uint16_t tcp_port,
                        bool own_address);
int nmio_filter_attach(struct nmio_filter *filter);
/* The descriptor that keeps it attached. */
int nmio_filter_link(const struct nmio_filter *filter);
/* Adds one of our addresses, from the next frame on: 4 or 16 bytes in network order. 0, or -ENOSPC: there are FILTER_ADDRESSES of its
 * family already. */
int nmio_filter_address(struct nmio_filter *filter, const uint8_t *address, uint32_t len_bytes);
/* Takes one away again; 0 if it was not there. */
int nmio_filter_forget(struct nmio_filter *filter, const uint8_t *address, uint32_t len_bytes);
/* The AF_XDP socket of a receive queue. 0 or -errno. */
int nmio_filter_socket(struct nmio_filter *filter, uint32_t queue, int socket_fd);
void nmio_filter_close(struct nmio_filter *filter);

#endif
