/* Fetches ahead what requests will touch: see struct tcpip_app. Used by web.c alone. */
#ifndef SANDSTORM_ROUTE_PREFETCH_H
#define SANDSTORM_ROUTE_PREFETCH_H

#include "libtcpip/tcpip.h"

#define WEB_PREFETCH_STEPS 5
#define WEB_PREFETCH_ROUTES_MIN 1024 /* an image with fewer routes has tables that stay in the caches */

bool web_prefetch(const struct tcpip *tcpip, struct tcpip_prefetch *ahead, uint32_t step);

#endif
