/* The AF_XDP port: one socket for a queue, over the region as UMEM; and the XDP program that feeds the sockets. */
#ifndef SANDSTORM_AFXDP_H
#define SANDSTORM_AFXDP_H

#include "nmio.h"

struct afxdp_filter;

/* Was the extension built with libxdp, libbpf and clang at hand? */
bool afxdp_built(void);

/* Loads the XDP program and attaches it to an interface, in the driver if that can, else generic (*native says which).
 * The kernel detaches it when this process is gone, however it ends. Returns 0, or -errno; -ENOSYS: not built. */
int afxdp_filter_open(struct afxdp_filter **filter, int ifindex, uint16_t tcp_port, bool own_address, bool *native);
/* Adds one of our addresses: 4 or 16 bytes in network order. 0 or -errno. */
int afxdp_filter_address(struct afxdp_filter *filter, const uint8_t *address, uint32_t len_bytes);
void afxdp_filter_close(struct afxdp_filter *filter);

/* Binds a socket to a queue; *zero_copy says how. checksum_ok: frames from a local sender, whose checksums are not
 * finished, are taken as they are. Returns 0, or -errno; -EINVAL: the chunks are larger than a page. */
int afxdp_open(struct nmio_port **port, struct afxdp_filter *filter, const char *ifname, uint32_t queue,
               bool checksum_ok, struct nmio_region *region, struct nmio_tx *tx, bool *zero_copy);

#endif
