/* What is in flight: ranges of bytes that were sent at about the same time and share a state. Sorted, adjacent, together
 * [snd_una, snd_nxt). A TCB has room for a few, which is enough while nothing is lost; losses take an overflow scoreboard from a
 * bounded pool and give it back. How many bytes share a state is counted as it changes. Where there is no room, neighbours are merged in the direction that at worst sends
 * something twice. Times are the low 32 bits of microseconds, positions the low 32 bits, as on the wire. */
#ifndef SANDSTORM_SCOREBOARD_H
#define SANDSTORM_SCOREBOARD_H

#include "index_pool.h"
#include "tcb.h"
#include "wire/layout.h"

/* What an acknowledgement newly says has arrived. */
struct delivery {
    uint32_t now_us; /* in; what is not starts as zero */
    uint32_t fack; /* in: the end of the highest that has arrived before; out: and now */
    bool echo_old; /* in: its timestamp is older than what has been sent again */
    bool timed; /* latest is known */
    bool any_resent; /* some of it had been sent again */
    bool reordered; /* something never sent again arrived after what was sent later */
    uint32_t bytes;
    struct sending
        latest; /* what was sent last of it; of a range its beginning, so that no RTT is taken for too small */
};

/* Was a sent after b? First sendings went out in the order of their positions. */
static inline bool scoreboard_after(const struct sending *a, const struct sending *b)
{
    if ((!a->resent && !b->resent) || a->sent_us == b->sent_us)
        return (int32_t)(a->end - b->end) > 0;
    return (int32_t)(a->sent_us - b->sent_us) > 0;
}

/* A bounded pool. */
struct overflow_scoreboards {
    struct sent_range *ranges; /* [][SCOREBOARD_RANGES] */
    struct index_pool pool;
};

/* Lays out those of so many connections; overflow_scoreboards_init makes all of them free. */
void overflow_scoreboards_lay_out(struct overflow_scoreboards *boards, struct layout *layout,
                                  uint32_t max_connections);
void overflow_scoreboards_init(struct overflow_scoreboards *boards);

void scoreboard_init(struct tcb *tcb);
/* Gives an overflow scoreboard back; the ranges are void. */
void scoreboard_release(struct overflow_scoreboards *boards, struct tcb *tcb);
/* New data has been sent. */
void scoreboard_sent(struct tcb *tcb, uint32_t start, uint32_t end, uint32_t now_us);
/* [start, end) at the beginning of a lost range has been sent again. */
void scoreboard_resent(struct overflow_scoreboards *boards, struct tcb *tcb, uint32_t start, uint32_t end,
                       uint32_t now_us);
/* All below ack has arrived. */
void scoreboard_acked(struct overflow_scoreboards *boards, struct tcb *tcb, uint32_t ack, struct delivery *delivery);
/* The peer holds [start, end). */
void scoreboard_sacked(struct overflow_scoreboards *boards, struct tcb *tcb, uint32_t start, uint32_t end,
                       struct delivery *delivery);
/* Marks [start, end) lost, what is not SACKed of it. */
void scoreboard_lose(struct overflow_scoreboards *boards, struct tcb *tcb, uint32_t start, uint32_t end);
/* After a timeout: all that is not SACKed is to be sent again; all of it, where SACKs have been taken back (RFC 2018
 * section 8). */
void scoreboard_lose_all(struct tcb *tcb);
/* Takes back all marks of loss. */
void scoreboard_unlose(struct tcb *tcb);
/* Range at is lost. */
void scoreboard_lose_range(struct tcb *tcb, uint32_t at);
/* The first lost range; there must be one (tcb->lost_bytes). */
const struct sent_range *scoreboard_next_lost(struct tcb *tcb);

#endif
