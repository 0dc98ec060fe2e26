/* What runs over TCP: a stack has one application, which reads requests and chooses among ready frames. The web
 * (web/web.h) and a key-value store (kv/kv.h) are two.
 *
 * The hooks run inside stack_input and stack_output, so they too make no system call, read no clock and allocate
 * nothing. They answer with tcpip_write (stack_internal.h): a span of frames of the stack's image, of which only
 * numbers are kept. What an application keeps of a connection has to fit in tcb->app. */
#ifndef SANDSTORM_STACK_APP_H
#define SANDSTORM_STACK_APP_H

#include <stdbool.h>
#include <stdint.h>

struct stack;
struct tcb;
struct tcp_span;

/* A segment that will soon be taken. */
struct stack_ahead {
    uint64_t flow_hash;
    const uint8_t *data; /* of the application, perhaps */
    uint32_t data_bytes;
    uint64_t found; /* the application's own: what its last step has found */
};
#define STACK_AHEAD_STEPS_MAX 8

struct stack_app {
    /* Reads the connection's unread bytes; returns how many it is done with. What it leaves comes again with more
     * behind it, or when a queued response has gone. Ends the connection with tcpip_finish. */
    uint32_t (*receive)(struct stack *stack, struct tcb *tcb, const uint8_t *data, uint32_t len_bytes);
    /* The connection has been silent for too long; request_begun: with a request half read. May write a last
     * answer. */
    void (*timeout)(struct stack *stack, struct tcb *tcb, bool request_begun);
    /* In the middle of an answer: the rest is written when queued responses have gone. */
    bool (*is_writing)(const struct tcb *tcb);
    /* Writes what is to be written into a response's first frame when it is sent, where it says that (SSI_FRAME_PATCHED): what of
     * it is in bytes [offset, offset + len_bytes) of the response goes over dst, a copy of those. It follows from span->app
     * alone, as it must be the same when it is sent again. Returns the checksum's sum of what has been written, where it is in
     * the frame, if dst is the whole payload. NULL: no frame of the image says so. */
    uint64_t (*patch)(const struct stack *stack, const struct tcp_span *span, uint64_t offset, uint8_t *dst,
                      uint32_t len_bytes);
    /* Brings what an answer to a segment's data would touch into the caches, in so many steps, some time apart: each looks
     * at what the one before has fetched. Only a guess. False: no more steps. */
    bool (*look_ahead)(const struct stack *stack, struct stack_ahead *ahead, uint32_t step);
    uint32_t ahead_steps; /* at most STACK_AHEAD_STEPS_MAX; 0: there is no look_ahead */
    uint32_t ahead_routes_min; /* an image with fewer routes has tables that stay in the caches */
};

#endif
