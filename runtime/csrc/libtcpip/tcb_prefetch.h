/* With more connections than caches hold, a segment's TCB is fetched while others before it are taken. */
#ifndef SANDSTORM_TCB_PREFETCH_H
#define SANDSTORM_TCB_PREFETCH_H

#include "state.h"

/* For a frame that may hold a segment of ours: begins to fetch its connection's entry in the table, and returns its hash (0: nothing
 * is fetched), with which a moment later the TCB is, and the data. */
struct tcpip_prefetch tcp_prefetch_entry(const struct tcpip *tcpip, const struct nmio_rx *rx);
void tcp_prefetch_tcb(const struct tcpip *tcpip, uint64_t hash);

#endif
