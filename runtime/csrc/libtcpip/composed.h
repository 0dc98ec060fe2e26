/* Responses that are made when they are asked for, since what is asked for is in them: small ones, each in a buffer of its own
 * until all of it is acknowledged, so that it can be sent again. A bounded pool; who gets no buffer sends what the image has.
 * Clients that take long to acknowledge can't keep the others out: when all are taken, the one that has been for longest goes with
 * its connection, if that is longer than an acknowledgement takes. */
#ifndef SANDSTORM_COMPOSED_H
#define SANDSTORM_COMPOSED_H

#include <stdbool.h>
#include <stdint.h>

#include "image/image_format.h"
#include "tcb.h"

#define COMPOSED_BYTES 4096 /* of a buffer: head, body and all */

#define COMPOSED_HELD_US 3000000 /* a round trip and two retransmissions of it: RFC 6298 begins with 1 s, then 2 s */

struct stack;

/* A buffer in use. */
struct composed_use {
    uint64_t since_us;
    uint32_t owner; /* index of its TCB */
    uint32_t next, previous; /* by age; TCB_NONE: there is none */
};

/* What composed_init needs a part of memory for: as many as these. */
uint32_t composed_buffers(uint32_t max_connections);
/* All are free. */
void composed_init(struct stack *stack);
/* A buffer for a response of that connection, or NMIO_NONE. */
uint32_t composed_acquire(struct stack *stack, const struct tcb *tcb);
uint8_t *composed_bytes(const struct stack *stack, uint32_t buffer);

/* The span of what is in a buffer; it gives the buffer back when it goes. */
static inline struct tcp_span composed_span(uint32_t buffer)
{
    return (struct tcp_span){.first_frame = buffer, .composed = true};
}

static inline bool is_composed(const struct tcp_span *span)
{
    return span->composed;
}

/* A span goes: nothing of it will be sent again. */
void composed_span_release(struct stack *stack, const struct tcp_span *span);

#endif
