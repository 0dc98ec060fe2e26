/* The AF_XDP port: one socket for a queue, over the region as UMEM, that an XDP program feeds. */
#ifndef SANDSTORM_AFXDP_H
#define SANDSTORM_AFXDP_H

#include "filter.h"
#include "nmio.h"

/* Binds a socket to a queue; *zero_copy says how. checksum_ok: frames from a local sender, whose checksums are not
 * finished, are taken as they are. Returns 0, or -errno; -EINVAL: the chunks are larger than a page. */
int afxdp_open(struct nmio_port **port, struct nmio_filter *filter, const char *ifname, uint32_t queue,
               bool checksum_ok, struct nmio_region *region, struct nmio_tx *tx, bool *zero_copy);

#endif
