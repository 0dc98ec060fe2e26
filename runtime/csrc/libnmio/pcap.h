/* The replay port: what a capture holds comes in, what is sent goes to another. */
#ifndef SANDSTORM_PCAP_H
#define SANDSTORM_PCAP_H

#include "nmio.h"

/* Reads in_path (classic pcap, Ethernet) and writes out_path. Its input ends with -ENODATA when all is read. Returns 0,
 * -EINVAL if the capture is not Ethernet pcap, or -errno. */
int pcap_open(struct nmio_port **port, const char *in_path, const char *out_path, struct nmio_region *region,
              struct nmio_tx *tx);

#endif
