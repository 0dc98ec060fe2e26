/* How large a connection's segments are: as its path and the peer's window allow. */
#ifndef SANDSTORM_SEGMENT_SIZE_H
#define SANDSTORM_SEGMENT_SIZE_H

#include "state.h"

/* Sets snd_mss; call it when mss or snd_wnd_max have changed. */
void segment_size_set(struct tcb *tcb);
/* Smaller segments from now on; what is in flight from a position on may have been too large and is sent again. False: they were
 * no larger. */
bool segment_size_shrink(struct tcpip *tcpip, struct tcb *tcb, uint32_t mtu_bytes, uint64_t from);
/* The interface's MTU is smaller now: so are the segments of all connections. */
void segment_size_interface(struct tcpip *tcpip);
/* Several timeouts in a row: perhaps large segments vanish without a word (RFC 2923). Tries smaller ones. */
void segment_size_black_hole(struct tcpip *tcpip, struct tcb *tcb);

#endif
