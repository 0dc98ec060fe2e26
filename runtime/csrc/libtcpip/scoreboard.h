/* What is in flight: runs of bytes that were sent at about the same time and share a fate. Sorted, adjacent, together
 * [snd_una, snd_nxt). Bounded: when there is no room, neighbours are merged in the direction that at worst sends
 * something twice. Times are the low 32 bits of microseconds, positions the low 32 bits, as on the wire. */
#ifndef SANDSTORM_SCOREBOARD_H
#define SANDSTORM_SCOREBOARD_H

#include <stdbool.h>
#include <stdint.h>

#define RUN_SACKED 1 /* the peer has it, RFC 2018 */
#define RUN_LOST 2 /* to be sent again */
#define RUN_RESENT 4 /* has been sent again */

struct tcp_run {
    uint32_t start, end; /* [start, end) */
    uint32_t sent_us; /* last time; of merged ones the latest */
    uint32_t flags;
};

struct tcb;

/* What an acknowledgement newly says has arrived. */
struct delivery {
    uint32_t bytes;
    uint32_t sent_us; /* of the run sent last among them; valid if bytes > 0 */
    uint32_t end; /* and its end */
    bool resent; /* and whether it had been sent again */
    bool reordered; /* one never sent again arrived after one sent later */
};

/* New data has been sent. */
void scoreboard_sent(struct tcb *tcb, uint32_t start, uint32_t end, uint32_t now_us);
/* [start, end) at the beginning of a lost run has been sent again. */
void scoreboard_resent(struct tcb *tcb, uint32_t start, uint32_t end, uint32_t now_us);
/* All below ack has arrived. */
void scoreboard_acked(struct tcb *tcb, uint32_t ack, struct delivery *delivery);
/* The peer holds [start, end). */
void scoreboard_sacked(struct tcb *tcb, uint32_t start, uint32_t end, struct delivery *delivery);
/* Marks [start, end) lost, what is not SACKed of it. */
void scoreboard_lose(struct tcb *tcb, uint32_t start, uint32_t end);
/* After a timeout: everything is to be sent again; SACKs may have been taken back (RFC 2018 section 8). */
void scoreboard_lose_all(struct tcb *tcb);
/* Takes back all marks of loss. */
void scoreboard_unlose(struct tcb *tcb);
/* Bytes in flight by RFC 8985's reckoning: neither SACKed nor lost. */
uint32_t scoreboard_pipe(const struct tcb *tcb);
/* The first lost run, or NULL. */
const struct tcp_run *scoreboard_lost(const struct tcb *tcb);
/* Bytes that the peer holds beyond snd_una. */
uint32_t scoreboard_sacked_bytes(const struct tcb *tcb);

#endif
