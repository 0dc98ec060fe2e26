/* The AF_XDP port: one socket for a queue, over the region as UMEM, that an XDP program feeds. */
#ifndef SANDSTORM_AFXDP_H
#define SANDSTORM_AFXDP_H

#include "filter.h"
#include "nmio.h"

/* Descriptors of the ring that a queue receives by, and so frames that come in a burst before they are looked at:
 * clients by the thousand acknowledge their answers at once. Each needs a buffer of the region, in zero-copy mode as many as
 * fill a page; a fifth of them stays for what is sent. */
#define AFXDP_RX_RING 8192

/* Binds a socket to a queue; *zero_copy says how. Without, frames may come from a local sender, whose checksums are not
 * finished, and nothing says so (NMIO_RX_CHECKSUM_MAY_BE_PARTIAL). Returns 0, or -errno; -EINVAL: the chunks are larger
 * than a page. */
int afxdp_open(struct nmio_port **port, struct nmio_filter *filter, const char *ifname, uint32_t queue,
               struct nmio_region *region, struct nmio_tx *tx, bool *zero_copy);

#endif
