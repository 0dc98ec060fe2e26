/* Runs of ACKs. A client that is sent a burst acknowledges every second segment of it, so several ACKs of a connection come in a
 * batch. What an ACK says the next one says too, and nothing is sent before the whole batch has been taken. So all but the last
 * are left out, as if the network had lost them, for which TCP is made (RFC 9293 section 3.8.6.3).
 *
 * Only segments of the usual form are looked at: IPv4 without options, or IPv6; no TCP options but aligned timestamps, as
 * RFC 7323 appendix A has them. So what carries SACK blocks is always taken, and so is an ACK that repeats another.
 *
 * A frame stands for others only once its checksums have been found right, or a damaged one would take good ones with it. So
 * the last of a run is verified, and no other; then tcp_input need not do it again. */
#ifndef SANDSTORM_ACK_COALESCE_H
#define SANDSTORM_ACK_COALESCE_H

#include "libeth/eth.h"

/* Which frames of a batch of up to 64 are ACKs without data that a later one of it supersedes, and so need not be taken: bit i for
 * frame i. Sets NMIO_RX_CHECKSUM_OK where it has verified one. */
uint64_t ack_coalesce(const struct eth *own, struct nmio_rx *batch, uint32_t count);

#endif
