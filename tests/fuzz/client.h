/* A client of one connection. It knows what the server has said, and judges that: the MSS and window it told are
 * kept, each byte of the stream is the same whenever it is sent, FIN stays where it was, nothing is acknowledged that
 * was not sent. */
#ifndef CLIENT_H
#define CLIENT_H

#include "harness.h"

#define CLIENT_STREAM_BYTES 400000 /* what lies beyond is not judged, nor acknowledged */
#define CLIENT_HELD 40
#define NO_WSCALE 15

#define FIN 1
#define SYN 2
#define RST 4
#define PSH 8
#define ACK 16

/* Positions count the bytes of the server's stream, from 0. */
struct range {
    uint32_t start, end;
};

struct client {
    struct host *host;
    uint16_t port; /* an odd one speaks IPv6 */
    uint16_t mss; /* as told; 0: not at all */
    uint8_t wscale;
    bool timestamps, sack;
    bool connected;
    uint32_t seq, seq_max; /* next to send; behind all that was ever sent */
    uint32_t irs; /* the server's initial sequence number; 0: not known */
    uint32_t known; /* received without a hole */
    struct range held[CLIENT_HELD]; /* and beyond the hole */
    uint32_t told; /* of them, in SACK blocks: they take turns */
    uint32_t high; /* sent by the server */
    uint64_t edge; /* the window's, at its furthest */
    bool fin;
    uint32_t fin_at;
    uint32_t ts_echo;
    uint32_t loss; /* bit i: the i-th segment from now is lost */
    uint8_t stream[CLIENT_STREAM_BYTES];
};

struct segment {
    uint8_t flags;
    uint32_t seq, ack, window; /* window: as sent */
    uint32_t ts_value, ts_echo;
    uint32_t sack_count;
    struct range sacks[3]; /* sequence numbers */
    const uint8_t *data;
    uint32_t bytes;
};

/* What an honest client says now. */
struct segment client_segment(struct client *client, uint8_t flags);
/* Says it, with the options that the client uses, and hears what comes back. */
void client_say(struct client *client, const struct segment *segment);
/* The handshake as far as the SYN-ACK; connected if that comes. */
void client_open(struct client *client, uint32_t iss);
/* Sends data, in order. */
void client_send(struct client *client, uint8_t flags, const uint8_t *data, uint32_t bytes);
/* A frame of the server's. */
void client_hear(struct client *client, const struct sent_frame *frame);
/* Ethernet and IP headers of a packet to the server. Returns their length. */
uint32_t client_headers(const struct client *client, uint8_t *frame, uint8_t protocol, uint32_t payload_bytes);

static inline bool client_v6(const struct client *client)
{
    return client->port % 2 != 0;
}

#endif
