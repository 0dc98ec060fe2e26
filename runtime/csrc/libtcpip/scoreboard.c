#include "scoreboard.h"

#include <string.h>

#include "seq.h"
#include "tcb.h"

#define MERGE_US 500 /* bursts closer than this, or than an eighth of the RTT, are one run */

static void erase(struct tcb *tcb, uint32_t at, uint32_t count)
{
    tcb->run_count = (uint8_t)(tcb->run_count - count);
    memmove(&tcb->runs[at], &tcb->runs[at + count], (tcb->run_count - at) * sizeof(tcb->runs[0]));
}

/* Makes run at and the one behind it one; of the later time, so that nothing is taken for lost too early. */
static void merge(struct tcb *tcb, uint32_t at)
{
    struct tcp_run *run = &tcb->runs[at];
    run->end = run[1].end;
    if (seq_lt(run->sent_us, run[1].sent_us))
        run->sent_us = run[1].sent_us;
    erase(tcb, at + 1, 1);
}

/* Room for one run more: merges the two neighbours of equal fate that were sent closest together. Where fates alternate
 * all along, a SACK is forgotten: that run is then sent again in vain. */
static void make_room(struct tcb *tcb)
{
    uint32_t best = UINT32_MAX, best_apart = UINT32_MAX;
    for (uint32_t i = 0; i + 1 < tcb->run_count; i++) {
        uint32_t apart = tcb->runs[i + 1].sent_us - tcb->runs[i].sent_us;
        apart = (int32_t)apart < 0 ? 0 - apart : apart;
        if (tcb->runs[i].flags == tcb->runs[i + 1].flags && apart <= best_apart) {
            best = i;
            best_apart = apart;
        }
    }
    if (best != UINT32_MAX) {
        merge(tcb, best);
        return;
    }
    /* The highest: holes low down are what recovery is about. */
    uint32_t sacked = tcb->run_count - 2u;
    if ((tcb->runs[sacked].flags & RUN_SACKED) == 0)
        sacked--;
    tcb->runs[sacked].flags = tcb->runs[sacked + 1].flags;
    merge(tcb, sacked);
}

/* Splits a run at a position inside of it; the position then is run at + 1's start. Indices below at are kept. */
static void split(struct tcb *tcb, uint32_t at, uint32_t position)
{
    memmove(&tcb->runs[at + 1], &tcb->runs[at], (tcb->run_count - at) * sizeof(tcb->runs[0]));
    tcb->run_count++;
    tcb->runs[at].end = position;
    tcb->runs[at + 1].start = position;
}

void scoreboard_sent(struct tcb *tcb, uint32_t start, uint32_t end, uint32_t now_us)
{
    if (tcb->run_count > 0) {
        struct tcp_run *last = &tcb->runs[tcb->run_count - 1];
        uint32_t close = tcb->srtt_us / 8 > MERGE_US ? tcb->srtt_us / 8 : MERGE_US;
        if (last->flags == 0 && now_us - last->sent_us <= close) {
            last->end = end;
            last->sent_us = now_us;
            return;
        }
    }
    if (tcb->run_count == TCB_RUNS)
        make_room(tcb);
    tcb->runs[tcb->run_count++] = (struct tcp_run){start, end, now_us, 0};
}

void scoreboard_resent(struct tcb *tcb, uint32_t start, uint32_t end, uint32_t now_us)
{
    if (tcb->run_count + 1 > TCB_RUNS)
        make_room(tcb);
    for (uint32_t i = 0; i < tcb->run_count; i++) {
        struct tcp_run *run = &tcb->runs[i];
        if (seq_leq(run->end, start) || (run->flags & RUN_LOST) == 0)
            continue;
        if (seq_lt(end, run->end))
            split(tcb, i, end);
        tcb->runs[i].sent_us = now_us;
        tcb->runs[i].flags = RUN_RESENT;
        if (i > 0 && tcb->runs[i - 1].flags == RUN_RESENT && now_us - tcb->runs[i - 1].sent_us <= MERGE_US)
            merge(tcb, i - 1);
        return;
    }
}

/* A run has arrived. */
static void deliver(struct tcb *tcb, const struct tcp_run *run, uint32_t bytes, struct delivery *delivery)
{
    bool resent = (run->flags & RUN_RESENT) != 0;
    bool later = delivery->bytes == 0 || seq_lt(delivery->sent_us, run->sent_us) ||
                 (delivery->sent_us == run->sent_us && seq_lt(delivery->end, run->end));
    if (!resent && seq_lt(run->end, tcb->rack_fack))
        delivery->reordered = true;
    if (seq_lt(tcb->rack_fack, run->end))
        tcb->rack_fack = run->end;
    if (later) {
        delivery->sent_us = run->sent_us;
        delivery->end = run->end;
        delivery->resent = resent;
    }
    delivery->bytes += bytes;
}

void scoreboard_acked(struct tcb *tcb, uint32_t ack, struct delivery *delivery)
{
    uint32_t gone = 0;
    for (; gone < tcb->run_count && seq_lt(tcb->runs[gone].start, ack); gone++) {
        struct tcp_run *run = &tcb->runs[gone];
        bool whole = seq_leq(run->end, ack);
        struct tcp_run part = *run;
        part.end = whole ? run->end : ack;
        if ((run->flags & RUN_SACKED) == 0)
            deliver(tcb, &part, part.end - part.start, delivery);
        if (!whole) {
            run->start = ack;
            break;
        }
    }
    erase(tcb, 0, gone);
}

void scoreboard_sacked(struct tcb *tcb, uint32_t start, uint32_t end, struct delivery *delivery)
{
    while (tcb->run_count + 2 > TCB_RUNS)
        make_room(tcb);
    for (uint32_t i = 0; i < tcb->run_count && seq_lt(tcb->runs[i].start, end); i++) {
        if (seq_leq(tcb->runs[i].end, start) || (tcb->runs[i].flags & RUN_SACKED) != 0)
            continue;
        if (seq_lt(tcb->runs[i].start, start)) {
            split(tcb, i, start);
            continue;
        }
        if (seq_lt(end, tcb->runs[i].end))
            split(tcb, i, end);
        struct tcp_run *run = &tcb->runs[i];
        deliver(tcb, run, run->end - run->start, delivery);
        run->flags = RUN_SACKED;
    }
    for (uint32_t i = 0; i + 1 < tcb->run_count;) {
        if ((tcb->runs[i].flags & tcb->runs[i + 1].flags & RUN_SACKED) != 0)
            merge(tcb, i);
        else
            i++;
    }
}

void scoreboard_lose(struct tcb *tcb, uint32_t start, uint32_t end)
{
    while (tcb->run_count + 2 > TCB_RUNS)
        make_room(tcb);
    for (uint32_t i = 0; i < tcb->run_count && seq_lt(tcb->runs[i].start, end); i++) {
        if (seq_leq(tcb->runs[i].end, start) || (tcb->runs[i].flags & (RUN_SACKED | RUN_LOST)) != 0)
            continue;
        if (seq_lt(tcb->runs[i].start, start)) {
            split(tcb, i, start);
            continue;
        }
        if (seq_lt(end, tcb->runs[i].end))
            split(tcb, i, end);
        tcb->runs[i].flags |= RUN_LOST;
    }
}

void scoreboard_lose_all(struct tcb *tcb)
{
    if (tcb->run_count == 0)
        return;
    uint32_t last = tcb->run_count - 1u;
    tcb->runs[0].end = tcb->runs[last].end;
    tcb->runs[0].sent_us = tcb->runs[last].sent_us;
    tcb->runs[0].flags = RUN_LOST;
    tcb->run_count = 1;
}

void scoreboard_unlose(struct tcb *tcb)
{
    for (uint32_t i = 0; i < tcb->run_count; i++)
        tcb->runs[i].flags &= ~(uint32_t)RUN_LOST;
}

uint32_t scoreboard_pipe(const struct tcb *tcb)
{
    uint32_t bytes = 0;
    for (uint32_t i = 0; i < tcb->run_count; i++)
        if ((tcb->runs[i].flags & (RUN_SACKED | RUN_LOST)) == 0)
            bytes += tcb->runs[i].end - tcb->runs[i].start;
    return bytes;
}

const struct tcp_run *scoreboard_lost(const struct tcb *tcb)
{
    for (uint32_t i = 0; i < tcb->run_count; i++)
        if ((tcb->runs[i].flags & RUN_LOST) != 0)
            return &tcb->runs[i];
    return NULL;
}

uint32_t scoreboard_sacked_bytes(const struct tcb *tcb)
{
    uint32_t bytes = 0;
    for (uint32_t i = 0; i < tcb->run_count; i++)
        if ((tcb->runs[i].flags & RUN_SACKED) != 0)
            bytes += tcb->runs[i].end - tcb->runs[i].start;
    return bytes;
}
