/* The stack's parts, one beside the other. */
#ifndef SANDSTORM_STACK_STATE_H
#define SANDSTORM_STACK_STATE_H

#include "libeth/eth.h"
#include "libtcpip/tcpip.h"

struct stack {
    struct eth eth;
    struct tcpip tcpip;
};

/* Connections go on that another stack has served, which was configured like before: it may not have taken the last change of the
 * interface up. before is not trusted. */
void stack_link_resumed(struct stack *stack, const struct eth_config *before);

#endif
