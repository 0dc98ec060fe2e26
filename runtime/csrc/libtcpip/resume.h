/* Connections go on that another process has served, until it ended without a word: from its memory into ours, which has been laid out
 * alike. What lies there may be half written, or a stranger's: no pointer of it is followed, and of each connection all is checked. */
#ifndef SANDSTORM_RESUME_H
#define SANDSTORM_RESUME_H

#include "state.h"

/* tcpip: as tcpip_init has left it, and its time set; from: that of the other. swaps: how often the image has been swapped there, and ours
 * is that of the last time; answers from another one can't go on. Connections that can't are reset. */
void tcpip_resume(struct tcpip *tcpip, const struct tcpip *from, uint32_t swaps);
/* The same from records (records.h), which another build has written: counters begin anew. The configuration has the same secret, and the
 * image is the one that was served there last. False: there is nothing of this version. */
bool tcpip_resume_records(struct tcpip *tcpip, const uint8_t *memory, uint64_t len_bytes);

#endif
