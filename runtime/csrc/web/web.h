/* HTTP over the stack: for each request picks one of the answers that the compiler made. */
#ifndef SANDSTORM_WEB_H
#define SANDSTORM_WEB_H

#include "stack_app.h"

/* Reads all from the stack's image; it has no app_data. */
extern const struct stack_app web_app;

#endif
