/* The TAP port: frames to and from this machine's kernel, superframes included. */
#ifndef SANDSTORM_TAP_H
#define SANDSTORM_TAP_H

#include "nmio.h"

/* Opens queue number n of a TAP device, which is made by the first and gone with the last. name: at most 15 bytes.
 * *port is set. Returns 0, or -errno. */
int tap_open(struct nmio_port **port, const char *name, bool multi_queue, struct nmio_region *region,
             struct nmio_tx *tx, uint32_t gather_max);

#endif
