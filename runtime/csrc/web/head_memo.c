#include "head_memo.h"

#include <string.h>

struct head_place *head_memo_lay_out(struct layout *layout)
{
    return layout_take(layout, HEAD_MEMO_PLACES * sizeof(struct head_place));
}

static uint64_t word_at(const uint8_t *data)
{
    uint64_t word;
    memcpy(&word, data, sizeof(word));
    return word;
}

#define LANES 4
#define STRIDE_BYTES (LANES * 8)
#define MIX 0x9e3779b97f4a7c15 /* 2^64 over the golden ratio: an odd number without a pattern */

/* In lanes, so that no multiplication waits for the one before. The last words overlap. */
static uint64_t hash_of(const uint8_t *data, uint32_t len_bytes)
{
    uint64_t lane[LANES] = {len_bytes, 1, 2, 3};
    uint32_t at = 0;
    for (; at + STRIDE_BYTES <= len_bytes; at += STRIDE_BYTES)
        for (uint32_t i = 0; i < LANES; i++)
            lane[i] = (lane[i] ^ word_at(data + at + 8 * i)) * MIX;
    if (len_bytes >= STRIDE_BYTES)
        at = len_bytes - STRIDE_BYTES;
    for (uint32_t i = 0; at + 8 <= len_bytes; at += 8, i++)
        lane[i] = (lane[i] ^ word_at(data + at) ^ lane[i] >> 32) * MIX;
    lane[0] ^= word_at(data + len_bytes - 8);
    uint64_t hash = (lane[0] ^ lane[1] >> 29) * MIX;
    hash = (hash ^ lane[2] ^ hash >> 32) * MIX;
    return (hash ^ lane[3] ^ hash >> 32) * MIX;
}

/* Looking costs a little with each request; where it seldom helps it is left out for a while. */
static bool is_paused(struct head_memo *memo)
{
    if (memo->pause > 0) {
        memo->pause--;
        return true;
    }
    if (memo->looked < HEAD_MEMO_TRIALS)
        return false;
    memo->pause = memo->found < HEAD_MEMO_FOUND_MIN ? HEAD_MEMO_PAUSE : 0;
    memo->looked = memo->found = 0;
    return memo->pause > 0;
}

struct head_place *head_memo_place(struct head_memo *memo, const uint8_t *data, uint32_t len_bytes, uint64_t *hash)
{
    if (len_bytes < HEAD_MEMO_BYTES_MIN || len_bytes > HEAD_MEMO_BYTES_MAX || is_paused(memo))
        return NULL;
    memo->looked++;
    *hash = hash_of(data, len_bytes);
    return &memo->places[*hash >> 32 & (HEAD_MEMO_PLACES - 1)];
}

bool head_memo_has(struct head_memo *memo, const struct head_place *place, uint64_t hash, const uint8_t *data,
                   uint32_t len_bytes)
{
    if (place->hash != hash || place->len_bytes != len_bytes || memcmp(place->bytes, data, len_bytes) != 0)
        return false;
    memo->found++;
    return true;
}

void head_memo_keep(struct head_place *place, uint64_t hash, const uint8_t *data, uint32_t len_bytes,
                    const struct head_answer *answer)
{
    if (place->missed_hash != hash) {
        place->missed_hash = hash;
        return;
    }
    place->hash = hash;
    memcpy(place->bytes, data, len_bytes);
    place->len_bytes = len_bytes;
    place->answer = *answer;
}
