#include "reassembly.h"

#include "wire/checksum.h"
#include "wire/ipv6_extension.h"

/* One fragment. */
struct piece {
    struct fragment_key key;
    const uint8_t *data;
    uint32_t offset, bytes;
    bool more; /* come behind it */
    uint8_t next; /* protocol, or what IPv6's fragment header says */
};

static void read_ipv4(const struct packet *packet, struct piece *piece)
{
    const struct wire_ipv4 *ip = (const struct wire_ipv4 *)packet->ip;
    uint16_t field = be16(ip->fragment);
    memcpy(piece->key.source, ip->source, sizeof(ip->source));
    piece->key.id = ip->id;
    piece->key.protocol = piece->next = ip->protocol;
    piece->data = packet->payload;
    piece->bytes = packet->payload_bytes;
    piece->offset = (uint32_t)(field & IPV4_FRAGMENT_OFFSET) * FRAGMENT_UNIT_BYTES;
    piece->more = (field & IPV4_MORE_FRAGMENTS) != 0;
}

/* ipv6_walk has seen that the header is there. */
static void read_ipv6(const struct packet *packet, struct piece *piece)
{
    const uint8_t *header = packet->payload;
    uint16_t field = load_be16(header + 2);
    memcpy(piece->key.source, ((const struct wire_ipv6 *)packet->ip)->source, sizeof(piece->key.source));
    memcpy(&piece->key.id, header + 4, sizeof(piece->key.id));
    piece->next = header[0];
    piece->data = header + IPV6_EXTENSION_UNIT_BYTES;
    piece->bytes = packet->payload_bytes - IPV6_EXTENSION_UNIT_BYTES;
    piece->offset = field & ~7u;
    piece->more = (field & 1) != 0;
}

static bool is_alive(const struct fragment_packet *entry, uint64_t now_us)
{
    return entry->used && now_us - entry->since_us < FRAGMENT_LIFE_US;
}

/* Takes a place for a packet: a free one, or that of its source's oldest where it has its share, else of the oldest of all. */
static struct fragment_packet *begin(struct reassembly *reassembly, uint64_t now_us, const struct fragment_key *key,
                                     bool *evicted)
{
    struct fragment_packet *taken = &reassembly->packets[0], *own = NULL;
    uint32_t own_count = 0;
    for (uint32_t i = 0; i < FRAGMENT_PACKETS; i++) {
        struct fragment_packet *entry = &reassembly->packets[i];
        if (is_alive(taken, now_us) && (!is_alive(entry, now_us) || entry->since_us < taken->since_us))
            taken = entry;
        if (!is_alive(entry, now_us) || entry->key.family != key->family ||
            memcmp(entry->key.source, key->source, sizeof(key->source)) != 0)
            continue;
        own_count++;
        if (own == NULL || entry->since_us < own->since_us)
            own = entry;
    }
    if (own != NULL && own_count >= FRAGMENT_PACKETS_OF_SOURCE)
        taken = own;
    *evicted = is_alive(taken, now_us);
    taken->key = *key;
    taken->since_us = now_us;
    taken->payload_bytes = taken->unit_count = 0;
    taken->used = true;
    taken->refused = false;
    memset(taken->units, 0, sizeof(taken->units));
    return taken;
}

static struct fragment_packet *find(struct reassembly *reassembly, uint64_t now_us, const struct fragment_key *key,
                                    bool *evicted)
{
    for (uint32_t i = 0; i < FRAGMENT_PACKETS; i++)
        if (is_alive(&reassembly->packets[i], now_us) && memcmp(&reassembly->packets[i].key, key, sizeof(*key)) == 0)
            return &reassembly->packets[i];
    return begin(reassembly, now_us, key, evicted);
}

static uint32_t headers_bytes(const struct fragment_packet *entry)
{
    uint32_t ip_bytes = entry->key.family == IP_FAMILY_V4 ? sizeof(struct wire_ipv4) : sizeof(struct wire_ipv6);
    return (uint32_t)sizeof(struct wire_eth) + ip_bytes;
}

/* Are all units of a fragment new, or none of them (with the same bytes: it came twice)? */
enum overlap { OVERLAP_NONE, OVERLAP_SAME, OVERLAP_BAD };
static enum overlap overlap_of(const struct fragment_packet *entry, const struct piece *piece)
{
    uint32_t first = piece->offset / FRAGMENT_UNIT_BYTES, old = 0;
    uint32_t count = (piece->bytes + FRAGMENT_UNIT_BYTES - 1) / FRAGMENT_UNIT_BYTES;
    for (uint32_t unit = first; unit < first + count; unit++)
        old += (uint32_t)(entry->units[unit / 64] >> unit % 64 & 1);
    if (old == 0)
        return OVERLAP_NONE;
    bool same = memcmp(entry->frame + headers_bytes(entry) + piece->offset, piece->data, piece->bytes) == 0;
    return old == count && same ? OVERLAP_SAME : OVERLAP_BAD;
}

/* Does a fragment say another length than those before? */
static bool is_at_odds(const struct fragment_packet *entry, const struct piece *piece)
{
    uint32_t end = piece->offset + piece->bytes;
    if (entry->payload_bytes != 0)
        return piece->more ? end > entry->payload_bytes : end != entry->payload_bytes;
    if (piece->more)
        return false;
    for (uint32_t unit = (end + FRAGMENT_UNIT_BYTES - 1) / FRAGMENT_UNIT_BYTES; unit < FRAGMENT_UNITS; unit++)
        if ((entry->units[unit / 64] >> unit % 64 & 1) != 0)
            return true;
    return false;
}

static void keep(struct fragment_packet *entry, const struct packet *packet, const struct piece *piece)
{
    uint32_t first = piece->offset / FRAGMENT_UNIT_BYTES;
    uint32_t count = (piece->bytes + FRAGMENT_UNIT_BYTES - 1) / FRAGMENT_UNIT_BYTES;
    for (uint32_t unit = first; unit < first + count; unit++)
        entry->units[unit / 64] |= UINT64_C(1) << unit % 64;
    entry->unit_count += count;
    memcpy(entry->frame + headers_bytes(entry) + piece->offset, piece->data, piece->bytes);
    if (!piece->more)
        entry->payload_bytes = piece->offset + piece->bytes;
    if (piece->offset != 0)
        return;
    /* The first one's headers are the whole's, without options: those have been passed over. */
    memcpy(entry->frame, packet->frame, sizeof(struct wire_eth));
    memcpy(entry->frame + sizeof(struct wire_eth), packet->ip, headers_bytes(entry) - sizeof(struct wire_eth));
    struct wire_ipv6 *v6 = (struct wire_ipv6 *)(entry->frame + sizeof(struct wire_eth));
    if (entry->key.family == IP_FAMILY_V6)
        v6->next_header = piece->next;
}

static bool is_whole(const struct fragment_packet *entry)
{
    return entry->payload_bytes != 0 &&
           entry->unit_count == (entry->payload_bytes + FRAGMENT_UNIT_BYTES - 1) / FRAGMENT_UNIT_BYTES;
}

/* As if it had come in one piece. Its place is free from then on. */
static uint32_t make_whole(struct fragment_packet *entry)
{
    uint8_t *ip = entry->frame + sizeof(struct wire_eth);
    if (entry->key.family == IP_FAMILY_V4) {
        struct wire_ipv4 *v4 = (struct wire_ipv4 *)ip;
        v4->version_ihl = 0x45;
        v4->total_bytes = be16((uint16_t)(sizeof(*v4) + entry->payload_bytes));
        v4->fragment = v4->checksum = 0;
        v4->checksum = (uint16_t)~checksum_fold(checksum_sum(v4, sizeof(*v4)));
    } else {
        ((struct wire_ipv6 *)ip)->payload_bytes = be16((uint16_t)entry->payload_bytes);
    }
    entry->used = false;
    return headers_bytes(entry) + entry->payload_bytes;
}

void reassembly_lay_out(struct reassembly *reassembly, struct layout *layout, bool enabled)
{
    reassembly->packets = layout_take(layout, (enabled ? FRAGMENT_PACKETS : 0) * sizeof(*reassembly->packets));
    reassembly->enabled = enabled;
}

static bool read_piece(const struct packet *packet, struct piece *piece)
{
    *piece = (struct piece){.key = {.local = packet->local, .family = packet->family}};
    if (packet->family == IP_FAMILY_V4)
        read_ipv4(packet, piece);
    else
        read_ipv6(packet, piece);
    return piece->bytes > 0 && piece->offset + piece->bytes <= FRAGMENT_PAYLOAD_BYTES &&
           (!piece->more || piece->bytes % FRAGMENT_UNIT_BYTES == 0);
}

enum reassembly_verdict reassembly_input(struct reassembly *reassembly, uint64_t now_us, const struct packet *packet,
                                         uint8_t **frame, uint32_t *len_bytes, bool *evicted)
{
    struct piece piece;
    *evicted = false;
    if (!reassembly->enabled || !read_piece(packet, &piece))
        return REASSEMBLY_DROPPED;
    struct fragment_packet *entry = find(reassembly, now_us, &piece.key, evicted);
    enum overlap overlap = entry->refused ? OVERLAP_BAD : overlap_of(entry, &piece);
    if (overlap == OVERLAP_BAD || is_at_odds(entry, &piece)) {
        entry->refused = true;
        return REASSEMBLY_OVERLAP;
    }
    if (overlap == OVERLAP_NONE)
        keep(entry, packet, &piece);
    if (!is_whole(entry))
        return REASSEMBLY_KEPT;
    *frame = entry->frame;
    *len_bytes = make_whole(entry);
    return REASSEMBLY_WHOLE;
}
