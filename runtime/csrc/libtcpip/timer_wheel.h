/* Timers: one wheel, one entry a connection. A deadline that moves later costs nothing: the entry stays where
 * it is and is put back when it comes up early. */
#ifndef SANDSTORM_TIMER_WHEEL_H
#define SANDSTORM_TIMER_WHEEL_H

#include "tcb.h"

#define TIMER_TICK_US 1000
#define TIMER_BUCKETS 4096 /* about four seconds; what is due later comes up and is put back */

struct timer_wheel {
    uint64_t tick; /* all buckets before it have run, or are the one that does */
    uint64_t next_us; /* of tick: nothing is due before, unless timer_pop has more to give */
    uint32_t bucket; /* that timer_pop takes from */
    struct tcb *tcbs; /* what the indices are of */
    uint32_t first[TIMER_BUCKETS];
    uint64_t used[TIMER_BUCKETS / 64]; /* bit set: the bucket is not empty */
};

void timer_init(struct timer_wheel *wheel, struct tcb *tcbs, uint64_t now_us);
/* Takes over the TCB's deadlines; call after one was set, cheap if it moved later. */
void timer_update(struct timer_wheel *wheel, struct tcb *tcb);
void timer_remove(struct timer_wheel *wheel, struct tcb *tcb);
/* Takes out the next connection that is due; NULL: none is. What is to be done then is the caller's. */
struct tcb *timer_pop(struct timer_wheel *wheel, uint64_t now_us);
/* Has timer_pop something to look at? After it has returned NULL there is nothing until the next tick. */
static inline bool timer_is_due(const struct timer_wheel *wheel, uint64_t now_us)
{
    return now_us >= wheel->next_us;
}
/* When timer_pop has something to do; UINT64_MAX: nothing. */
uint64_t timer_next_us(const struct timer_wheel *wheel);

#endif
