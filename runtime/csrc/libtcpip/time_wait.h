/* What is remembered of connections that have ended: a table of its own, as they need no TCB any more. */
#ifndef SANDSTORM_TIME_WAIT_H
#define SANDSTORM_TIME_WAIT_H

#include "tcb.h"
#include "wire/layout.h"

/* How a connection has ended. */
enum tcp_ended {
    ENDED_BY_US, /* we closed first: TIME-WAIT, RFC 9293 section 3.6.1 */
    ENDED_BY_PEER, /* the peer closed first: its side has TIME-WAIT */
    ENDED_BY_RESET, /* ours or the peer's */
};

/* What is remembered of a connection that has ended, without a TCB: what TIME-WAIT needs; and of any connection as long as its
 * cookie is good, as what of it comes late may be its first segment, which would open it again. hash: tcb_hash of the
 * flow. */
struct time_wait {
    uint64_t hash;
    uint64_t expires_us; /* 0: unused */
    uint32_t snd_nxt, rcv_nxt, irs, ts_recent, ts_offset;
    uint32_t quiet_until_ms; /* no bare segment is answered before */
    bool timestamps;
    uint8_t ended; /* enum tcp_ended */
};
#define TIME_WAIT_WAYS 4

struct time_waits {
    struct time_wait *entries; /* [mask + 1][TIME_WAIT_WAYS] */
    uint32_t mask; /* of sets */
};

void time_waits_lay_out(struct time_waits *waits, struct layout *layout, uint32_t max_connections);
struct time_wait *time_wait_find(struct time_waits *waits, uint64_t now_us, uint64_t hash);
/* hash: tcb_hash of the connection's flow. */
void time_wait_add(struct time_waits *waits, uint64_t now_us, uint64_t hash, const struct tcb *tcb,
                   enum tcp_ended ended);
/* One that was remembered elsewhere. */
void time_wait_take(struct time_waits *waits, uint64_t now_us, const struct time_wait *wait);
/* TIME-WAIT begins again. */
void time_wait_restart(struct time_wait *wait, uint64_t now_us);

#endif
