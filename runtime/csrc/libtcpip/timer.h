/* Timers: one wheel a stack, one entry a connection. A deadline that moves later costs nothing: the entry stays where
 * it is and is put back when it comes up early. */
#ifndef SANDSTORM_TIMER_H
#define SANDSTORM_TIMER_H

#include <stdint.h>

#define TIMER_TICK_US 1000
#define TIMER_BUCKETS 4096 /* about four seconds; what is due later comes up and is put back */

struct stack;
struct tcb;

struct timer_wheel {
    uint64_t tick; /* all buckets before it have run */
    uint32_t first[TIMER_BUCKETS];
    uint64_t used[TIMER_BUCKETS / 64]; /* bit set: the bucket is not empty */
};

void timer_init(struct timer_wheel *wheel, uint64_t now_us);
/* Takes over the TCB's deadlines; call after one was set, cheap if it moved later. */
void timer_update(struct stack *stack, struct tcb *tcb);
void timer_remove(struct stack *stack, struct tcb *tcb);
/* Calls tcpip_timeout for every connection that is due. */
void timer_run(struct stack *stack);
/* When timer_run has something to do; UINT64_MAX: nothing. */
uint64_t timer_next_us(const struct timer_wheel *wheel);

#endif
