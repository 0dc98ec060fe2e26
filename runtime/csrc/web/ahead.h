/* Looks ahead at requests: see struct stack_app. Used by web.c alone. */
#ifndef SANDSTORM_WEB_AHEAD_H
#define SANDSTORM_WEB_AHEAD_H

#include "stack_app.h"

#define WEB_AHEAD_STEPS 5
#define WEB_AHEAD_ROUTES_MIN 1024

bool web_look_ahead(const struct stack *stack, struct stack_ahead *ahead, uint32_t step);

#endif
