/* A key-value server over the stack: the reading half of memcached's text protocol, over a store whose answers are ready
 * frames. The second application, beside the web: it knows libeth, libtcpip and the frames, and nothing of HTTP.
 *
 *   get KEY...   VALUE KEY 0 LEN, the value, for each key that is there; then END
 *   version      VERSION sandstorm
 *   quit         the connection ends
 *   set, delete, incr, ... (all that would change the store)
 *                SERVER_ERROR, and the connection ends: a block of data that follows must not be read as requests
 *   else         ERROR
 *
 * A line ends with LF or CRLF and may come in any number of segments, or many in one. One of more than KV_LINE_BYTES_MAX
 * is answered with CLIENT_ERROR and ends the connection. */
#ifndef SANDSTORM_KV_H
#define SANDSTORM_KV_H

#include "kv_store.h"

struct tcpip_app;

#define KV_LINE_BYTES_MAX 8192 /* with its end */

/* Its data is a const struct kv_store *, whose image the stack is laid out with. */
extern const struct tcpip_app kv_app;

#endif
