#define _GNU_SOURCE
#include "connection_io.h"

#include <errno.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gather.h"
#include "libtcpip/carried.h"

/* The connection is over, whatever the peer has of it. */
static void finished(struct sockets *s, struct tcb *tcb)
{
    close(socket_of(s, tcb)->fd); /* epoll forgets it then */
    connection_destroy(&s->tcpip, tcb);
}

/* One that only makes room has its answers to the end: the kernel sends what it has been given, and FIN. */
void socket_reset(struct tcpip *tcpip, struct tcb *tcb)
{
    struct sockets *s = (struct sockets *)tcpip;
    const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    int fd = socket_of(s, tcb)->fd;
    if (s->in_timers || tcb->snd_nxt < tcb->snd_end) { /* close sends RST then, and forgets what is queued */
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
        COUNT(tcpip, tcp_tx_rst);
    }
    close(fd);
}

/* The kernel says that there is no connection any more: the peer has reset it, or can't be reached. */
static void lost(struct sockets *s, struct tcb *tcb)
{
    COUNT(&s->tcpip, tcp_rx_rst);
    finished(s, tcb);
}

/* Reads once, as much as there is room for. False: the connection is gone. */
static bool receive(struct sockets *s, struct tcb *tcb)
{
    struct socket *socket = socket_of(s, tcb);
    uint32_t room = carried_room(tcb);
    if (!socket->readable || room == 0)
        return true;
    COUNT(s, sockets_receives);
    ssize_t got = recv(socket->fd, s->received, room, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        socket->readable = errno == EINTR;
        return true;
    }
    if (got < 0) {
        lost(s, tcb);
        return false;
    }
    /* A short read has taken all there was, or there would be another event; but not the end behind it. */
    if (got == 0 || ((uint32_t)got < room && !socket->closing))
        socket->readable = false;
    if (got == 0) {
        carried_fin(&s->tcpip, tcb);
        ready_mark(&s->tcpip.ready, tcb);
        return true;
    }
    COUNT_BY(s, sockets_rx_bytes, (uint64_t)got);
    return carried_input(&s->tcpip, tcb, s->received, (uint32_t)got);
}

void socket_event(struct sockets *s, uint32_t index, uint32_t events)
{
    struct tcb *tcb = &s->tcpip.connections.tcbs[index];
    struct socket *socket = &s->sockets[index];
    if (tcb->state == 0)
        return; /* another one has ended it */
    if ((events & EPOLLERR) != 0) {
        lost(s, tcb);
        return;
    }
    if ((events & EPOLLOUT) != 0 && !socket->writable) {
        socket->writable = true;
        ready_mark(&s->tcpip.ready, tcb);
    }
    if ((events & (EPOLLRDHUP | EPOLLHUP)) != 0)
        socket->closing = true;
    if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP)) == 0 || tcb->fin_received)
        return;
    socket->readable = true;
    if (receive(s, tcb) && socket->readable)
        ready_mark(&s->tcpip.ready, tcb);
}

/* What sendmsg could not take at once. False: the connection is gone, or none can go on. */
static bool send_failed(struct sockets *s, struct tcb *tcb)
{
    if (errno == EAGAIN || errno == ENOBUFS) {
        COUNT(s, sockets_waits_to_send);
        socket_of(s, tcb)->writable = false;
        return true;
    }
    if (errno == EINTR)
        return true;
    if (errno == EFAULT)
        s->error = -EFAULT;
    else
        lost(s, tcb);
    return false;
}

/* Sends once. False: the connection is gone. */
static bool send_once(struct sockets *s, struct tcb *tcb)
{
    struct socket *socket = socket_of(s, tcb);
    uint32_t count;
    size_t bytes = gather(s, tcb, &count);
    bool more = tcb->snd_nxt + bytes < tcb->snd_end;
    struct msghdr message = {.msg_iov = s->vectors, .msg_iovlen = count};
    COUNT(s, sockets_sends);
    ssize_t sent = sendmsg(socket->fd, &message, more ? MSG_NOSIGNAL | MSG_MORE : MSG_NOSIGNAL);
    if (sent <= 0)
        return send_failed(s, tcb);
    if ((size_t)sent < bytes) { /* it is full, and says when it is not */
        COUNT(s, sockets_waits_to_send);
        socket->writable = false;
    }
    COUNT_BY(s, sockets_tx_bytes, (uint64_t)sent);
    carried_taken(&s->tcpip, tcb, tcb->snd_nxt + (uint64_t)sent);
    return true;
}

/* All has been sent, and no more will be written. Who may still send is read on for a while, or the kernel would answer that with a
 * reset, which takes our last answer away from it: RFC 9112 section 9.6. */
static void finish(struct sockets *s, struct tcb *tcb)
{
    if (tcb->fin_received || (tcb->peer_done && !socket_of(s, tcb)->readable)) {
        finished(s, tcb);
    } else if (tcb->state == TCP_ESTABLISHED) {
        shutdown(socket_of(s, tcb)->fd, SHUT_WR);
        carried_finished(&s->tcpip, tcb);
    }
}

bool socket_turn(struct sockets *s, struct tcb *tcb)
{
    struct socket *socket = socket_of(s, tcb);
    if (tcb->state == 0)
        return false;
    if (tcb->snd_nxt < tcb->snd_end && socket->writable && !send_once(s, tcb))
        return false;
    if (!receive(s, tcb))
        return false;
    if (tcb->snd_nxt == tcb->snd_end && tcb->fin_queued) {
        finish(s, tcb);
        if (tcb->state == 0)
            return false;
    }
    bool sends = tcb->snd_nxt < tcb->snd_end && socket->writable;
    return sends || (socket->readable && carried_room(tcb) > 0);
}

void socket_look_at_progress(const struct sockets *s, struct tcb *tcb)
{
    struct socket *socket = socket_of(s, tcb);
    int queued = 0;
    if (tcb->request_begun || ioctl(socket->fd, SIOCOUTQ, &queued) != 0 || queued <= 0)
        return;
    if ((uint32_t)queued != socket->queued_bytes)
        tcb->progress_us = s->tcpip.now_us;
    socket->queued_bytes = (uint32_t)queued;
}
