/* Responses that are made when they are asked for, since what is asked for is in them: small ones, each in a buffer of its own
 * until all of it is acknowledged, so that it can be sent again. A bounded pool; who gets no buffer sends what the image has.
 * Clients that take long to acknowledge can't keep the others out: when all are taken, the one that has been for longest goes with
 * its connection, if that is longer than an acknowledgement takes. */
#ifndef SANDSTORM_COMPOSED_H
#define SANDSTORM_COMPOSED_H

#include "image/image_format.h"
#include "index_pool.h"
#include "tcb.h"
#include "wire/layout.h"

#define COMPOSED_BYTES 4096 /* of a buffer: head, body and all */

#define COMPOSED_HELD_US 3000000 /* a round trip and two retransmissions of it: RFC 6298 begins with 1 s, then 2 s */

/* A buffer in use. */
struct composed_use {
    uint64_t since_us;
    uint32_t owner; /* index of its TCB */
    uint32_t next, previous; /* by age; TCB_NONE: there is none */
};

struct composed {
    uint8_t *bytes; /* [][COMPOSED_BYTES] */
    struct index_pool pool;
    struct composed_use *uses; /* of each buffer that is in use */
    uint32_t first, last; /* of those, the oldest and the youngest */
};

/* Lays out the buffers of so many connections; composed_init makes all of them free. */
void composed_lay_out(struct composed *pool, struct layout *layout, uint32_t max_connections);
void composed_init(struct composed *pool);
/* Whose buffers must go before a connection, owner, can have one: the index of a TCB; TCB_NONE: there is one, or nobody's must. */
uint32_t composed_victim(const struct composed *pool, uint64_t now_us, uint32_t owner);
/* A buffer for a response of a connection, or NMIO_NONE. */
uint32_t composed_acquire(struct composed *pool, uint64_t now_us, uint32_t owner);

static inline uint8_t *composed_bytes(const struct composed *pool, uint32_t buffer)
{
    return pool->bytes + (size_t)buffer * COMPOSED_BYTES;
}

/* The slice of what is in a buffer; it gives the buffer back when it goes. */
static inline struct response_slice composed_slice(uint32_t buffer)
{
    return (struct response_slice){.first_frame = buffer, .at_end = SLICE_COMPOSED};
}

static inline bool is_composed(const struct response_slice *slice)
{
    return (slice->at_end & SLICE_COMPOSED) != 0;
}

/* A slice goes: nothing of it will be sent again. */
void composed_slice_release(struct composed *pool, const struct response_slice *slice);

#endif
