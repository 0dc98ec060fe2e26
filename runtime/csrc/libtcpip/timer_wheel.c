#include "timer_wheel.h"

void timer_init(struct timer_wheel *wheel, struct tcb *tcbs, uint64_t now_us)
{
    wheel->tcbs = tcbs;
    wheel->tick = now_us / TIMER_TICK_US;
    for (uint32_t b = 0; b < TIMER_BUCKETS; b++)
        wheel->first[b] = TCB_NONE;
}

static uint64_t deadline_of(const struct tcb *tcb)
{
    uint64_t deadline = tcb->idle_deadline_us;
    if (tcb->rto_deadline_us != 0 && tcb->rto_deadline_us < deadline)
        deadline = tcb->rto_deadline_us;
    return tcb->paced && tcb->pace_at_us < deadline ? tcb->pace_at_us : deadline;
}

static void wheel_insert(struct timer_wheel *wheel, struct tcb *tcb, uint64_t at_us)
{
    uint64_t tick = (at_us + TIMER_TICK_US - 1) / TIMER_TICK_US;
    if (tick < wheel->tick)
        tick = wheel->tick;
    if (tick - wheel->tick > TIMER_BUCKETS - 2) /* one turn further is the bucket that is taken from */
        tick = wheel->tick + TIMER_BUCKETS - 2;
    uint32_t bucket = (uint32_t)(tick % TIMER_BUCKETS);
    uint32_t index = (uint32_t)(tcb - wheel->tcbs);
    tcb->timer_at_us = tick * TIMER_TICK_US;
    tcb->timer_bucket = bucket;
    tcb->timer_previous = TCB_NONE;
    tcb->timer_next = wheel->first[bucket];
    if (tcb->timer_next != TCB_NONE)
        wheel->tcbs[tcb->timer_next].timer_previous = index;
    wheel->first[bucket] = index;
    wheel->used[bucket / 64] |= 1ull << (bucket % 64);
}

void timer_remove(struct timer_wheel *wheel, struct tcb *tcb)
{
    if (tcb->timer_at_us == 0)
        return;
    uint32_t bucket = tcb->timer_bucket;
    if (tcb->timer_previous != TCB_NONE)
        wheel->tcbs[tcb->timer_previous].timer_next = tcb->timer_next;
    else
        wheel->first[bucket] = tcb->timer_next;
    if (tcb->timer_next != TCB_NONE)
        wheel->tcbs[tcb->timer_next].timer_previous = tcb->timer_previous;
    if (wheel->first[bucket] == TCB_NONE)
        wheel->used[bucket / 64] &= ~(1ull << (bucket % 64));
    tcb->timer_at_us = 0;
}

void timer_update(struct timer_wheel *wheel, struct tcb *tcb)
{
    uint64_t deadline = deadline_of(tcb);
    if (tcb->timer_at_us != 0 && deadline + TIMER_TICK_US > tcb->timer_at_us)
        return; /* not in an earlier bucket */
    timer_remove(wheel, tcb);
    wheel_insert(wheel, tcb, deadline);
}

struct tcb *timer_pop(struct timer_wheel *wheel, uint64_t now_us)
{
    uint64_t now_tick = now_us / TIMER_TICK_US;
    if (now_tick > wheel->tick + TIMER_BUCKETS)
        wheel->tick = now_tick - TIMER_BUCKETS; /* after a long sleep one turn visits every bucket */
    for (;;) {
        uint32_t index = wheel->first[wheel->bucket];
        if (index == TCB_NONE) {
            if (wheel->tick > now_tick) {
                wheel->next_us = wheel->tick * TIMER_TICK_US;
                return NULL;
            }
            wheel->bucket = (uint32_t)(wheel->tick % TIMER_BUCKETS);
            wheel->tick++; /* what is put back now belongs to a later tick */
            continue;
        }
        struct tcb *tcb = &wheel->tcbs[index];
        /* Connections of a bucket have nothing to do with each other: each is cold. */
        if (tcb->timer_next != TCB_NONE)
            __builtin_prefetch(&wheel->tcbs[tcb->timer_next].timer_next, 1);
        timer_remove(wheel, tcb);
        uint64_t deadline = deadline_of(tcb);
        if (deadline <= now_us)
            return tcb;
        wheel_insert(wheel, tcb, deadline);
    }
}

uint64_t timer_next_us(const struct timer_wheel *wheel)
{
    /* The first word is looked at twice: its low bits belong to the end of the turn. */
    for (uint32_t step = 0; step < TIMER_BUCKETS + 64;) {
        uint32_t bucket = (uint32_t)((wheel->tick + step) % TIMER_BUCKETS);
        uint64_t word = wheel->used[bucket / 64] >> (bucket % 64);
        if (word != 0)
            return (wheel->tick + step + (uint32_t)__builtin_ctzll(word)) * TIMER_TICK_US;
        step += 64 - bucket % 64;
    }
    return UINT64_MAX;
}
