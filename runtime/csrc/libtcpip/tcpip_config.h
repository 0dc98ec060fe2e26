/* How libtcpip is set up. */
#ifndef SANDSTORM_TCPIP_CONFIG_H
#define SANDSTORM_TCPIP_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#define TCPIP_SECRET_BYTES 16
#define TCPIP_MTU_BYTES_MIN 576
#define TCPIP_MTU_BYTES_MAX 65535

#define CONGESTION_CUBIC 0
#define CONGESTION_NEWRENO 1
#define CONGESTION_COUNT 2

struct tcpip_config {
    uint16_t tcp_port;
    bool reassemble; /* packets that come in fragments: in own-address mode, where all frames come to us */
    bool
        tx_memcpy; /* each frame is copied to be sent, as ordinary servers do: to compare with; gather_max must be 1 */
    bool pacing; /* windows go out spread over the round trip, not in bursts */
    uint32_t mtu_bytes; /* of the interface */
    uint32_t gather_max; /* of the port */
    uint32_t max_connections;
    uint32_t
        max_incomplete_requests; /* connections that may have an incomplete request, or pipelined requests waiting */
    uint32_t keep_alive_ms; /* an idle connection is closed after this */
    uint32_t request_ms; /* a request must be whole this long after its first byte (or the handshake), its body too */
    uint32_t send_ms; /* a connection that takes nothing of what it is sent ends after this */
    uint32_t congestion; /* CONGESTION_* */
    uint8_t secret[TCPIP_SECRET_BYTES]; /* random */
};

#endif
