/* ARP: where the server is, and answers to those who ask where we are. */
#ifndef LOADGEN_ARP_H
#define LOADGEN_ARP_H

#include "segment.h"

#define ARP_FRAME_BYTES 42

/* Writes the question for the server's address. Returns the frame's length. */
uint32_t arp_ask(const struct endpoints *ends, uint8_t *frame);

/* Takes in a frame. If it tells where the server is, fills in ends->server_mac and sets *resolved; if it asks for one of
 * our addresses, writes the answer and returns its length, else 0. */
uint32_t arp_take(struct endpoints *ends, const uint8_t *frame, uint32_t len_bytes, bool *resolved, uint8_t *answer);

#endif
