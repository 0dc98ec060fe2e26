/* What runs over TCP: there is one application, which reads requests and chooses among prebuilt frames.
 *
 * The hooks run while frames are taken and timers run, so they too make no system call, read no clock and allocate nothing. They
 * answer with tcpip_write: a slice of a response, of which only numbers are kept. What an application keeps of a connection has
 * to fit in tcb->app. */
#ifndef SANDSTORM_APP_H
#define SANDSTORM_APP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct image;
struct layout;
struct tcb;
struct response_slice;
struct tcpip;

/* A segment that will soon be taken. */
struct tcpip_prefetch {
    uint64_t flow_hash;
    const uint8_t *data; /* of the application, perhaps */
    uint32_t data_bytes;
    uint64_t found; /* the application's own: what its last step has found */
};
#define TCPIP_PREFETCH_STEPS_MAX 8

/* All but receive may be NULL. */
struct tcpip_app {
    /* Lays out what it keeps beside its connections; returns where its state is. NULL: it is only counted. */
    void *(*lay_out)(struct layout *layout, const void *data);
    /* The same for what belongs to an image. What lies there is zero at first. */
    void *(*lay_out_tables)(struct layout *layout, const struct image *image);
    /* The newest of tcpip->generations is what is to be answered from. NULL: it never changes. */
    void (*swapped)(void *state);
    /* Before all others. data: what it reads from beside the image; to lay_out too. */
    void (*init)(void *state, struct tcpip *tcpip, const void *data); /* may set tcpip->prefetch_steps */
    /* A round begins, at wall_s seconds since 1970-01-01 UTC. */
    void (*clock)(void *state, int64_t wall_s);
    /* Its counters, as many as it has names; they may be read from any thread. */
    const uint64_t *(*counters)(const void *state);
    const char *const *counter_names;
    uint32_t counter_count;
    /* How often each of the image's responses has been begun, as they are numbered in it. */
    const uint32_t *(*response_uses)(const void *state);
    /* Reads the connection's unread bytes; returns how many it is done with. What it leaves comes again with more
     * behind it, or when a queued response has gone. Ends the connection with tcpip_finish. */
    uint32_t (*receive)(struct tcpip *tcpip, struct tcb *tcb, const uint8_t *data, uint32_t len_bytes);
    /* The connection has been silent for too long; request_begun: with an incomplete request. May write a last
     * answer. */
    void (*timeout)(struct tcpip *tcpip, struct tcb *tcb, bool request_begun);
    /* Of an answer that it is in the middle of: the place of the generation that it is from. NULL: there is but one. */
    uint32_t (*pending_generation)(const struct tcb *tcb);
    /* Of a connection that another process has served (resume.h): checks what is the application's in it, the connection's word and
     * those of its slices, and rewrites what has another place here; from: the place there of the generation that is the newest now.
     * False: it can't go on. NULL: it can only between requests. */
    bool (*resume)(void *state, struct tcb *tcb, uint32_t from);
    /* In the middle of an answer: the rest is written when queued responses have gone. */
    bool (*has_pending_response)(const struct tcb *tcb);
    /* Writes what is to be written into a response's first frame when it is sent, where it says that (SSI_FRAME_PATCHED): what of
     * it is in bytes [offset, offset + len_bytes) of the response goes over dst, a copy of those. It follows from slice->app
     * alone, as it must be the same when it is sent again. Returns the checksum's sum of what has been written, where it is in
     * the frame, if dst is the whole payload. NULL: no frame of the image says so. */
    uint64_t (*patch)(const struct tcpip *tcpip, const struct response_slice *slice, uint64_t offset, uint8_t *dst,
                      uint32_t len_bytes);
    /* A slice which said so (SLICE_FOLLOWED, with the application's number) goes: the peer has it whole, or the connection is
     * over. tcb->snd_una says how far it has come. */
    void (*slice_end)(struct tcpip *tcpip, const struct tcb *tcb, uint32_t number);
    /* Brings what an answer to a segment's data would touch into the caches, in tcpip->prefetch_steps steps, some time apart: each looks
     * at what the one before has fetched. Only a guess. False: no more steps. */
    bool (*prefetch)(const struct tcpip *tcpip, struct tcpip_prefetch *ahead, uint32_t step);
};

#endif
