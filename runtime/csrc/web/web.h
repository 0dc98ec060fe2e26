/* HTTP over the stack: for each request picks one of the answers that the compiler made. */
#ifndef SANDSTORM_WEB_H
#define SANDSTORM_WEB_H

struct tcpip_app;

/* Reads all from the stack's image; it needs no data beside that. */
extern const struct tcpip_app web_app;

#endif
