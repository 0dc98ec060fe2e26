#include "ack_coalesce.h"

#include "segment.h"
#include "wire/checksum.h"
#include "wire/seq.h"

#define PLACES 8 /* flows that are remembered together */
#define IPV4_BYTES (sizeof(struct wire_eth) + sizeof(struct wire_ipv4)) /* in front of TCP */
#define IPV6_BYTES (sizeof(struct wire_eth) + sizeof(struct wire_ipv6))
#define TCP_BYTES sizeof(struct wire_tcp)
#define TIMESTAMPS_BYTES sizeof(struct wire_tcp_timestamps)
#define LEAST_BYTES (IPV6_BYTES + 4) /* with ports, whatever the family */
#define BARE_BYTES_MAX (IPV6_BYTES + TCP_BYTES + TIMESTAMPS_BYTES) /* the longest ACK without data */

/* What differs of so many bytes from an offset on; in whole words, so that no branch is taken for each. */
static inline uint64_t differs64(const uint8_t *one, const uint8_t *other, uint32_t offset)
{
    return load64(one + offset) ^ load64(other + offset);
}

static inline uint64_t differs32(const uint8_t *one, const uint8_t *other, uint32_t offset)
{
    uint32_t a, b;
    memcpy(&a, one + offset, sizeof(a));
    memcpy(&b, other + offset, sizeof(b));
    return a ^ b;
}

static inline uint64_t differs16(const uint8_t *one, const uint8_t *other, uint32_t offset)
{
    uint16_t a, b;
    memcpy(&a, one + offset, sizeof(a));
    memcpy(&b, other + offset, sizeof(b));
    return (uint64_t)(a ^ b);
}

static inline const struct wire_tcp *tcp_at(const uint8_t *frame, uint32_t tcp_offset)
{
    return (const struct wire_tcp *)(frame + tcp_offset);
}

/* Where TCP begins in a frame, if it is TCP of the usual form that has timestamps or no options; else 0. *data_bytes: behind
 * its header. */
static uint32_t usual(const struct nmio_rx *rx, uint32_t *data_bytes)
{
    const struct wire_eth *eth = (const struct wire_eth *)rx->data;
    const struct wire_ipv4 *v4 = (const struct wire_ipv4 *)(eth + 1);
    const struct wire_ipv6 *v6 = (const struct wire_ipv6 *)(eth + 1);
    uint32_t offset = 0, tcp_bytes = 0;
    if (rx->len_bytes < IPV4_BYTES + TCP_BYTES)
        return 0;
    if (eth->type == be16(ETH_TYPE_IPV4) && v4->version_ihl == 0x45 && v4->protocol == IP_PROTOCOL_TCP &&
        (v4->fragment & be16(IPV4_FRAGMENT_MASK)) == 0) {
        offset = IPV4_BYTES;
        tcp_bytes = be16(v4->total_bytes) - (uint32_t)sizeof(*v4);
    } else if (eth->type == be16(ETH_TYPE_IPV6) && rx->len_bytes >= IPV6_BYTES + TCP_BYTES &&
               v6->next_header == IP_PROTOCOL_TCP) {
        offset = IPV6_BYTES;
        tcp_bytes = be16(v6->payload_bytes);
    }
    if (offset == 0 || tcp_bytes > rx->len_bytes - offset)
        return 0;
    const struct wire_tcp *tcp = tcp_at(rx->data, offset);
    uint32_t header_bytes = (uint32_t)(tcp->offset >> 4) * 4;
    *data_bytes = tcp_bytes - header_bytes;
    if (header_bytes > tcp_bytes)
        return 0;
    if (header_bytes == TCP_BYTES)
        return offset;
    const struct wire_tcp_timestamps *option = (const struct wire_tcp_timestamps *)(tcp + 1);
    return header_bytes == TCP_BYTES + TIMESTAMPS_BYTES && option->nop_nop_kind_length == be32(TCP_TIMESTAMPS_ALIGNED)
               ? offset
               : 0;
}

/* An ACK without data, the last of its flow. */
struct place {
    const uint8_t *frame; /* NULL: none */
    uint64_t before; /* frames of the batch that it stands for if it is sound, a bit for each */
    uint32_t number; /* in the batch */
    uint32_t len_bytes, tcp_offset;
};

/* Addresses, ports and sequence number; and the length of TCP's header. */
static inline bool is_same_flow(const uint8_t *one, const uint8_t *other, uint32_t offset)
{
    uint64_t differing = differs64(one, other, offset) | differs64(one, other, offset - 8);
    if (offset == IPV6_BYTES)
        differing |= differs64(one, other, offset - 16) | differs64(one, other, offset - 24) |
                     differs64(one, other, offset - 32);
    return (differing | (uint64_t)(tcp_at(one, offset)->offset ^ tcp_at(other, offset)->offset)) == 0;
}

/* Is a frame another ACK without data of this flow? It is if all that usual() looks at is the same. */
static inline bool is_another(const struct place *ack, const struct nmio_rx *rx)
{
    const uint8_t *one = ack->frame, *other = rx->data;
    uint32_t offset = ack->tcp_offset;
    if (ack->len_bytes != rx->len_bytes || !is_same_flow(one, other, offset))
        return false;
    uint64_t differing = differs64(one, other, 8); /* type and version are in it */
    differing |= offset == IPV4_BYTES ? differs16(one, other, 16) | differs32(one, other, 20) /* all but id */
                                      : differs32(one, other, 16) | differs16(one, other, 20); /* and checksum */
    differing |= differs16(one, other, offset + offsetof(struct wire_tcp, offset)); /* and flags */
    if (ack->len_bytes >= offset + TCP_BYTES + TIMESTAMPS_BYTES)
        differing |= differs32(one, other, offset + TCP_BYTES);
    return differing == 0;
}

static bool acknowledges_more(const struct place *ack, const uint8_t *later)
{
    return seq_lt(be32(tcp_at(ack->frame, ack->tcp_offset)->ack), be32(tcp_at(later, ack->tcp_offset)->ack));
}

/* Data that its sender puts behind an ACK of its own: says the same, and more. */
static bool is_data_behind(const struct place *ack, const struct nmio_rx *rx)
{
    uint32_t data_bytes;
    return usual(rx, &data_bytes) == ack->tcp_offset && is_same_flow(ack->frame, rx->data, ack->tcp_offset) &&
           (tcp_at(rx->data, ack->tcp_offset)->flags & ~TCP_PSH) == TCP_ACK;
}

/* Where a flow's last ACK is remembered; another's may be there. */
static struct place *place_of(struct place *places, const uint8_t *frame)
{
    const struct wire_eth *eth = (const struct wire_eth *)frame;
    const struct wire_tcp *tcp = tcp_at(frame, eth->type == be16(ETH_TYPE_IPV6) ? IPV6_BYTES : IPV4_BYTES);
    return &places[(uint8_t)(be16(tcp->source_port) ^ be16(tcp->destination_port)) % PLACES];
}

/* A frame of the usual form: it is for us alone, and its checksums are right, or the port vouches for TCP's. */
static bool is_sound(const struct eth *own, struct nmio_rx *rx, uint32_t tcp_offset)
{
    const struct wire_eth *eth = (const struct wire_eth *)rx->data;
    if (memcmp(eth->destination, own->config.mac, ETH_ADDRESS_BYTES) != 0 || (eth->source[0] & ETH_GROUP) != 0)
        return false;
    struct packet packet = {
        .ip = rx->data + sizeof(struct wire_eth), .payload = rx->data + tcp_offset, .rx_flags = (uint8_t)rx->flags};
    const struct wire_ipv4 *v4 = (const struct wire_ipv4 *)packet.ip;
    if (tcp_offset == IPV4_BYTES) {
        packet.family = IP_FAMILY_V4;
        packet.payload_bytes = be16(v4->total_bytes) - (uint32_t)sizeof(*v4);
        if (checksum_fold(checksum_sum(v4, sizeof(*v4))) != 0xffff)
            return false;
    } else {
        packet.family = IP_FAMILY_V6;
        packet.payload_bytes = be16(((const struct wire_ipv6 *)packet.ip)->payload_bytes);
    }
    if (!segment_checksum_good(&packet))
        return false;
    rx->flags |= NMIO_RX_CHECKSUM_OK | NMIO_RX_HEADER_OK;
    return true;
}

/* The frames that a run's last one stands for. */
static inline uint64_t end_run(const struct eth *own, struct nmio_rx *batch, const struct place *last)
{
    return last->before != 0 && is_sound(own, &batch[last->number], last->tcp_offset) ? last->before : 0;
}

/* The run up to a frame that is about to follow its last one. */
static inline uint64_t run_before(const struct place *last)
{
    return last->before | UINT64_C(1) << last->number;
}

/* An ACK without data that is the first of its flow, or at odds with the last. */
static void remember(struct place *place, const struct nmio_rx *rx, uint32_t number)
{
    uint32_t data_bytes, offset = usual(rx, &data_bytes);
    if (offset != 0 && data_bytes == 0 && tcp_at(rx->data, offset)->flags == TCP_ACK)
        *place = (struct place){rx->data, 0, number, rx->len_bytes, offset};
}

/* Takes a frame without data into the run of its flow, or begins another. Returns the frames that are superseded by that. */
static inline uint64_t take_bare(const struct eth *own, struct place *place, struct nmio_rx *batch, uint32_t number)
{
    const struct nmio_rx *rx = &batch[number];
    uint64_t superseded = 0;
    if (place->frame == NULL || !is_another(place, rx)) {
        superseded = end_run(own, batch, place);
        remember(place, rx, number);
        return superseded;
    }
    if (acknowledges_more(place, rx->data)) {
        place->before = run_before(place);
    } else {
        superseded = end_run(own, batch, place);
        place->before = 0;
    }
    place->frame = rx->data;
    place->number = number;
    return superseded;
}

/* The frames that one with data stands for. */
static inline uint64_t take_data(const struct eth *own, struct place *place, struct nmio_rx *batch, uint32_t number)
{
    struct nmio_rx *rx = &batch[number];
    if (place->frame == NULL || !is_data_behind(place, rx) || !acknowledges_more(place, rx->data) ||
        !is_sound(own, rx, place->tcp_offset))
        return 0;
    uint64_t superseded = run_before(place);
    place->before = 0;
    return superseded;
}

uint64_t ack_coalesce(const struct eth *own, struct nmio_rx *batch, uint32_t count)
{
    struct place places[PLACES];
    uint64_t superseded = 0;
    uint32_t i = 0;
    while (i < count && batch[i].len_bytes > BARE_BYTES_MAX)
        i++;
    if (i == count) /* requests only: nothing to do */
        return 0;
    for (uint32_t p = 0; p < PLACES; p++)
        places[p].frame = NULL, places[p].before = 0;
    for (; i < count; i++) {
        const struct nmio_rx *rx = &batch[i];
        if (rx->len_bytes < LEAST_BYTES)
            continue;
        struct place *place = place_of(places, rx->data);
        superseded |=
            rx->len_bytes <= BARE_BYTES_MAX ? take_bare(own, place, batch, i) : take_data(own, place, batch, i);
    }
    for (uint32_t p = 0; p < PLACES; p++)
        superseded |= end_run(own, batch, &places[p]);
    return superseded;
}
