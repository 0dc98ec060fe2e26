/* Buffers for bytes that the application has not used yet: a request half read, or pipelined requests that wait for room.
 * A bounded pool, as most connections never need one. */
#ifndef SANDSTORM_REQUEST_H
#define SANDSTORM_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

struct stack;
struct tcb;

/* What a buffer in use holds. */
enum request_kind {
    REQUEST_INCOMPLETE, /* a request whose rest has not come */
    REQUEST_PIPELINED, /* requests that wait until answers before them have gone */
    REQUEST_KINDS,
};

/* Data that came ahead of what is in front of it: sequence numbers [start, end). */
struct request_range {
    uint32_t start, end;
};
#define REQUEST_RANGES 8 /* that a buffer holds; further ones are dropped, and come again */

struct request_buffer {
    uint32_t owner; /* index of its TCB */
    uint32_t next, previous; /* among those of its kind, by age; next also among the free */
    uint32_t kind; /* enum request_kind */
    uint32_t range_count;
    struct request_range ranges[REQUEST_RANGES]; /* apart from each other, the one that came last first */
};

/* Those of a kind; the one that has been it for longest at the front. */
struct request_list {
    uint32_t first, last, count;
};

/* All are free. */
void request_init(struct stack *stack);
/* The connection's unread bytes; tcb->request_len of them. It must have a buffer. */
uint8_t *request_bytes(struct stack *stack, const struct tcb *tcb);
/* Keeps a copy of data behind what is there. Returns the bytes kept: fewer when the buffer is full. When
 * all buffers are taken, the one that has been half a request for longest must go: its
 * connection is told so and ended. Requests that wait may have half of the buffers: beyond that the oldest of them goes:
 * its connection ends with the answers that are under way, or is reset where one of them is written in part. */
uint32_t request_append(struct stack *stack, struct tcb *tcb, const uint8_t *data, uint32_t len_bytes);
/* Keeps data that came out of order where it belongs, as far as the window goes, with a buffer taken as in request_append.
 * *duplicate: what of it was there already (RFC 2883); start and end are the same: nothing. False: no more ranges fit. */
bool request_hold(struct stack *stack, struct tcb *tcb, struct request_range range, const uint8_t *data,
                  struct request_range *duplicate);
/* After rcv_nxt has moved: what was held and follows it becomes unread bytes, and rcv_nxt moves on. */
void request_join(struct stack *stack, struct tcb *tcb, struct request_range *duplicate);
/* The first bytes have been used; the buffer is free when none is left. */
void request_consume(struct stack *stack, struct tcb *tcb, uint32_t consumed_bytes);
/* After what it holds may have become another kind. */
void request_sort(struct stack *stack, struct tcb *tcb);
/* Forgets what there is. */
void request_release(struct stack *stack, struct tcb *tcb);

#endif
