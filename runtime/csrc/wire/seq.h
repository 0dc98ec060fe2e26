/* Sequence numbers, RFC 9293 section 3.4. On the wire they are 32 bits and wrap; inside, a connection counts
 * positions in 64 bits, whose low half is the sequence number, so only what comes in needs this arithmetic. */
#ifndef SANDSTORM_SEQ_H
#define SANDSTORM_SEQ_H

#include <stdbool.h>
#include <stdint.h>

static inline int32_t seq_diff(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b);
}

static inline bool seq_lt(uint32_t a, uint32_t b)
{
    return seq_diff(a, b) < 0;
}

static inline bool seq_leq(uint32_t a, uint32_t b)
{
    return seq_diff(a, b) <= 0;
}

/* The position nearest to near whose sequence number is seq. */
static inline uint64_t seq_unwrap(uint32_t seq, uint64_t near)
{
    return near + (uint64_t)(int64_t)seq_diff(seq, (uint32_t)near);
}

#endif
