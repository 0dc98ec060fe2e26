/* The stack's parts, one beside the other. */
#ifndef SANDSTORM_STACK_STATE_H
#define SANDSTORM_STACK_STATE_H

#include "libeth/eth.h"
#include "libtcpip/tcpip.h"

struct stack {
    struct eth eth;
    struct tcpip tcpip;
};

#endif
