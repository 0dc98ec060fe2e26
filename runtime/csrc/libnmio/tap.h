/* The TAP port: frames to and from this machine's kernel, superframes included. */
#ifndef SANDSTORM_TAP_H
#define SANDSTORM_TAP_H

#include "nmio.h"

/* Opens queue number n of a TAP device, which is made by the first and gone with the last. name: at most 15 bytes. fd: of a queue that is
 * open already, which the port closes in the end; or -1. *port is set. Returns 0, or -errno; -EBADF: fd is of something else. */
int tap_open(struct nmio_port **port, const char *name, bool multi_queue, int fd, struct nmio_region *region,
             struct nmio_tx *tx, uint32_t gather_max);

#endif
