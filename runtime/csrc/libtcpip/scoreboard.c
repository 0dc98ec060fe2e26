#include "scoreboard.h"

#include <string.h>

#include "libnmio/invariant.h"
#include "wire/seq.h"

/* That may have a large scoreboard at once; the others make do with the few ranges of their TCB. */
#define CONNECTIONS_PER_BOARD 64
#define MERGE_US 500 /* what is sent within this, or within a sixteenth of the RTT, is one range */

void overflow_scoreboards_lay_out(struct overflow_scoreboards *boards, struct layout *layout,
                                  uint32_t max_connections)
{
    uint32_t count = index_pool_share(max_connections, CONNECTIONS_PER_BOARD);
    boards->ranges = layout_take(layout, (size_t)count * SCOREBOARD_RANGES * sizeof(*boards->ranges));
    index_pool_lay_out(&boards->pool, layout, count);
}

void overflow_scoreboards_init(struct overflow_scoreboards *boards)
{
    index_pool_init(&boards->pool);
}

void scoreboard_init(struct tcb *tcb)
{
    tcb->ranges = tcb->few_ranges;
    tcb->range_capacity = TCB_RANGES;
    tcb->overflow = TCB_NONE;
}

static void move_ranges(struct tcb *tcb, struct sent_range *to, uint32_t capacity)
{
    memcpy(to, tcb->ranges, tcb->range_count * sizeof(*to));
    tcb->ranges = to;
    tcb->range_capacity = (uint16_t)capacity;
}

/* A larger board, while there are any. */
static bool grow(struct overflow_scoreboards *boards, struct tcb *tcb)
{
    if (tcb->overflow != TCB_NONE || boards->pool.free_count == 0)
        return false;
    tcb->overflow = boards->pool.free[--boards->pool.free_count];
    move_ranges(tcb, boards->ranges + (size_t)tcb->overflow * SCOREBOARD_RANGES, SCOREBOARD_RANGES);
    return true;
}

void scoreboard_release(struct overflow_scoreboards *boards, struct tcb *tcb)
{
    if (tcb->overflow == TCB_NONE)
        return;
    INVARIANT(boards->pool.free_count < boards->pool.count);
    boards->pool.free[boards->pool.free_count++] = tcb->overflow;
    tcb->overflow = TCB_NONE;
}

/* Sorted, adjacent, none empty, and counted by their states. */
static bool is_whole(const struct tcb *tcb)
{
    uint32_t sacked_bytes = 0, lost_bytes = 0;
    for (uint32_t i = 0; i < tcb->range_count; i++) {
        const struct sent_range *range = &tcb->ranges[i];
        if (!seq_lt(range->start, range->end) || (i > 0 && range[-1].end != range->start))
            return false;
        sacked_bytes += (range->flags & RANGE_SACKED) != 0 ? range->end - range->start : 0;
        lost_bytes += (range->flags & RANGE_LOST) != 0 ? range->end - range->start : 0;
    }
    return tcb->range_count <= tcb->range_capacity && sacked_bytes == tcb->sacked_bytes &&
           lost_bytes == tcb->lost_bytes;
}

/* The bytes of a range, or of a part of one, are counted by its state no more. */
static void uncount(struct tcb *tcb, const struct sent_range *range)
{
    uint32_t bytes = range->end - range->start;
    tcb->sacked_bytes -= (range->flags & RANGE_SACKED) != 0 ? bytes : 0;
    tcb->lost_bytes -= (range->flags & RANGE_LOST) != 0 ? bytes : 0;
}

static void set_flags(struct tcb *tcb, uint32_t at, uint32_t flags)
{
    struct sent_range *range = &tcb->ranges[at];
    uint32_t bytes = range->end - range->start;
    uncount(tcb, range);
    range->flags = flags;
    tcb->sacked_bytes += (flags & RANGE_SACKED) != 0 ? bytes : 0;
    tcb->lost_bytes += (flags & RANGE_LOST) != 0 ? bytes : 0;
    if ((flags & RANGE_LOST) != 0 && at < tcb->lost_first)
        tcb->lost_first = (uint16_t)at;
}

/* The first range that ends beyond a position; range_count: there is none. */
static uint32_t find(const struct tcb *tcb, uint32_t position)
{
    uint32_t low = 0, high = tcb->range_count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (seq_leq(tcb->ranges[middle].end, position))
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
    tcb->range_count = (uint16_t)(tcb->range_count - count);
    if (tcb->range_count > at)
        memmove(&tcb->ranges[at], &tcb->ranges[at + count], (tcb->range_count - at) * sizeof(tcb->ranges[0]));
    if (tcb->lost_first > at)
        tcb->lost_first = (uint16_t)(tcb->lost_first > at + count ? tcb->lost_first - count : at);
}

/* A range takes up the one behind it. */
static void absorb(struct sent_range *range, const struct sent_range *next)
{
    range->end = next->end;
    if (seq_lt(next->first_us, range->first_us))
        range->first_us = next->first_us;
    if (seq_lt(range->last_us, next->last_us))
        range->last_us = next->last_us;
}

/* Makes the ranges from first to last one; they have one state. */
static void merge_to(struct tcb *tcb, uint32_t first, uint32_t last)
{
    for (uint32_t i = first + 1; i <= last; i++)
        absorb(&tcb->ranges[first], &tcb->ranges[i]);
    erase(tcb, first + 1, last - first);
}

/* Makes range at and the one behind it one. */
static void merge(struct tcb *tcb, uint32_t at)
{
    merge_to(tcb, at, at + 1);
}

/* How long the sending of two neighbours took in all. */
static uint32_t spread_us(const struct sent_range *range)
{
    uint32_t first_us = seq_lt(range[1].first_us, range->first_us) ? range[1].first_us : range->first_us;
    uint32_t last_us = seq_lt(range->last_us, range[1].last_us) ? range[1].last_us : range->last_us;
    return last_us - first_us;
}

/* The highest SACKed range, or 0. */
static uint32_t highest_sacked(const struct tcb *tcb)
{
    uint32_t at = tcb->range_count - 1u;
    while (at > 0 && (tcb->ranges[at].flags & RANGE_SACKED) == 0)
        at--;
    return at;
}

/* No two neighbours share a state. A SACK is forgotten, that of the highest range, as holes low down are what recovery is
 * about; its bytes share its neighbour's state, and at worst are sent again in vain. */
static void merge_unlike(struct tcb *tcb)
{
    uint32_t at = highest_sacked(tcb);
    at = at + 1u < tcb->range_count ? at : at - 1;
    uint32_t flags = (tcb->ranges[at].flags | tcb->ranges[at + 1].flags) & ~(uint32_t)RANGE_SACKED;
    set_flags(tcb, at, flags);
    set_flags(tcb, at + 1, flags);
    merge(tcb, at);
    if (at + 1u < tcb->range_count && tcb->ranges[at + 1].flags == flags)
        merge(tcb, at);
    if (at > 0 && tcb->ranges[at - 1].flags == flags)
        merge(tcb, at - 1);
}

/* Merges the two neighbours of equal state that were sent closest together; in a large board all that were sent about as close,
 * so that it is not walked for each of them. False: there are none. */
static bool merge_closest(struct tcb *tcb)
{
    uint32_t best = UINT32_MAX, best_us = UINT32_MAX, count = 1;
    for (uint32_t i = 0; i + 1u < tcb->range_count; i++) {
        uint32_t us = tcb->ranges[i].flags == tcb->ranges[i + 1].flags ? spread_us(&tcb->ranges[i]) : UINT32_MAX;
        if (us <= best_us && us != UINT32_MAX) {
            best = i;
            best_us = us;
        }
    }
    tcb->ranges_packed = best == UINT32_MAX;
    if (tcb->ranges_packed)
        return false;
    if (tcb->overflow == TCB_NONE) {
        merge(tcb, best);
        return true;
    }
    for (uint32_t i = 1; i < tcb->range_count; i++) {
        struct sent_range pair[2] = {tcb->ranges[count - 1], tcb->ranges[i]};
        if (pair[0].flags == pair[1].flags && spread_us(pair) <= 2 * best_us + MERGE_US)
            absorb(&tcb->ranges[count - 1], &pair[1]);
        else
            tcb->ranges[count++] = pair[1];
    }
    tcb->range_count = (uint16_t)count;
    tcb->lost_first = 0;
    return true;
}

/* Room for so many ranges more. Where it can be had only by forgetting a SACK, one at or above the position is not worth it:
 * false. */
static bool make_room(struct overflow_scoreboards *boards, struct tcb *tcb, uint32_t count, uint32_t position)
{
    while (tcb->range_count + count > tcb->range_capacity) {
        if (grow(boards, tcb) || (!tcb->ranges_packed && merge_closest(tcb)))
            continue;
        if (!seq_lt(position, tcb->ranges[highest_sacked(tcb)].start))
            return false;
        merge_unlike(tcb);
    }
    return true;
}

/* Splits a range at a position inside of it; the position then is range at + 1's start. Indices below at are kept. */
static void split(struct tcb *tcb, uint32_t at, uint32_t position)
{
    memmove(&tcb->ranges[at + 1], &tcb->ranges[at], (tcb->range_count - at) * sizeof(tcb->ranges[0]));
    tcb->range_count++;
    tcb->ranges[at].end = position;
    tcb->ranges[at + 1].start = position;
}

/* The next range from at on that has bytes in [start, end) and none of some flags, cut so that all of it is in there; range_count:
 * there is none. There must be room for two ranges more. */
static inline uint32_t next_inside(struct tcb *tcb, uint32_t at, uint32_t start, uint32_t end, uint32_t but_flags)
{
    while (at < tcb->range_count && seq_lt(tcb->ranges[at].start, end) && (tcb->ranges[at].flags & but_flags) != 0)
        at++;
    if (at == tcb->range_count || !seq_lt(tcb->ranges[at].start, end))
        return tcb->range_count;
    if (seq_lt(tcb->ranges[at].start, start))
        split(tcb, at++, start);
    if (seq_lt(end, tcb->ranges[at].end))
        split(tcb, at, end);
    return at;
}

void scoreboard_sent(struct tcb *tcb, uint32_t start, uint32_t end, uint32_t now_us)
{
    if (tcb->range_count > 0) {
        struct sent_range *last = &tcb->ranges[tcb->range_count - 1];
        uint32_t close_us = tcb->srtt_us / 16 > MERGE_US ? tcb->srtt_us / 16 : MERGE_US;
        if (last->flags == 0 && now_us - last->first_us <= close_us) {
            last->end = end;
            last->last_us = now_us;
            INVARIANT(is_whole(tcb));
            return;
        }
    }
    /* Nothing may be lost, so no larger board is taken for it: coarser times will do. */
    if (tcb->range_count == tcb->range_capacity && !merge_closest(tcb))
        merge_unlike(tcb);
    tcb->ranges_packed = false;
    tcb->ranges[tcb->range_count++] = (struct sent_range){start, end, now_us, now_us, 0};
    INVARIANT(is_whole(tcb));
}

void scoreboard_resent(struct overflow_scoreboards *boards, struct tcb *tcb, uint32_t start, uint32_t end,
                       uint32_t now_us)
{
    make_room(boards, tcb, 1, (uint32_t)tcb->snd_una - 1);
    tcb->ranges_packed = false;
    for (uint32_t i = find(tcb, start); i < tcb->range_count; i++) {
        struct sent_range *range = &tcb->ranges[i];
        if ((range->flags & RANGE_LOST) == 0)
            continue;
        if (seq_lt(end, range->end))
            split(tcb, i, end);
        range->first_us = range->last_us = now_us;
        set_flags(tcb, i, RANGE_RESENT);
        if (i > 0 && range[-1].flags == RANGE_RESENT && now_us - range[-1].first_us <= MERGE_US)
            merge(tcb, i - 1);
        break;
    }
    INVARIANT(is_whole(tcb));
}

/* A range has arrived, or a part of one. */
static void deliver(struct tcb *tcb, const struct sent_range *range, struct delivery *delivery)
{
    bool resent = (range->flags & RANGE_RESENT) != 0;
    delivery->bytes += range->end - range->start;
    delivery->any_resent = delivery->any_resent || resent;
    if (!resent && seq_lt(range->end, tcb->rack_fack))
        delivery->reordered = true;
    if (seq_lt(delivery->fack, range->end))
        delivery->fack = range->end; /* for the next ACK: what one tells together is in no order */
    /* Perhaps what came is the first sending, RFC 8985 section 6.2 step 2. */
    if (resent && (delivery->echo_old || delivery->now_us - range->first_us < tcb->min_rtt_us))
        return;
    struct sending sending = {range->first_us, range->end, resent};
    if (!delivery->timed || scoreboard_after(&sending, &delivery->latest))
        delivery->latest = sending;
    delivery->timed = true;
}

void scoreboard_acked(struct overflow_scoreboards *boards, struct tcb *tcb, uint32_t ack, struct delivery *delivery)
{
    uint32_t gone = 0;
    for (; gone < tcb->range_count && seq_lt(tcb->ranges[gone].start, ack); gone++) {
        struct sent_range *range = &tcb->ranges[gone];
        bool whole = seq_leq(range->end, ack);
        struct sent_range part = *range;
        part.end = whole ? range->end : ack;
        if ((range->flags & RANGE_SACKED) == 0)
            deliver(tcb, &part, delivery);
        if ((range->flags & (RANGE_SACKED | RANGE_LOST)) != 0)
            uncount(tcb, &part);
        if (!whole) {
            range->start = ack;
            break;
        }
    }
    erase(tcb, 0, gone);
    if (tcb->overflow != TCB_NONE && tcb->range_count <= TCB_RANGES / 2) {
        move_ranges(tcb, tcb->few_ranges, TCB_RANGES);
        scoreboard_release(boards, tcb);
    }
    INVARIANT(is_whole(tcb));
}

void scoreboard_sacked(struct overflow_scoreboards *boards, struct tcb *tcb, uint32_t start, uint32_t end,
                       struct delivery *delivery)
{
    uint32_t first = find(tcb, start);
    if (first == tcb->range_count ||
        ((tcb->ranges[first].flags & RANGE_SACKED) != 0 && seq_leq(end, tcb->ranges[first].end)))
        return; /* as most blocks: it has been said before */
    if (!make_room(boards, tcb, 2, start))
        return; /* it is told again when there is room */
    first = find(tcb, start);
    uint32_t last = first; /* of those that are SACKed now */
    for (uint32_t i = first; (i = next_inside(tcb, i, start, end, RANGE_SACKED)) < tcb->range_count; last = i++) {
        deliver(tcb, &tcb->ranges[i], delivery);
        set_flags(tcb, i, RANGE_SACKED);
    }
    if ((tcb->ranges[first].flags & RANGE_SACKED) == 0)
        first++; /* its beginning, which was cut off */
    while (first > 0 && (tcb->ranges[first - 1].flags & RANGE_SACKED) != 0)
        first--;
    while (last + 1u < tcb->range_count && (tcb->ranges[last + 1].flags & RANGE_SACKED) != 0)
        last++;
    merge_to(tcb, first, last);
    INVARIANT(is_whole(tcb));
}

void scoreboard_lose(struct overflow_scoreboards *boards, struct tcb *tcb, uint32_t start, uint32_t end)
{
    make_room(boards, tcb, 2, (uint32_t)tcb->snd_una - 1);
    uint32_t i = find(tcb, start);
    for (; (i = next_inside(tcb, i, start, end, RANGE_SACKED | RANGE_LOST)) < tcb->range_count; i++)
        scoreboard_lose_range(tcb, i);
    INVARIANT(is_whole(tcb));
}

void scoreboard_lose_range(struct tcb *tcb, uint32_t at)
{
    tcb->ranges_packed = false;
    set_flags(tcb, at, tcb->ranges[at].flags | RANGE_LOST);
}

void scoreboard_lose_all(struct tcb *tcb)
{
    /* What the peer holds at snd_una it would acknowledge, had it not taken it back. */
    bool taken_back = tcb->range_count > 0 && (tcb->ranges[0].flags & RANGE_SACKED) != 0;
    uint32_t kept = taken_back ? 0 : RANGE_SACKED, count = 0;
    for (uint32_t i = 0; i < tcb->range_count; i++) {
        if ((tcb->ranges[i].flags & kept) == 0)
            set_flags(tcb, i, (tcb->ranges[i].flags & ~(uint32_t)RANGE_SACKED) | RANGE_LOST);
        if (count > 0 && tcb->ranges[count - 1].flags == tcb->ranges[i].flags)
            absorb(&tcb->ranges[count - 1], &tcb->ranges[i]);
        else
            tcb->ranges[count++] = tcb->ranges[i];
    }
    tcb->range_count = (uint16_t)count;
    tcb->lost_first = 0;
    INVARIANT(is_whole(tcb));
}

void scoreboard_unlose(struct tcb *tcb)
{
    for (uint32_t i = 0; i < tcb->range_count; i++)
        tcb->ranges[i].flags &= ~(uint32_t)RANGE_LOST;
    tcb->ranges_packed = false;
    tcb->lost_bytes = 0;
}

const struct sent_range *scoreboard_next_lost(struct tcb *tcb)
{
    while (tcb->lost_first < tcb->range_count && (tcb->ranges[tcb->lost_first].flags & RANGE_LOST) == 0)
        tcb->lost_first++;
    return &tcb->ranges[tcb->lost_first];
}
