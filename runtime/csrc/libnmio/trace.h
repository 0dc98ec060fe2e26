/* A trace: the heads of frames of one client that a port receives and sends, while somebody looks. Who does not look pays nothing: a
 * port's functions are others only meanwhile.
 *
 *   worker ── traced port                 in the process that the worker is in
 *                 │ ring of records, one producer and one consumer
 *             trace_next                  in the process that has made the trace, perhaps another
 *
 * A record has a fixed size and a place of its own, so that whoever reads has nothing to believe but a number. A frame for which there is no
 * room is counted. */
#ifndef SANDSTORM_TRACE_H
#define SANDSTORM_TRACE_H

#include "nmio.h"

#define TRACE_RECORDS 2048 /* that can wait */
#define TRACE_HEAD_BYTES 160 /* Ethernet with a tag, IPv6, some extension headers, TCP with all its options */

#define TRACE_RECEIVED 1
#define TRACE_SENT 2

/* Whose frames. */
struct trace_filter {
    uint32_t session; /* the caller's own, never the same again */
    uint8_t family; /* IP_FAMILY_*; 0: nobody's */
    uint8_t zero;
    uint16_t port; /* the client's; 0: any */
    uint8_t address[16]; /* the client's; IPv4's has four bytes */
};

struct trace_record {
    uint64_t time_ns; /* monotonic */
    uint64_t dropped; /* since the record before */
    uint32_t session;
    uint32_t direction; /* TRACE_RECEIVED or TRACE_SENT */
    uint32_t len_bytes; /* of the frame, which may be a superframe */
    uint32_t gso_bytes; /* payload of each segment that is to be made of it; 0: one */
    uint32_t kept_bytes; /* of its head */
    uint32_t zero;
    uint8_t head[TRACE_HEAD_BYTES]; /* Ethernet header onward */
};

struct trace;

/* Of the frames of a port that is open, before other processes are forked. NULL without memory. */
struct trace *trace_create(struct nmio_port *port);
/* The port's worker does not run any more. */
void trace_destroy(struct trace *trace);

/* In the process that the worker is in, from one thread. A client's frames are kept from now on, instead of those of one before;
 * family 0: none. Nothing else waits for it. */
void trace_set(struct trace *trace, const struct trace_filter *filter);

/* In the process that reads: what is there has been read. */
void trace_skip(struct trace *trace);
/* The next one, as it may be of an older session too. 1; 0: none; -EBADMSG: no worker has written what is there. */
int trace_next(struct trace *trace, struct trace_record *record);

#endif
