/* What a connection sends. A segment that is a prebuilt frame leaves from its slot, in place; one that is not (the path's
 * MSS is smaller, the window ends within it) is cut: its payload is copied. On ports that take superframes, payloads
 * are gathered in place whatever the segment size. */
#ifndef SANDSTORM_OUTPUT_H
#define SANDSTORM_OUTPUT_H

#include "state.h"

enum tcpip_sent {
    TCPIP_SENT, /* all that the windows allow */
    TCPIP_TURN_OVER, /* all that one turn in the FIFO allows */
    TCPIP_NO_SPACE, /* of tx: call again when there is some */
};
/* Sends what the windows, the connection's turn and tx's space allow. */
enum tcpip_sent tcp_output(struct tcpip *tcpip, struct tcb *tcb);
void tcp_send_ack(struct tcpip *tcpip, struct tcb *tcb);
void tcp_send_probe(struct tcpip *tcpip, struct tcb *tcb);
void tcp_send_rst(struct tcpip *tcpip, struct tcb *tcb);
/* Copies [offset, offset + len_bytes) of the response that a slice is of, with its patched fields as it says. */
void tcpip_copy(struct tcpip *tcpip, const struct response_slice *slice, uint64_t offset, uint8_t *dst,
                uint32_t len_bytes);

#endif
