/* Listening sockets: connections come from them. */
#ifndef SANDSTORM_ACCEPT_H
#define SANDSTORM_ACCEPT_H

#include "sockets_state.h"

/* Has epoll look for connections, or no more. */
void accept_resume(struct sockets *s);
void accept_end(struct sockets *s);
/* Takes the connections that have come. */
void accept_ready(struct sockets *s);

#endif
