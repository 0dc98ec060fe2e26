#include "kv_store.h"

#include <string.h>

#include "image/decimal.h"
#include "image/frame_build.h"
#include "wire/siphash.h"

#define HEADERS_BYTES_MAX 72 /* IPv6 and TCP with timestamps: one segment size serves both families */
#define VALUE_WORD "VALUE "
#define VALUE_WORD_BYTES 6
#define HEAD_BYTES_MAX (VALUE_WORD_BYTES + KV_KEY_BYTES_MAX + 3 + 10 + 2)
#define TAIL "\r\nEND\r\n"
#define TAIL_BYTES 7

static const char *const texts[KV_TEXT_COUNT] = {
    [KV_TEXT_END] = "END\r\n",
    [KV_TEXT_ERROR] = "ERROR\r\n",
    [KV_TEXT_BAD_KEY] = "CLIENT_ERROR bad command line format\r\n",
    [KV_TEXT_LINE_TOO_LONG] = "CLIENT_ERROR line too long\r\n",
    [KV_TEXT_READ_ONLY] = "SERVER_ERROR the store is read-only\r\n",
    [KV_TEXT_VERSION] = "VERSION sandstorm\r\n",
};

/* A stream's bytes, in pieces. */
struct piece {
    const uint8_t *data;
    uint32_t len_bytes;
};

/* Where the next frame goes. */
struct builder {
    struct frame_build build;
    struct ssi_frame *frames;
    uint8_t *slots;
    uint32_t next;
};

/* "VALUE key 0 5\r\n"; its length. */
static uint32_t put_head(uint8_t *head, const struct kv_item *item)
{
    uint32_t at = VALUE_WORD_BYTES;
    memcpy(head, VALUE_WORD, VALUE_WORD_BYTES);
    memcpy(head + at, item->key, item->key_bytes);
    at += item->key_bytes;
    memcpy(head + at, " 0 ", 3);
    at += 3;
    at += decimal_put(head + at, item->value_bytes);
    memcpy(head + at, "\r\n", 2);
    return at + 2;
}

/* Copies [offset, offset + len) of the stream that pieces make. */
static void copy_out(const struct piece *piece, uint32_t offset, uint8_t *dst, uint32_t len)
{
    while (len > 0) {
        if (offset >= piece->len_bytes) {
            offset -= piece->len_bytes;
            piece++;
            continue;
        }
        uint32_t there = piece->len_bytes - offset;
        uint32_t part = len < there ? len : there;
        memcpy(dst, piece->data + offset, part);
        dst += part;
        offset += part;
        len -= part;
    }
}

static struct kv_answer build_answer(struct builder *builder, const struct piece *pieces, uint32_t stream_bytes)
{
    struct kv_answer answer = {builder->next, stream_bytes};
    uint8_t segment[KV_MTU_BYTES_MAX];
    uint32_t segment_bytes = builder->build.segment_bytes;
    for (uint32_t at = 0; at < stream_bytes; at += segment_bytes) {
        uint32_t left = stream_bytes - at;
        uint32_t len = left < segment_bytes ? left : segment_bytes;
        copy_out(pieces, at, segment, len);
        uint8_t *slot = builder->slots + (size_t)builder->next * builder->build.slot_bytes;
        frame_build_stream(&builder->build, segment, len, at, len == left, builder->next, slot,
                           &builder->frames[builder->next]);
        builder->next++;
    }
    return answer;
}

static uint32_t slot_bytes_for(uint32_t segment_bytes)
{
    uint32_t bytes = SSI_SLOT_BYTES_MIN;
    while (bytes < SSI_PAYLOAD_OFFSET + segment_bytes)
        bytes *= 2;
    return bytes;
}

static uint64_t stream_bytes_of(const struct kv_item *item)
{
    uint8_t head[HEAD_BYTES_MAX];
    return (uint64_t)put_head(head, item) + item->value_bytes + TAIL_BYTES;
}

bool kv_plan_make(struct kv_plan *plan, const struct kv_item *items, uint32_t count, uint32_t mtu_bytes)
{
    if (mtu_bytes < KV_MTU_BYTES_MIN || mtu_bytes > KV_MTU_BYTES_MAX || count > 1u << 30)
        return false;
    uint32_t segment_bytes = mtu_bytes - HEADERS_BYTES_MAX;
    uint64_t slots = KV_TEXT_COUNT; /* a frame for each text */
    for (uint32_t i = 0; i < count; i++) {
        if (items[i].key_bytes == 0 || items[i].key_bytes > KV_KEY_BYTES_MAX ||
            items[i].value_bytes > KV_VALUE_BYTES_MAX)
            return false;
        slots += (stream_bytes_of(&items[i]) + segment_bytes - 1) / segment_bytes;
    }
    if (slots >= SSI_NONE / 2)
        return false;
    *plan = (struct kv_plan){.mtu_bytes = mtu_bytes,
                             .slot_bytes = slot_bytes_for(segment_bytes),
                             .segment_bytes = segment_bytes,
                             .slot_count = (uint32_t)slots,
                             .entry_count = 1};
    while (plan->entry_count < 2 * (uint64_t)count)
        plan->entry_count *= 2;
    plan->memory_bytes = sizeof(struct kv_store) + (uint64_t)plan->entry_count * sizeof(struct kv_entry) +
                         slots * sizeof(struct ssi_frame);
    return true;
}

/* The entry of a key, or the free one where it would be. A table that is half empty ends every search; one of a single
 * entry is that of an empty store. */
static struct kv_entry *entry_of(const struct kv_store *store, const uint8_t *key, uint32_t key_bytes, uint64_t hash)
{
    for (uint64_t at = hash;; at++) {
        struct kv_entry *entry = &store->entries[at & store->entry_mask];
        if (entry->key_bytes == 0)
            return entry;
        if (entry->hash != hash || entry->key_bytes != key_bytes)
            continue;
        const uint8_t *slot = store->image.slots + (size_t)entry->answer.first_frame * store->header.slot_bytes;
        if (memcmp(slot + SSI_PAYLOAD_OFFSET + VALUE_WORD_BYTES, key, key_bytes) == 0)
            return entry;
    }
}

static bool add(struct kv_store *store, struct builder *builder, const struct kv_item *item)
{
    uint8_t head[HEAD_BYTES_MAX];
    uint64_t hash = siphash(store->seed, item->key, item->key_bytes);
    struct kv_entry *entry = entry_of(store, item->key, item->key_bytes, hash);
    if (entry->key_bytes != 0)
        return false;
    const struct piece pieces[] = {
        {head, put_head(head, item)}, {item->value, item->value_bytes}, {(const uint8_t *)TAIL, TAIL_BYTES}};
    uint32_t stream_bytes = pieces[0].len_bytes + pieces[1].len_bytes + pieces[2].len_bytes;
    *entry = (struct kv_entry){hash, build_answer(builder, pieces, stream_bytes), item->key_bytes, 0};
    return true;
}

struct kv_store *kv_store_make(void *memory, uint8_t *slots, const struct kv_plan *plan, const struct kv_item *items,
                               uint32_t count, const uint8_t *seed)
{
    struct kv_store *store = memory;
    store->entries = (struct kv_entry *)(store + 1);
    store->entry_mask = plan->entry_count - 1;
    struct builder builder = {
        .build = {.slot_bytes = plan->slot_bytes, .segment_bytes = plan->segment_bytes, .copies = 1},
        .frames = (struct ssi_frame *)(store->entries + plan->entry_count),
        .slots = slots};
    store->header = (struct ssi_header){.version = SSI_VERSION,
                                        .header_bytes = sizeof(store->header),
                                        .slot_bytes = plan->slot_bytes,
                                        .segment_bytes = plan->segment_bytes,
                                        .mtu_bytes = plan->mtu_bytes,
                                        .families = SSI_FAMILY_IPV4 | SSI_FAMILY_IPV6,
                                        .slot_count = plan->slot_count,
                                        .frame_count = plan->slot_count};
    store->image = (struct image){.header = &store->header, .frames = builder.frames, .slots = slots};
    memcpy(store->seed, seed, KV_SEED_BYTES);
    for (uint32_t t = 0; t < KV_TEXT_COUNT; t++) {
        struct piece piece = {(const uint8_t *)texts[t], (uint32_t)strlen(texts[t])};
        store->texts[t] = build_answer(&builder, &piece, piece.len_bytes);
    }
    for (uint32_t i = 0; i < count; i++)
        if (!add(store, &builder, &items[i]))
            return NULL;
    return store;
}

const struct kv_answer *kv_store_find(const struct kv_store *store, const uint8_t *key, uint32_t key_bytes)
{
    const struct kv_entry *entry = entry_of(store, key, key_bytes, siphash(store->seed, key, key_bytes));
    return entry->key_bytes != 0 ? &entry->answer : NULL;
}
