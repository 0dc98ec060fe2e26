/* Buffers for bytes that the application has not used yet: a request half read, or pipelined requests that wait for room.
 * A bounded pool, as most connections never need one. */
#ifndef SANDSTORM_REQUEST_H
#define SANDSTORM_REQUEST_H

#include <stdint.h>

struct stack;
struct tcb;

struct request_buffer {
    uint32_t owner; /* index of its TCB */
    uint32_t next, previous; /* among those in use by age; next also among the free */
};

/* All are free. */
void request_init(struct stack *stack);
/* The connection's unread bytes; tcb->request_len of them. It must have a buffer. */
uint8_t *request_bytes(struct stack *stack, const struct tcb *tcb);
/* Keeps a copy of data behind what is there. Returns the bytes kept: fewer when the buffer is full, none when there is no
 * buffer for this connection. When all are taken, the one that has been half a request for longest must go: its
 * connection is told so and ended. */
uint32_t request_append(struct stack *stack, struct tcb *tcb, const uint8_t *data, uint32_t len_bytes);
/* The first bytes have been used; the buffer is free when none is left. */
void request_consume(struct stack *stack, struct tcb *tcb, uint32_t consumed_bytes);
/* Forgets what there is. */
void request_release(struct stack *stack, struct tcb *tcb);

#endif
