/* What is to be sent, where it lies. */
#ifndef SANDSTORM_GATHER_H
#define SANDSTORM_GATHER_H

#include "sockets_state.h"

/* Puts the vectors of what a connection has to send into s->vectors, a part of it if there is much. Returns how many bytes. */
size_t gather(struct sockets *s, const struct tcb *tcb, uint32_t *vector_count);

#endif
