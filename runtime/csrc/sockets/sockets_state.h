/* What a worker over sockets keeps. */
#ifndef SANDSTORM_SOCKETS_STATE_H
#define SANDSTORM_SOCKETS_STATE_H

#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/uio.h>

#include "libtcpip/tcpip.h"
#include "sockets_config.h"
#include "wire/counters.h"

#define SOCKETS_EVENTS 256 /* taken from epoll at once */
#define SOCKETS_VECTORS 1024 /* Linux's UIO_MAXIOV: parts of one sendmsg */
#define SOCKETS_PATCHED 64 /* of these, frames that are written into */
#define SOCKETS_SEND_BYTES (512u << 10) /* of a connection in its turn */
#define SOCKETS_TURNS 1024 /* until events are looked for again */
#define SOCKETS_ACCEPTED 64 /* of a listener at once */
#define SOCKETS_PAUSE_US 100000 /* until accepting is tried again when it has failed */

/* Where it says `paused`, connections wait in the kernel until some are closed. */
#define SOCKETS_COUNTERS(X)                                                                                          \
    X(sockets_accepted)                                                                                              \
    X(sockets_paused_full)                                                                                           \
    X(sockets_paused_descriptors)                                                                                    \
    X(sockets_accept_failed)                                                                                         \
    X(sockets_rx_bytes)                                                                                              \
    X(sockets_tx_bytes)                                                                                              \
    X(sockets_receives)                                                                                              \
    X(sockets_sends)                                                                                                 \
    X(sockets_waits_to_send)

struct sockets_counters COUNTERS_DEFINE(SOCKETS_COUNTERS);

/* A connection's, beside its TCB. Edge-triggered: epoll says once that there is something to read or room to write, which is true
 * until a call has shown otherwise; so nothing is ever asked in vain, and epoll is told of a connection once. */
struct socket {
    int fd;
    uint32_t queued_bytes; /* that the peer had not acknowledged when that was looked at last */
    bool readable, writable;
    bool closing; /* the end of what comes is near: a read is short, and yet there is more */
};

struct sockets {
    struct tcpip tcpip; /* first: its reset finds us by it */
    struct socket *sockets; /* [max_connections], as TCBs are numbered */
    size_t memory_bytes;
    int epoll_fd, wake_fd;
    int error; /* there is no going on: -errno */
    uint32_t event_count;
    bool accepting; /* epoll has our listeners */
    bool in_timers; /* who is ended now has been silent for too long */
    atomic_bool stop, drain, drained;
    _Atomic(struct generation *) next_generation; /* to be taken up, or NULL */
    uint64_t rounds;
    uint64_t accept_at_us; /* while it does not: when it is to have them again */
    uint64_t closed; /* how many connections had been closed when accepting was paused */
    uint32_t listener_count;
    int32_t listeners[SOCKETS_LISTENERS_MAX];
    uint64_t listeners_ready; /* a bit for each */
    uint8_t *received; /* [TCB_RECEIVE_BYTES], what has been read last */
    uint8_t *patched; /* [SOCKETS_PATCHED][segment_bytes], of what is sent next */
    struct sockets_counters counters;
    struct epoll_event events[SOCKETS_EVENTS];
    struct iovec vectors[SOCKETS_VECTORS];
};
_Static_assert(offsetof(struct sockets, tcpip) == 0, "tcpip->reset finds the worker by it");
_Static_assert(SOCKETS_LISTENERS_MAX <= 64, "listeners_ready has a bit for each");

#define SOCKETS_LISTENER (1ull << 32) /* added to a listener's number: of an event that is none of a connection */
#define SOCKETS_WAKE (1ull << 33)

static inline struct socket *socket_of(const struct sockets *s, const struct tcb *tcb)
{
    return &s->sockets[tcb_index(&s->tcpip.connections, tcb)];
}

#endif
