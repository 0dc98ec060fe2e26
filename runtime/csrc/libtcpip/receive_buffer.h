/* Buffers for bytes that the application has not used yet: an incomplete request, or pipelined requests that wait for room.
 * A bounded pool, as most connections never need one. */
#ifndef SANDSTORM_RECEIVE_BUFFER_H
#define SANDSTORM_RECEIVE_BUFFER_H

#include "tcb.h"
#include "wire/layout.h"

/* What a buffer in use holds. */
enum receive_kind {
    RECEIVE_INCOMPLETE, /* a request whose rest has not come */
    RECEIVE_PIPELINED, /* requests that wait until answers before them have gone */
    RECEIVE_KINDS,
};

#define RECEIVE_RANGES 8 /* that a buffer holds; further ones are dropped, and come again */

struct receive_buffer {
    uint32_t owner; /* index of its TCB */
    uint32_t next, previous; /* among those of its kind, by age; next also among the free */
    uint32_t kind; /* enum receive_kind */
    uint32_t range_count;
    struct seq_range ranges[RECEIVE_RANGES]; /* apart from each other, the one that came last first */
};

/* Those of a kind; the one that has been it for longest at the front. */
struct receive_list {
    uint32_t first, last, count;
};

struct receive_buffers {
    uint8_t *bytes; /* [count][TCB_RECEIVE_BYTES] */
    struct receive_buffer *buffers; /* [count] */
    uint32_t free; /* a stack of buffers, through next */
    uint32_t count;
    struct receive_list lists[RECEIVE_KINDS]; /* those in use */
};

void receive_buffers_lay_out(struct receive_buffers *pool, struct layout *layout, uint32_t count);
/* All are free. */
void receive_buffers_init(struct receive_buffers *pool, uint32_t count);

/* Whose buffer must go before a connection can have one: the index of a TCB, and in *kind what it holds; TCB_NONE: there is one
 * for it, or it has one. So slow clients can't keep the others out: of each kind the oldest goes, and requests that wait may have
 * half of the buffers. Call it again when that connection's buffer has been released. */
uint32_t receive_buffer_victim(const struct receive_buffers *pool, const struct tcb *tcb, enum receive_kind *kind);
/* Gives a connection one, if it has none; receive_buffer_victim has found none that must go. */
void receive_buffer_take(struct receive_buffers *pool, struct tcb *tcb, uint32_t owner);

/* The connection's unread bytes; tcb->buffered_bytes of them. It must have a buffer. */
uint8_t *receive_buffer_bytes(const struct receive_buffers *pool, const struct tcb *tcb);
/* Keeps a copy of data behind what is there, in the connection's buffer. Returns the bytes kept: fewer when that is full. */
uint32_t receive_buffer_append(struct receive_buffers *pool, struct tcb *tcb, const uint8_t *data,
                               uint32_t len_bytes);
/* Keeps data that came out of order where it belongs, as far as the window goes, in the connection's buffer.
 * *duplicate: what of it was there already (RFC 2883); start and end are the same: nothing. False: no more ranges fit. */
bool receive_buffer_hold(struct receive_buffers *pool, struct tcb *tcb, struct seq_range range, const uint8_t *data,
                         struct seq_range *duplicate);
/* After rcv_nxt has moved: what was held and follows it becomes unread bytes, and rcv_nxt moves on. */
void receive_buffer_join(struct receive_buffers *pool, struct tcb *tcb, struct seq_range *duplicate);
/* The first bytes have been used; the buffer is free when none is left. */
void receive_buffer_consume(struct receive_buffers *pool, struct tcb *tcb, uint32_t consumed_bytes);
/* After what it holds may have become another kind. */
void receive_buffer_sort(struct receive_buffers *pool, struct tcb *tcb);
/* Forgets what there is. */
void receive_buffer_release(struct receive_buffers *pool, struct tcb *tcb);

#endif
