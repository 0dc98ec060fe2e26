/* The stack as a whole: it puts libeth, libtcpip and an application together, over one region and one TX queue. A deterministic
 * function of frames, time and randomness: no system call, no clock, no allocation after stack_init. One stack
 * belongs to one worker. */
#ifndef SANDSTORM_STACK_H
#define SANDSTORM_STACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image/image.h"
#include "libeth/eth_config.h"
#include "libnmio/nmio.h"
#include "libtcpip/app.h"
#include "libtcpip/tcpip_config.h"

struct stack_config {
    struct eth_config eth;
    struct tcpip_config tcpip;
    const struct tcpip_app *app;
    const void *app_data; /* what it reads from beside the image, or NULL; must outlive the stack */
};

struct stack;
struct generation;
struct arena_frame;

/* What of the configuration is out of bounds, for an operator; NULL: nothing. */
const char *stack_config_error(const struct stack_config *config, const struct image *image,
                               const struct nmio_region *region);

/* Bytes that stack_init needs; 0 if the configuration is out of bounds. */
size_t stack_memory_bytes(const struct stack_config *config, const struct image *image,
                          const struct nmio_region *region);

/* Lays a stack out in memory (64-byte aligned, zeroed). Everything passed must outlive it. NULL if memory_bytes is
 * too small.
 *
 * Of the image a stack reads slots, frames, and of the header slot_bytes, segment_bytes, slot_count, frame_count and
 * response_count. All else is the application's: one without routes makes an image of those alone. */
struct stack *stack_init(void *memory, size_t memory_bytes, const struct stack_config *config,
                         const struct image *image, struct nmio_region *region, struct nmio_tx *tx);

/* Time, before anything else in a round. now_ns: monotonic; wall_s: seconds since 1970-01-01 UTC. */
void stack_clock(struct stack *stack, uint64_t now_ns, int64_t wall_s);

/* A batch of received frames. Replies and responses are appended to tx as its space allows. */
void stack_input(struct stack *stack, struct nmio_rx *batch, uint32_t count);

/* Runs due timers, and connections that waited for space in tx. Call once a round, after stack_input, and again
 * when space has come. */
void stack_output(struct stack *stack);

/* When stack_output must run next, in now_ns's time; UINT64_MAX: not before a frame arrives. */
uint64_t stack_deadline_ns(const struct stack *stack);

/* True while connections wait for space in tx. */
bool stack_waits_for_space(const struct stack *stack);

/* A new secret for SYN cookies; those made with the one before stay good until the next call. */
void stack_rotate_secret(struct stack *stack, const uint8_t *secret);

/* Stops accepting connections and closes idle ones; the others end with the answer they are in, or with that to the request of
 * which they have a part. */
void stack_drain(struct stack *stack);
/* Connections that have not come to that yet. */
uint32_t stack_unfinished(const struct stack *stack);
/* Resets those, as far as tx has space. True: there is none left. */
bool stack_abort(struct stack *stack);

/* Between two rounds: what is asked for from now on is answered from another image; what has been begun ends as it was. The
 * generation's state says what has become of it (libtcpip/swap.h). */
void stack_swap(struct stack *stack, struct generation *generation);
/* The one that is served. From any thread while none is handed over. */
struct generation *stack_generation(const struct stack *stack);
/* Connections that need an older one. From any thread. */
uint32_t stack_need_older(const struct stack *stack);

/* Connections go on that another stack has served, with the same configuration, in a process that has ended without a word: from is its
 * memory, and swaps how often its image has been swapped since. In a round's time, before anything else of it. What lies in from is
 * not trusted (libtcpip/resume.h). */
void stack_resume(struct stack *stack, const struct stack *from, uint32_t swaps);

/* The same from one build of this program to another (libtcpip/records.h). So many bytes are enough: */
uint64_t stack_records_bytes(const struct stack *stack);
/* Writes what goes on elsewhere, between two rounds; the stack must not be used any more. Returns the bytes used. memory: 8-byte
 * aligned. */
uint64_t stack_records_write(const struct stack *stack, uint8_t *memory, uint64_t len_bytes);
/* As stack_resume, with the image that was served there last and the same secret. False: they are none of ours, and nothing goes on. */
bool stack_resume_records(struct stack *stack, const uint8_t *memory, uint64_t len_bytes);

/* With ETH_ACD_FOLLOW: those addresses that nobody has contested here either are ours from now on. */
void stack_addresses_confirmed(struct stack *stack);

/* Of place index in the configuration: ETH_ADDRESS_*. From any thread. */
uint32_t stack_address_state(const struct stack *stack, uint32_t index);
/* How many frames said that the address is another's; mac (6 bytes): who sent the last. From any thread. */
uint32_t stack_address_conflicts(const struct stack *stack, uint32_t index, uint8_t *mac);

/* What an interface may change while we serve on it. */
struct stack_link {
    uint8_t mac[6];
    bool announce; /* in own-address mode, the neighbours are told again where we are */
    uint32_t mtu_bytes;
    uint32_t address_count; /* places: never fewer than before */
    struct eth_address addresses[ETH_ADDRESSES_MAX]; /* in shared mode; family 0: the place is empty */
};

/* Connections go on under another MAC and MTU. In shared mode those of an address that is no longer in its place end
 * without a word; a new one is ours at once. False, and nothing is changed, if it is out of bounds. */
bool stack_link_change(struct stack *stack, const struct stack_link *link);

/* What the application keeps, for functions of its own. */
void *stack_app_state(struct stack *stack);

/* Connections open now. */
uint32_t stack_connections(const struct stack *stack);

/* What has come so far that says how to wait for more, wake.h, but for the frames. */
struct wake_seen;
void stack_seen(const struct stack *stack, struct wake_seen *seen);

/* A connection looked at from outside. Positions are 64-bit; their low half is the sequence number. */
struct stack_connection {
    uint32_t state; /* enum tcp_state, libtcpip/tcb.h */
    uint16_t peer_port; /* host byte order */
    uint16_t mss_bytes;
    uint64_t snd_una, snd_nxt, snd_end;
    uint32_t snd_wnd, cwnd, ssthresh, pipe; /* bytes; pipe: in flight by RFC 8985's reckoning */
    uint32_t srtt_us, rto_us;
    uint8_t peer[16];
    uint8_t family;
    bool in_recovery;
};

/* Fills in what place index, below max_connections, holds; false if that is free. */
bool stack_connection_at(const struct stack *stack, uint32_t index, struct stack_connection *connection);

/* Where the numbers of a stack lie that can be read from any thread, and from a process that does not trust the one that runs it: taken
 * when nobody runs it yet, and nothing that it may change is followed to read them. */
struct stack_view {
    const struct stack *stack;
    const struct tcpip_app *app;
    const uint64_t *app_counters;
    const uint32_t *response_uses; /* [response_count] */
    const struct arena_frame *frames; /* [frame_count] */
    uint32_t response_count, frame_count;
};

void stack_view(const struct stack *stack, struct stack_view *view);

/* How often a response has been begun (a range: the whole that it is a part of), and the most slots that a frame has held at
 * once, of the image that the stack was laid out with: what a profile is made of. */
uint32_t stack_response_uses(const struct stack_view *view, uint32_t response);
uint32_t stack_frame_high_water(const struct stack_view *view, uint32_t frame);

/* One counter for everything counted, a reason for every drop: of all layers, and of the application. */
uint32_t stack_counter_count(const struct stack_view *view);
const char *stack_counter_name(const struct stack_view *view,
                               uint32_t index); /* "tcp_drop_checksum"; NULL beyond the last */
uint64_t stack_counter(const struct stack_view *view, uint32_t index);

#endif
