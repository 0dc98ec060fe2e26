/* A read-only key-value store made at start: the answer to a get of each key as prebuilt frames, and a hash table that
 * finds them. The frames are those of a small image of its own, which the stack and the port are opened with.
 *
 * Answers are what memcached's text protocol has (protocol.txt of memcached 1.6): of a key one stream,
 *   VALUE key 0 5\r\nvalue\r\nEND\r\n
 * which serves a get of several keys too, as all but its last five bytes; and some short texts. */
#ifndef SANDSTORM_KV_STORE_H
#define SANDSTORM_KV_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image/image.h"

#define KV_KEY_BYTES_MAX 250
#define KV_VALUE_BYTES_MAX 1073741824
#define KV_SEED_BYTES 16
#define KV_MTU_BYTES_MIN 1280
#define KV_MTU_BYTES_MAX 9216
#define KV_END_BYTES 5 /* of "END\r\n" */

/* A key and its value, as they are put in. A key has no space and no control character, or it can't be asked for. */
struct kv_item {
    const uint8_t *key, *value;
    uint32_t key_bytes, value_bytes;
};

/* A stream of frames that is an answer. */
struct kv_answer {
    uint32_t first_frame, stream_bytes;
};

/* The short texts. */
enum kv_text {
    KV_TEXT_END,
    KV_TEXT_ERROR,
    KV_TEXT_BAD_KEY,
    KV_TEXT_LINE_TOO_LONG,
    KV_TEXT_READ_ONLY,
    KV_TEXT_VERSION,
    KV_TEXT_COUNT
};

struct kv_entry {
    uint64_t hash;
    struct kv_answer answer;
    uint32_t key_bytes; /* 0: the entry is free. The key itself is read in the first frame */
    uint32_t zero;
};

struct kv_store {
    struct image image; /* for stack_init and the port: frames and slots alone */
    struct ssi_header header;
    struct kv_answer texts[KV_TEXT_COUNT];
    struct kv_entry *entries; /* open addressing, at most half full */
    uint32_t entry_mask;
    uint8_t seed[KV_SEED_BYTES];
};

/* What a store takes. */
struct kv_plan {
    uint32_t mtu_bytes, slot_bytes, segment_bytes;
    uint32_t slot_count;
    uint32_t entry_count; /* a power of two */
    uint64_t memory_bytes; /* of the tables */
};

/* Works out what count items take in packets of mtu_bytes. False: the MTU, a key's or a value's length or the number of
 * slots is out of bounds. */
bool kv_plan_make(struct kv_plan *plan, const struct kv_item *items, uint32_t count, uint32_t mtu_bytes);

/* Lays a store out. memory: plan->memory_bytes, 8-byte aligned, zeroed; slots: slot_count * slot_bytes, 8-byte aligned.
 * Both must outlive the store, the items needn't. seed: random, so that nobody can choose keys that collide. Returns NULL
 * if a key is there twice. */
struct kv_store *kv_store_make(void *memory, uint8_t *slots, const struct kv_plan *plan, const struct kv_item *items,
                               uint32_t count, const uint8_t *seed);

/* The answer to a get of one key, or NULL. */
const struct kv_answer *kv_store_find(const struct kv_store *store, const uint8_t *key, uint32_t key_bytes);

#endif
