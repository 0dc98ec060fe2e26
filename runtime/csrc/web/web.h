/* HTTP over the stack: for each request picks one of the answers that the compiler made. */
#ifndef SANDSTORM_WEB_H
#define SANDSTORM_WEB_H

struct tcpip_app;

/* Reads all from the stack's image; it needs no data beside that. */
extern const struct tcpip_app web_app;
/* The same, and it follows its answers: its data is a struct web_config (followed.h). */
extern const struct tcpip_app web_followed_app;

#endif
