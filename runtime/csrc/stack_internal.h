/* What the layers share: the stack's state, and each layer's entry points under the paper's names. */
#ifndef SANDSTORM_STACK_INTERNAL_H
#define SANDSTORM_STACK_INTERNAL_H

#include "counters.h"
#include "frames/arena.h"
#include "libeth/claim.h"
#include "libeth/mld.h"
#include "libtcpip/composed.h"
#include "libtcpip/fragment.h"
#include "libtcpip/limit.h"
#include "libtcpip/pmtu.h"
#include "libtcpip/request.h"
#include "libtcpip/span_ring.h"
#include "libtcpip/tcb.h"
#include "libtcpip/timer.h"
#include "stack.h"

struct stack {
    struct stack_config config;
    const struct image *image;
    struct nmio_region *region;
    struct nmio_tx *tx;
    uint64_t now_us;
    int64_t wall_s;
    bool draining;

    struct claim claims[STACK_ADDRESSES_MAX];
    uint64_t own_last_bytes[4]; /* of our addresses: a bit for each value */
    struct mld mld;
    uint64_t claim_next_us; /* when claim_run or mld_run has something to do; UINT64_MAX: never */

    /* SYN cookies: the secret in use and the one before. */
    uint8_t secrets[2][STACK_SECRET_BYTES];
    uint32_t cookie_salts[2]; /* of these */
    struct limits limits;

    /* The Date field of this second, and its sum at an even offset. */
    int64_t date_s;
    uint8_t date_text[32];
    uint64_t date_sum;

    struct tcb *tcbs;
    uint32_t *tcb_free; /* stack of free indices */
    uint32_t tcb_free_count;
    uint32_t tcb_hand; /* where the next look for an idle connection begins */
    struct tcb_entry *table;
    uint32_t table_mask;
    struct time_wait *time_waits;
    uint32_t time_wait_mask; /* of sets */
    struct fragment_packet *fragments; /* [FRAGMENT_PACKETS] */
    bool reassembling; /* what tcpip_input takes came in fragments */
    struct pmtu_path *paths;
    uint64_t paths_until_us; /* when the last of them has expired */
    struct tcp_run *boards; /* [][SCOREBOARD_RUNS] */
    uint32_t *board_free; /* stack of free indices */
    uint32_t board_free_count;

    uint8_t *requests; /* [max_half_requests][TCB_REQUEST_BYTES] */
    struct request_buffer *request_buffers;
    uint32_t request_free; /* a stack of buffers, through next */
    struct request_list request_lists[REQUEST_KINDS]; /* those in use */

    struct tcp_span *span_rings; /* [][SPAN_RING_SPANS] */
    uint32_t *span_ring_free; /* stack of free indices */
    uint32_t span_ring_free_count;

    uint8_t *composed; /* [][COMPOSED_BYTES] */
    uint32_t *composed_free; /* stack of free indices */
    uint32_t composed_free_count;
    struct composed_use *composed_uses; /* of each buffer that is in use */
    uint32_t composed_first, composed_last; /* of those, the oldest and the youngest */

    uint32_t ready_first, ready_last; /* FIFO of TCBs that may have something to send */

    struct timer_wheel wheel;
    uint64_t idle_check_us; /* the shortest time without progress that may be too long */
    struct arena arena;
    uint32_t *response_uses; /* [response_count] */
    uint64_t counters[COUNTER_COUNT];
};

struct tcb_entry {
    uint32_t hash;
    uint32_t index; /* TCB_NONE: empty */
};

#define COUNT(stack, name) ((stack)->counters[COUNTER_##name]++)
#define COUNT_BY(stack, name, by) ((stack)->counters[COUNTER_##name] += (by))

/* A received packet on its way up. */
struct packet {
    uint8_t *frame; /* Ethernet header */
    uint8_t *ip;
    uint8_t *payload; /* behind the IP header */
    uint32_t payload_bytes; /* as the IP header says, all there */
    uint8_t family; /* SSI_FAMILY_* */
    uint8_t local; /* index of our address that it is for */
    uint8_t rx_flags; /* NMIO_RX_*, of the transport checksum */
};

/* libeth */
void eth_input(struct stack *stack, const struct nmio_rx *rx);
/* Appends a whole frame in a chunk of ours to tx; the chunk is tx's from then on. The caller has checked
 * tcpip_space. */
void eth_output(struct stack *stack, uint8_t *frame, uint32_t len_bytes, uint32_t chunk);
void arp_input(struct stack *stack, uint8_t *frame, uint32_t len_bytes);
void nd_input(struct stack *stack, const struct packet *packet);
/* Index of our address, or -1. bytes: 4 or 16 of them. */
int stack_address_find(const struct stack *stack, uint8_t family, const uint8_t *bytes);
static inline bool stack_address_is_ours(const struct stack *stack, uint32_t index)
{
    return stack->claims[index].state == STACK_ADDRESS_OURS;
}
/* A free buffer for a small frame and room for it in tx, or NMIO_NONE (counted). */
uint32_t eth_buffer(struct stack *stack);
/* Where the Ethernet header of a small frame is put in a buffer: the IP header is 16-byte aligned. */
#define ETH_BUFFER_OFFSET 50

/* libtcpip */
void tcpip_input(struct stack *stack, uint8_t *frame, uint32_t len_bytes, uint32_t rx_flags);
void ip_init(struct stack *stack);
void icmp_input(struct stack *stack, const struct packet *packet);
void tcp_input(struct stack *stack, const struct packet *packet);
/* Which frames of a batch of up to 64 are ACKs without data that a later one of it stands for, and so need not be taken
 * (ack_run.c): bit i for frame i. Sets NMIO_RX_CHECKSUM_OK where it has verified one. */
uint64_t tcp_acks_overtaken(const struct stack *stack, struct nmio_rx *batch, uint32_t count);
/* Ahead of tcp_input, for a frame that may hold a segment of ours: begins to fetch its connection's entry in the table, and
 * returns its hash (0: nothing is fetched), with which a moment later the TCB is, and the data. */
struct stack_ahead tcp_prefetch_entry(const struct stack *stack, const struct nmio_rx *rx);
void tcp_prefetch_tcb(const struct stack *stack, uint64_t hash);
void tcpip_timeout(struct stack *stack, struct tcb *tcb);
enum tcpip_sent {
    TCPIP_SENT, /* all that the windows allow */
    TCPIP_TURN_OVER, /* all that one turn in the FIFO allows */
    TCPIP_NO_SPACE, /* of tx: call again when there is some */
};
/* Sends what the windows, the connection's turn and tx's space allow. */
enum tcpip_sent tcpip_output(struct stack *stack, struct tcb *tcb);
/* Queues a span behind snd_end; its start and end are set here from len_bytes. The caller has checked
 * tcpip_can_write. */
void tcpip_write(struct stack *stack, struct tcb *tcb, const struct tcp_span *span, uint64_t len_bytes);
bool tcpip_can_write(const struct tcb *tcb);
/* Copies [offset, offset + len_bytes) of the response that a span is of, patched as the application says. */
void tcpip_copy(struct stack *stack, const struct tcp_span *span, uint64_t offset, uint8_t *dst, uint32_t len_bytes);
/* No more will be written; FIN goes out behind the last byte. */
void tcpip_finish(struct stack *stack, struct tcb *tcb);
/* Gives unread bytes to the application again; after a queued response has gone. */
void tcpip_recv(struct stack *stack, struct tcb *tcb, const uint8_t *data, uint32_t len_bytes);
/* The peer has had its time: what the application has to say to that, and FIN. request_begun: a request is half read. */
void tcpip_give_up(struct stack *stack, struct tcb *tcb, bool request_begun);
/* The TCB may have something to send. */
void tcpip_ready(struct stack *stack, struct tcb *tcb);
/* Headers of a packet of ours that answers none of a connection's (RST, SYN-ACK, echo): swaps the addresses of the one
 * received. Returns where the IP payload goes. */
uint8_t *ip_reply_headers(struct stack *stack, const struct packet *packet, uint8_t *frame, uint8_t protocol,
                          uint32_t payload_bytes);
uint64_t ip_pseudo_sum(const struct packet *packet, uint8_t protocol, uint32_t payload_bytes);

#endif
