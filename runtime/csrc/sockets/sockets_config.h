/* How a worker over sockets is set up. */
#ifndef SANDSTORM_SOCKETS_CONFIG_H
#define SANDSTORM_SOCKETS_CONFIG_H

#include <stdint.h>

#include "libtcpip/app.h"
#include "libtcpip/tcpip_config.h"

#define SOCKETS_LISTENERS_MAX 64

struct sockets_config {
    struct tcpip_config tcpip; /* only its limits and its secret count */
    const struct tcpip_app *app;
    const void *app_data; /* what it reads from beside the image, or NULL; must outlive the worker */
    uint32_t listener_count;
    int32_t listeners[SOCKETS_LISTENERS_MAX]; /* that listen and don't block; they stay the caller's to close */
};

#endif
