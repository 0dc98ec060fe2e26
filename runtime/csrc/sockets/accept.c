#define _GNU_SOURCE
#include "accept.h"

#include <errno.h>
#include <netinet/in.h>
#undef IP_TTL /* a socket option's number there, and a header's value here */
#include <sys/socket.h>
#include <unistd.h>

#include "libtcpip/connection.h"

bool accept_resume(struct sockets *s)
{
    for (uint32_t i = 0; !s->accepting && i < s->listener_count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u64 = SOCKETS_LISTENER + i};
        if (epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, s->listeners[i], &event) != 0 && errno != EEXIST)
            return false;
    }
    s->accepting = true;
    return true;
}

void accept_end(struct sockets *s)
{
    for (uint32_t i = 0; i < s->listener_count; i++)
        epoll_ctl(s->epoll_fd, EPOLL_CTL_DEL, s->listeners[i], NULL);
    s->accepting = false;
    s->listeners_ready = 0;
}

/* They wait in the kernel meanwhile: who looked at once again would do nothing else. */
static void pause_accepting(struct sockets *s)
{
    accept_end(s);
    s->accept_at_us = s->tcpip.now_us + SOCKETS_PAUSE_US;
    s->closed = s->tcpip.counters.tcp_closed;
}

void accept_try_again(struct sockets *s)
{
    bool due = s->tcpip.now_us >= s->accept_at_us || s->closed != s->tcpip.counters.tcp_closed;
    if (!s->accepting && !s->drained && due && !accept_resume(s))
        pause_accepting(s);
}

/* Addresses as a TCB has them; IPv4 that came to an IPv6 socket is IPv4. */
static struct tcp_flow flow_of(const struct sockaddr_storage *peer, uint32_t listener)
{
    struct tcp_flow flow = {.local = (uint8_t)listener};
    if (peer->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)peer;
        flow.family = IP_FAMILY_V4;
        flow.peer_port = v4->sin_port;
        memcpy(flow.peer, &v4->sin_addr, sizeof(v4->sin_addr));
    } else {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)peer;
        flow.family = IP_FAMILY_V6;
        flow.peer_port = v6->sin6_port;
        memcpy(flow.peer, &v6->sin6_addr, sizeof(v6->sin6_addr));
    }
    return flow;
}

/* Makes a connection of what has been accepted. There is a TCB for it. */
static void open_connection(struct sockets *s, int fd, const struct tcp_flow *flow)
{
    struct tcb *tcb = connection_carried(&s->tcpip, flow);
    uint32_t index = tcb_index(&s->tcpip.connections, tcb);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.u64 = index};
    s->sockets[index] = (struct socket){.fd = fd, .writable = true};
    COUNT(s, sockets_accepted);
    if (epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0)
        return;
    COUNT(s, sockets_accept_failed);
    connection_abort(&s->tcpip, tcb);
}

/* accept4 has failed. False: nothing more is to be had now. */
static bool accept_failed(struct sockets *s)
{
    switch (errno) {
    case EAGAIN:
        return false;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        COUNT(s, sockets_paused_descriptors);
        pause_accepting(s);
        return false;
    case EBADF:
    case EINVAL:
    case ENOTSOCK:
        s->error = -errno;
        return false;
    default: /* a connection that is gone before it was taken, or what the network says of it: accept(2) */
        COUNT(s, sockets_accept_failed);
        return true;
    }
}

/* Is there a TCB for a connection that waits? Perhaps that of one that is idle. */
static bool make_room(struct sockets *s)
{
    if (s->tcpip.connections.free_count == 0)
        connection_evict_idle(&s->tcpip);
    if (s->tcpip.connections.free_count > 0)
        return true;
    COUNT(s, sockets_paused_full);
    pause_accepting(s);
    return false;
}

/* Only of the first is it known that it waits: nobody is evicted for one that may not be there. */
static void accept_from(struct sockets *s, uint32_t listener)
{
    if (!make_room(s))
        return;
    for (uint32_t i = 0; i < SOCKETS_ACCEPTED && s->tcpip.connections.free_count > 0; i++) {
        struct sockaddr_storage peer = {0};
        socklen_t peer_bytes = sizeof(peer);
        int fd = accept4(s->listeners[listener], (struct sockaddr *)&peer, &peer_bytes, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            struct tcp_flow flow = flow_of(&peer, listener);
            open_connection(s, fd, &flow);
        } else if (!accept_failed(s)) {
            return;
        }
    }
}

void accept_ready(struct sockets *s)
{
    while (s->listeners_ready != 0) {
        uint32_t listener = (uint32_t)__builtin_ctzll(s->listeners_ready);
        s->listeners_ready &= s->listeners_ready - 1;
        accept_from(s, listener);
    }
}
