#include "bounds.h"

#include <stdlib.h>
#include <string.h>
#include <x86intrin.h>

#include "wire/checksum.h"
#include "wire/wire.h"

#define HEAD_BYTES                                                                                                   \
    (sizeof(struct wire_eth) + sizeof(struct wire_ipv4) + sizeof(struct wire_tcp) +                                  \
     sizeof(struct wire_tcp_timestamps))

/* All that is the same in each of a connection's segments, and its sums. */
struct peer {
    uint8_t head[HEAD_BYTES];
    uint32_t seq;
    uint64_t ip_sum, tcp_sum;
} __attribute__((aligned(128)));

/* What a run works on. */
struct bound {
    const struct image *image;
    struct nmio_region *region;
    struct nmio_tx *tx;
    uint32_t next_buffer;
};

static void peer_init(struct peer *peer, uint32_t number)
{
    struct wire_eth eth = {
        .destination = {2, 0, 0, 0, 0, 2}, .source = {2, 0, 0, 0, 0, 1}, .type = be16(ETH_TYPE_IPV4)};
    struct wire_ipv4 ip = {.version_ihl = 0x45, .ttl = IP_TTL, .protocol = IP_PROTOCOL_TCP, .source = {192, 0, 2, 1}};
    struct wire_tcp tcp = {.source_port = be16(80), .offset = 8 << 4, .flags = TCP_ACK, .window = be16(16384)};
    struct wire_tcp_timestamps option = {be32(TCP_TIMESTAMPS_ALIGNED), be32(1), be32(1)};
    tcp.destination_port = be16((uint16_t)(1024 + number % 60000));
    memcpy(ip.destination, (uint8_t[]){198, 18, (uint8_t)(number / 60000), 1}, 4);
    memcpy(peer->head, &eth, sizeof(eth));
    memcpy(peer->head + sizeof(eth), &ip, sizeof(ip));
    memcpy(peer->head + sizeof(eth) + sizeof(ip), &tcp, sizeof(tcp));
    memcpy(peer->head + sizeof(eth) + sizeof(ip) + sizeof(tcp), &option, sizeof(option));
    peer->ip_sum = checksum_sum(&ip, sizeof(ip));
    peer->tcp_sum =
        checksum_sum(ip.source, 8) + checksum_sum(&tcp, sizeof(tcp)) + checksum_sum(&option, sizeof(option));
}

/* Where a frame is sent from: its slot, or a buffer that it is copied to. */
static inline uint32_t chunk_of(struct bound *bound, uint64_t kind, const struct ssi_frame *frame)
{
    struct nmio_region *region = bound->region;
    if (kind == BOUND_PATCH)
        return region->first_slot + frame->slot;
    uint32_t chunk = bound->next_buffer;
    bound->next_buffer = chunk + 1 < region->buffer_count ? chunk + 1 : 0;
    memcpy(nmio_chunk(region, chunk) + SSI_PAYLOAD_OFFSET,
           bound->image->slots + (size_t)frame->slot * region->chunk_bytes + SSI_PAYLOAD_OFFSET,
           frame->payload_bytes);
    return chunk;
}

static inline void send_frame(struct bound *bound, uint64_t kind, struct peer *peer, const struct ssi_frame *frame)
{
    uint32_t chunk = chunk_of(bound, kind, frame);
    uint8_t *head = nmio_chunk(bound->region, chunk) + SSI_PAYLOAD_OFFSET - HEAD_BYTES;
    struct wire_ipv4 *ip = (struct wire_ipv4 *)(head + sizeof(struct wire_eth));
    struct wire_tcp *tcp = (struct wire_tcp *)(ip + 1);
    uint32_t tcp_bytes = (uint32_t)(HEAD_BYTES - sizeof(struct wire_eth) - sizeof(*ip)) + frame->payload_bytes;
    memcpy(head, peer->head, HEAD_BYTES);
    ip->total_bytes = be16((uint16_t)(sizeof(*ip) + tcp_bytes));
    ip->checksum = (uint16_t)~checksum_fold(peer->ip_sum + ip->total_bytes);
    tcp->seq = be32(peer->seq);
    uint64_t sum = peer->tcp_sum + tcp->seq + checksum_pseudo(IP_PROTOCOL_TCP, tcp_bytes) + frame->payload_sum;
    tcp->checksum = (uint16_t)~checksum_fold(sum);
    peer->seq += frame->payload_bytes;
    bound->tx->desc[bound->tx->count++] = (struct nmio_tx_desc){
        .head = head, .head_bytes = (uint32_t)HEAD_BYTES + frame->payload_bytes, .chunk = chunk};
}

/* One answer; its segments. A full TX ring is taken to have been sent. */
static uint32_t answer(struct bound *bound, uint64_t kind, struct peer *peer, const struct ssi_response *response)
{
    const struct ssi_frame *frame = &bound->image->frames[response->first_frame];
    for (uint64_t left = response->stream_bytes; left > 0; left -= frame->payload_bytes, frame++) {
        if (bound->tx->count == bound->tx->capacity)
            bound->tx->count = 0;
        send_frame(bound, kind, peer, frame);
    }
    return (uint32_t)(frame - &bound->image->frames[response->first_frame]);
}

/* In which order connections get their answers. */
static uint32_t *order_of(uint32_t count, bool random, uint64_t *state)
{
    uint32_t *order = calloc(count, sizeof(*order));
    if (order == NULL)
        abort();
    for (uint32_t i = 0; i < count; i++) {
        uint32_t other = random ? random_below(state, i + 1) : i;
        order[i] = order[other];
        order[other] = i;
    }
    return order;
}

struct bound_result bound_run(uint64_t kind, const struct image *image, struct nmio_region *region,
                              struct nmio_tx *tx, const struct target *targets, uint32_t target_count,
                              uint32_t connection_count, bool random, uint64_t requests)
{
    struct bound_result result = {0};
    struct bound bound = {.image = image, .region = region, .tx = tx};
    struct peer *peers = aligned_alloc(sizeof(struct peer), connection_count * sizeof(struct peer));
    if (peers == NULL)
        abort();
    for (uint32_t i = 0; i < connection_count; i++)
        peer_init(&peers[i], i);
    uint64_t state = 0;
    uint32_t *order = order_of(connection_count, random, &state);
    uint32_t target = 0, turn = 0;
    uint64_t before = __rdtsc();
    for (uint64_t i = 0; i < requests; i++) {
        if (random)
            target = random_below(&state, target_count);
        const struct ssi_response *response = targets[target].response;
        result.segments += answer(&bound, kind, &peers[order[turn]], response);
        result.bytes += response->stream_bytes;
        target = target + 1 < target_count ? target + 1 : 0;
        turn = turn + 1 < connection_count ? turn + 1 : 0;
    }
    result.cycles = __rdtsc() - before;
    tx->count = 0;
    free(order);
    free(peers);
    return result;
}
