/* What comes and goes on a connection. */
#ifndef SANDSTORM_CONNECTION_IO_H
#define SANDSTORM_CONNECTION_IO_H

#include "sockets_state.h"

/* Takes what epoll says of it. */
void socket_event(struct sockets *s, uint32_t index, uint32_t events);
/* Sends what the connection has to send, and reads what it had no room for before. True: its turn is over, but it has more. */
bool socket_turn(struct sockets *s, struct tcb *tcb);
/* Before silence is held against a peer: does it go on taking what the kernel has for it? That is progress too. */
void socket_look_at_progress(const struct sockets *s, struct tcb *tcb);
/* tcpip->reset. */
void socket_reset(struct tcpip *tcpip, struct tcb *tcb);

#endif
