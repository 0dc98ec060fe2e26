/* The FIFO of connections that may have something to send. Deficit round robin (Shreedhar and Varghese, SIGCOMM 1995): whose turn
 * is over goes to the end, and where tx is full the first goes on with what is left of its turn. */
#ifndef SANDSTORM_READY_H
#define SANDSTORM_READY_H

#include "tcb.h"

struct ready {
    struct tcb *tcbs; /* what the indices are of */
    uint32_t first, last; /* TCB_NONE: it is empty */
};

static inline void ready_init(struct ready *ready, struct tcb *tcbs)
{
    *ready = (struct ready){tcbs, TCB_NONE, TCB_NONE};
}

/* The connection may have something to send: it is put at the end, with a new turn, unless it waits already. */
static inline void ready_mark(struct ready *ready, struct tcb *tcb)
{
    if (tcb->ready)
        return;
    uint32_t index = (uint32_t)(tcb - ready->tcbs);
    tcb->ready = true;
    tcb->turn_bytes = TCB_TURN_BYTES;
    tcb->ready_next = TCB_NONE;
    if (ready->first == TCB_NONE)
        ready->first = index;
    else
        ready->tcbs[ready->last].ready_next = index;
    ready->last = index;
}

/* Whose turn it is, or NULL. It stays at the front until ready_next. */
static inline struct tcb *ready_front(const struct ready *ready)
{
    return ready->first != TCB_NONE ? &ready->tcbs[ready->first] : NULL;
}

/* tcb, the front one, is taken off; again: its turn is over, but it has more. */
static inline void ready_next(struct ready *ready, struct tcb *tcb, bool again)
{
    ready->first = tcb->ready_next;
    if (ready->first == TCB_NONE)
        ready->last = TCB_NONE;
    tcb->ready = false;
    if (again)
        ready_mark(ready, tcb);
}

#endif
