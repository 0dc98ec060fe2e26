#include "scoreboard.h"

#include <string.h>

#include "wire/seq.h"

#define MERGE_US 500 /* what is sent within this, or within a sixteenth of the RTT, is one run */

/* Connections that may have a large scoreboard at once; the others make do with the few runs of their TCB. */
static uint32_t boards_of(uint32_t max_connections)
{
    uint32_t share = max_connections / 64;
    return share > 16 ? share : 16;
}

void scoreboards_lay_out(struct scoreboards *boards, struct layout *layout, uint32_t max_connections)
{
    uint32_t count = boards_of(max_connections);
    boards->runs = layout_take(layout, (size_t)count * SCOREBOARD_RUNS * sizeof(*boards->runs));
    boards->free = layout_take(layout, count * sizeof(*boards->free));
}

void scoreboards_init(struct scoreboards *boards, uint32_t max_connections)
{
    boards->free_count = boards_of(max_connections);
    for (uint32_t i = 0; i < boards->free_count; i++)
        boards->free[i] = i;
}

void scoreboard_init(struct tcb *tcb)
{
    tcb->runs = tcb->few_runs;
    tcb->run_capacity = TCB_RUNS;
    tcb->board = TCB_NONE;
}

static void move_runs(struct tcb *tcb, struct tcp_run *to, uint32_t capacity)
{
    memcpy(to, tcb->runs, tcb->run_count * sizeof(*to));
    tcb->runs = to;
    tcb->run_capacity = (uint16_t)capacity;
}

/* A larger board, while there are any. */
static bool grow(struct scoreboards *boards, struct tcb *tcb)
{
    if (tcb->board != TCB_NONE || boards->free_count == 0)
        return false;
    tcb->board = boards->free[--boards->free_count];
    move_runs(tcb, boards->runs + (size_t)tcb->board * SCOREBOARD_RUNS, SCOREBOARD_RUNS);
    return true;
}

void scoreboard_release(struct scoreboards *boards, struct tcb *tcb)
{
    if (tcb->board == TCB_NONE)
        return;
    boards->free[boards->free_count++] = tcb->board;
    tcb->board = TCB_NONE;
}

/* The bytes of a run, or of a part of one, are counted by its fate no more. */
static void uncount(struct tcb *tcb, const struct tcp_run *run)
{
    uint32_t bytes = run->end - run->start;
    tcb->sacked_bytes -= (run->flags & RUN_SACKED) != 0 ? bytes : 0;
    tcb->lost_bytes -= (run->flags & RUN_LOST) != 0 ? bytes : 0;
}

static void set_flags(struct tcb *tcb, uint32_t at, uint32_t flags)
{
    struct tcp_run *run = &tcb->runs[at];
    uint32_t bytes = run->end - run->start;
    uncount(tcb, run);
    run->flags = flags;
    tcb->sacked_bytes += (flags & RUN_SACKED) != 0 ? bytes : 0;
    tcb->lost_bytes += (flags & RUN_LOST) != 0 ? bytes : 0;
    if ((flags & RUN_LOST) != 0 && at < tcb->lost_first)
        tcb->lost_first = (uint16_t)at;
}

/* The first run that ends beyond a position; run_count: there is none. */
static uint32_t find(const struct tcb *tcb, uint32_t position)
{
    uint32_t low = 0, high = tcb->run_count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (seq_leq(tcb->runs[middle].end, position))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void erase(struct tcb *tcb, uint32_t at, uint32_t count)
{
    if (count == 0)
        return;
    tcb->run_count = (uint16_t)(tcb->run_count - count);
    if (tcb->run_count > at)
        memmove(&tcb->runs[at], &tcb->runs[at + count], (tcb->run_count - at) * sizeof(tcb->runs[0]));
    if (tcb->lost_first > at)
        tcb->lost_first = (uint16_t)(tcb->lost_first > at + count ? tcb->lost_first - count : at);
}

/* A run takes up the one behind it. */
static void absorb(struct tcp_run *run, const struct tcp_run *next)
{
    run->end = next->end;
    if (seq_lt(next->first_us, run->first_us))
        run->first_us = next->first_us;
    if (seq_lt(run->last_us, next->last_us))
        run->last_us = next->last_us;
}

/* Makes the runs from first to last one; they have one fate. */
static void merge_to(struct tcb *tcb, uint32_t first, uint32_t last)
{
    for (uint32_t i = first + 1; i <= last; i++)
        absorb(&tcb->runs[first], &tcb->runs[i]);
    erase(tcb, first + 1, last - first);
}

/* Makes run at and the one behind it one. */
static void merge(struct tcb *tcb, uint32_t at)
{
    merge_to(tcb, at, at + 1);
}

/* How long the sending of two neighbours took in all. */
static uint32_t spread_us(const struct tcp_run *run)
{
    uint32_t first_us = seq_lt(run[1].first_us, run->first_us) ? run[1].first_us : run->first_us;
    uint32_t last_us = seq_lt(run->last_us, run[1].last_us) ? run[1].last_us : run->last_us;
    return last_us - first_us;
}

/* The highest SACKed run, or 0. */
static uint32_t highest_sacked(const struct tcb *tcb)
{
    uint32_t at = tcb->run_count - 1u;
    while (at > 0 && (tcb->runs[at].flags & RUN_SACKED) == 0)
        at--;
    return at;
}

/* No two neighbours share a fate. A SACK is forgotten, that of the highest run, as holes low down are what recovery is
 * about; its bytes share its neighbour's fate, and at worst are sent again in vain. */
static void merge_unlike(struct tcb *tcb)
{
    uint32_t at = highest_sacked(tcb);
    at = at + 1u < tcb->run_count ? at : at - 1;
    uint32_t flags = (tcb->runs[at].flags | tcb->runs[at + 1].flags) & ~(uint32_t)RUN_SACKED;
    set_flags(tcb, at, flags);
    set_flags(tcb, at + 1, flags);
    merge(tcb, at);
    if (at + 1u < tcb->run_count && tcb->runs[at + 1].flags == flags)
        merge(tcb, at);
    if (at > 0 && tcb->runs[at - 1].flags == flags)
        merge(tcb, at - 1);
}

/* Merges the two neighbours of equal fate that were sent closest together; in a large board all that were sent about as close,
 * so that it is not walked for each of them. False: there are none. */
static bool merge_closest(struct tcb *tcb)
{
    uint32_t best = UINT32_MAX, best_us = UINT32_MAX, count = 1;
    for (uint32_t i = 0; i + 1u < tcb->run_count; i++) {
        uint32_t us = tcb->runs[i].flags == tcb->runs[i + 1].flags ? spread_us(&tcb->runs[i]) : UINT32_MAX;
        if (us <= best_us && us != UINT32_MAX) {
            best = i;
            best_us = us;
        }
    }
    tcb->runs_packed = best == UINT32_MAX;
    if (tcb->runs_packed)
        return false;
    if (tcb->board == TCB_NONE) {
        merge(tcb, best);
        return true;
    }
    for (uint32_t i = 1; i < tcb->run_count; i++) {
        struct tcp_run pair[2] = {tcb->runs[count - 1], tcb->runs[i]};
        if (pair[0].flags == pair[1].flags && spread_us(pair) <= 2 * best_us + MERGE_US)
            absorb(&tcb->runs[count - 1], &pair[1]);
        else
            tcb->runs[count++] = pair[1];
    }
    tcb->run_count = (uint16_t)count;
    tcb->lost_first = 0;
    return true;
}

/* Room for so many runs more. Where it can be had only by forgetting a SACK, one at or above the position is not worth it:
 * false. */
static bool make_room(struct scoreboards *boards, struct tcb *tcb, uint32_t count, uint32_t position)
{
    while (tcb->run_count + count > tcb->run_capacity) {
        if (grow(boards, tcb) || (!tcb->runs_packed && merge_closest(tcb)))
            continue;
        if (!seq_lt(position, tcb->runs[highest_sacked(tcb)].start))
            return false;
        merge_unlike(tcb);
    }
    return true;
}

/* Splits a run at a position inside of it; the position then is run at + 1's start. Indices below at are kept. */
static void split(struct tcb *tcb, uint32_t at, uint32_t position)
{
    memmove(&tcb->runs[at + 1], &tcb->runs[at], (tcb->run_count - at) * sizeof(tcb->runs[0]));
    tcb->run_count++;
    tcb->runs[at].end = position;
    tcb->runs[at + 1].start = position;
}

/* The next run from at on that has bytes in [start, end) and none of some flags, cut so that all of it is in there; run_count:
 * there is none. There must be room for two runs more. */
static inline uint32_t next_inside(struct tcb *tcb, uint32_t at, uint32_t start, uint32_t end, uint32_t but_flags)
{
    while (at < tcb->run_count && seq_lt(tcb->runs[at].start, end) && (tcb->runs[at].flags & but_flags) != 0)
        at++;
    if (at == tcb->run_count || !seq_lt(tcb->runs[at].start, end))
        return tcb->run_count;
    if (seq_lt(tcb->runs[at].start, start))
        split(tcb, at++, start);
    if (seq_lt(end, tcb->runs[at].end))
        split(tcb, at, end);
    return at;
}

void scoreboard_sent(struct tcb *tcb, uint32_t start, uint32_t end, uint32_t now_us)
{
    if (tcb->run_count > 0) {
        struct tcp_run *last = &tcb->runs[tcb->run_count - 1];
        uint32_t close_us = tcb->srtt_us / 16 > MERGE_US ? tcb->srtt_us / 16 : MERGE_US;
        if (last->flags == 0 && now_us - last->first_us <= close_us) {
            last->end = end;
            last->last_us = now_us;
            return;
        }
    }
    /* Nothing may be lost, so no larger board is taken for it: coarser times will do. */
    if (tcb->run_count == tcb->run_capacity && !merge_closest(tcb))
        merge_unlike(tcb);
    tcb->runs_packed = false;
    tcb->runs[tcb->run_count++] = (struct tcp_run){start, end, now_us, now_us, 0};
}

void scoreboard_resent(struct scoreboards *boards, struct tcb *tcb, uint32_t start, uint32_t end, uint32_t now_us)
{
    make_room(boards, tcb, 1, (uint32_t)tcb->snd_una - 1);
    tcb->runs_packed = false;
    for (uint32_t i = find(tcb, start); i < tcb->run_count; i++) {
        struct tcp_run *run = &tcb->runs[i];
        if ((run->flags & RUN_LOST) == 0)
            continue;
        if (seq_lt(end, run->end))
            split(tcb, i, end);
        run->first_us = run->last_us = now_us;
        set_flags(tcb, i, RUN_RESENT);
        if (i > 0 && run[-1].flags == RUN_RESENT && now_us - run[-1].first_us <= MERGE_US)
            merge(tcb, i - 1);
        return;
    }
}

/* A run has arrived, or a part of one. */
static void deliver(struct tcb *tcb, const struct tcp_run *run, struct delivery *delivery)
{
    bool resent = (run->flags & RUN_RESENT) != 0;
    delivery->bytes += run->end - run->start;
    delivery->any_resent = delivery->any_resent || resent;
    if (!resent && seq_lt(run->end, tcb->rack_fack))
        delivery->reordered = true;
    if (seq_lt(delivery->fack, run->end))
        delivery->fack = run->end; /* for the next ACK: what one tells together is in no order */
    /* Perhaps what came is the first sending, RFC 8985 section 6.2 step 2. */
    if (resent && (delivery->echo_old || delivery->now_us - run->first_us < tcb->min_rtt_us))
        return;
    struct sending sending = {run->first_us, run->end, resent};
    if (!delivery->timed || scoreboard_after(&sending, &delivery->latest))
        delivery->latest = sending;
    delivery->timed = true;
}

void scoreboard_acked(struct scoreboards *boards, struct tcb *tcb, uint32_t ack, struct delivery *delivery)
{
    uint32_t gone = 0;
    for (; gone < tcb->run_count && seq_lt(tcb->runs[gone].start, ack); gone++) {
        struct tcp_run *run = &tcb->runs[gone];
        bool whole = seq_leq(run->end, ack);
        struct tcp_run part = *run;
        part.end = whole ? run->end : ack;
        if ((run->flags & RUN_SACKED) == 0)
            deliver(tcb, &part, delivery);
        if ((run->flags & (RUN_SACKED | RUN_LOST)) != 0)
            uncount(tcb, &part);
        if (!whole) {
            run->start = ack;
            break;
        }
    }
    erase(tcb, 0, gone);
    if (tcb->board != TCB_NONE && tcb->run_count <= TCB_RUNS / 2) {
        move_runs(tcb, tcb->few_runs, TCB_RUNS);
        scoreboard_release(boards, tcb);
    }
}

void scoreboard_sacked(struct scoreboards *boards, struct tcb *tcb, uint32_t start, uint32_t end,
                       struct delivery *delivery)
{
    uint32_t first = find(tcb, start);
    if (first == tcb->run_count || ((tcb->runs[first].flags & RUN_SACKED) != 0 && seq_leq(end, tcb->runs[first].end)))
        return; /* as most blocks: it has been said before */
    if (!make_room(boards, tcb, 2, start))
        return; /* it is told again when there is room */
    first = find(tcb, start);
    uint32_t last = first; /* of those that are SACKed now */
    for (uint32_t i = first; (i = next_inside(tcb, i, start, end, RUN_SACKED)) < tcb->run_count; last = i++) {
        deliver(tcb, &tcb->runs[i], delivery);
        set_flags(tcb, i, RUN_SACKED);
    }
    if ((tcb->runs[first].flags & RUN_SACKED) == 0)
        first++; /* its beginning, which was cut off */
    while (first > 0 && (tcb->runs[first - 1].flags & RUN_SACKED) != 0)
        first--;
    while (last + 1u < tcb->run_count && (tcb->runs[last + 1].flags & RUN_SACKED) != 0)
        last++;
    merge_to(tcb, first, last);
}

void scoreboard_lose(struct scoreboards *boards, struct tcb *tcb, uint32_t start, uint32_t end)
{
    make_room(boards, tcb, 2, (uint32_t)tcb->snd_una - 1);
    uint32_t i = find(tcb, start);
    for (; (i = next_inside(tcb, i, start, end, RUN_SACKED | RUN_LOST)) < tcb->run_count; i++)
        scoreboard_lose_run(tcb, i);
}

void scoreboard_lose_run(struct tcb *tcb, uint32_t at)
{
    tcb->runs_packed = false;
    set_flags(tcb, at, tcb->runs[at].flags | RUN_LOST);
}

void scoreboard_lose_all(struct tcb *tcb)
{
    /* What the peer holds at snd_una it would acknowledge, had it not taken it back. */
    bool taken_back = tcb->run_count > 0 && (tcb->runs[0].flags & RUN_SACKED) != 0;
    uint32_t kept = taken_back ? 0 : RUN_SACKED, count = 0;
    for (uint32_t i = 0; i < tcb->run_count; i++) {
        if ((tcb->runs[i].flags & kept) == 0)
            set_flags(tcb, i, (tcb->runs[i].flags & ~(uint32_t)RUN_SACKED) | RUN_LOST);
        if (count > 0 && tcb->runs[count - 1].flags == tcb->runs[i].flags)
            absorb(&tcb->runs[count - 1], &tcb->runs[i]);
        else
            tcb->runs[count++] = tcb->runs[i];
    }
    tcb->run_count = (uint16_t)count;
    tcb->lost_first = 0;
}

void scoreboard_unlose(struct tcb *tcb)
{
    for (uint32_t i = 0; i < tcb->run_count; i++)
        tcb->runs[i].flags &= ~(uint32_t)RUN_LOST;
    tcb->runs_packed = false;
    tcb->lost_bytes = 0;
}

const struct tcp_run *scoreboard_next_lost(struct tcb *tcb)
{
    while (tcb->lost_first < tcb->run_count && (tcb->runs[tcb->lost_first].flags & RUN_LOST) == 0)
        tcb->lost_first++;
    return &tcb->runs[tcb->lost_first];
}
