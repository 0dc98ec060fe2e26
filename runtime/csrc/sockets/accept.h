/* Listening sockets: connections come from them. */
#ifndef SANDSTORM_ACCEPT_H
#define SANDSTORM_ACCEPT_H

#include "sockets_state.h"

/* Has epoll look for connections. False: it does not, errno says why. */
bool accept_resume(struct sockets *s);
/* No more. */
void accept_end(struct sockets *s);
/* At the end of a round: if they have to wait, perhaps it is time to look again. */
void accept_try_again(struct sockets *s);
/* Takes the connections that have come. */
void accept_ready(struct sockets *s);

#endif
