/* Headers of a packet of ours that answers none of a connection's (RST, SYN-ACK, echo). */
#ifndef SANDSTORM_IP_REPLY_H
#define SANDSTORM_IP_REPLY_H

#include "libeth/eth.h"
#include "wire/packet.h"

/* Writes Ethernet's and IP's header to frame with the addresses of the packet received, swapped. Returns where the IP payload goes. */
uint8_t *ip_reply_headers(const struct eth *eth, const struct packet *packet, uint8_t *frame, uint8_t protocol,
                          uint32_t payload_bytes);

#endif
