/* Connections as one build of this program leaves them to another: records of their own form, as the memory of a stack has another one in
 * each build. In memory that both have, from its first byte on, in the machine's byte order:
 *
 *   struct records_header
 *   struct time_wait_record[time_wait_count]
 *   connection_count times, each on a multiple of 8 bytes:
 *     struct connection_record
 *     struct slice_record[slice_count], of what is not acknowledged, one behind the other
 *     composed_bytes of responses that were made when they were asked for; slices say where
 *     unread_bytes of a request of which a part has come
 *
 * What is in none is not needed to go on: what was in flight is taken for sent once, and windows begin anew. Whoever changes a record,
 * or what a value in one means, gives RECORDS_VERSION the next number. */
#ifndef SANDSTORM_RECORDS_H
#define SANDSTORM_RECORDS_H

#include <stdbool.h>
#include <stdint.h>

#define RECORDS_VERSION 1
#define RECORDS_MAGIC "sandrecs"
#define RECORDS_MAGIC_BYTES 8
#define RECORD_SECRET_BYTES 16
#define RECORD_HEADER_BYTES 64

struct records_header {
    uint8_t magic[RECORDS_MAGIC_BYTES];
    uint32_t version;
    uint32_t place; /* of the generation that slices are of, and an answer that is in progress */
    uint32_t connection_count, time_wait_count;
    uint64_t used_bytes; /* with this */
    uint8_t flow_secret[RECORD_SECRET_BYTES];
    uint8_t secrets[2][RECORD_SECRET_BYTES];
    uint32_t salts[2];
};

/* struct time_wait. */
struct time_wait_record {
    uint64_t hash, expires_us;
    uint32_t snd_nxt, rcv_nxt, irs, ts_recent, ts_offset, quiet_until_ms;
    uint32_t timestamps, ended;
};

#define RECORD_TIMESTAMPS 1u
#define RECORD_SACK 2u
#define RECORD_ECN 4u
#define RECORD_ECT 8u
#define RECORD_FIN_QUEUED 0x10u
#define RECORD_FIN_RECEIVED 0x20u
#define RECORD_PEER_DONE 0x40u
#define RECORD_REQUEST_BEGUN 0x80u

/* Names and units are those of struct tcb. */
struct connection_record {
    uint64_t bytes; /* with all that belongs to it */
    uint8_t peer[16], local[16]; /* addresses in network order; IPv4 in the first four, then zeros */
    uint16_t peer_port; /* network order */
    uint8_t family, state, ip_bytes, snd_wscale;
    uint16_t mss;
    uint32_t flags; /* RECORD_* */
    uint32_t slice_count, composed_bytes, buffered_bytes;
    uint64_t snd_una, snd_nxt, snd_end, progress_us, app, pseudo_sum, ip_sum;
    uint32_t snd_wnd, snd_wnd_max, snd_wl1, snd_wl2, rcv_nxt, ts_recent, ts_offset, last_ack_sent, irs, unread_bytes;
    uint32_t opened_s, cwnd, srtt_us, rttvar_us, rto_us, min_rtt_us;
    uint8_t header[RECORD_HEADER_BYTES];
};

struct slice_record {
    uint64_t start, end, skip;
    uint32_t first_frame; /* or where it begins among the composed bytes */
    uint32_t is_composed;
    uint64_t app[4];
};

_Static_assert(sizeof(struct records_header) == 88 && sizeof(struct time_wait_record) == 48 &&
                   sizeof(struct connection_record) == 248 && sizeof(struct slice_record) == 64,
               "another form is another RECORDS_VERSION");

struct tcpip;

/* So many bytes hold the records of all connections that there can be. */
uint64_t tcpip_records_bytes(const struct tcpip *tcpip);
/* Writes them, of those that go on; between two rounds, and nothing may happen to a connection any more. memory: 8-byte aligned. What does
 * not fit, or is in the middle of an answer from an image that is not the newest, is in none: it is reset when it speaks. Returns
 * the bytes used; 0: there is no room for any. */
uint64_t tcpip_records_write(const struct tcpip *tcpip, uint8_t *memory, uint64_t len_bytes);

/* One that was read: its parts, within the memory that it is in. */
struct read_record {
    const struct connection_record *connection;
    const struct slice_record *slices;
    const uint8_t *composed, *unread;
};

/* The header, if it is of this version and all of it is there; NULL: there is nothing to be read. */
const struct records_header *records_header_read(const uint8_t *memory, uint64_t len_bytes);
const struct time_wait_record *records_time_waits(const struct records_header *header);
/* The record at *at, 0 at first, which moves on. False: there is none, or it is none. */
bool records_next(const struct records_header *header, uint64_t *at, struct read_record *record);

#endif
