#include "siphash.h"

#include <string.h>

#include "wire.h"

static uint64_t rotate(uint64_t value, int bits)
{
    return value << bits | value >> (64 - bits);
}

static void sip_rounds(uint64_t v[4], int rounds)
{
    while (rounds-- > 0) {
        v[0] += v[1];
        v[2] += v[3];
        v[1] = rotate(v[1], 13) ^ v[0];
        v[3] = rotate(v[3], 16) ^ v[2];
        v[0] = rotate(v[0], 32);
        v[2] += v[1];
        v[0] += v[3];
        v[1] = rotate(v[1], 17) ^ v[2];
        v[3] = rotate(v[3], 21) ^ v[0];
        v[2] = rotate(v[2], 32);
    }
}

static void sip_word(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    sip_rounds(v, 2);
    v[0] ^= word;
}

uint64_t siphash_words(const uint64_t key[2], const void *data, size_t word_count, uint64_t last)
{
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d, key[0] ^ 0x6c7967656e657261,
                     key[1] ^ 0x7465646279746573};
    for (size_t i = 0; i < word_count; i++)
        sip_word(v, load64((const uint8_t *)data + 8 * i));
    sip_word(v, last);
    v[2] ^= 0xff;
    sip_rounds(v, 4);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

uint64_t siphash(const uint8_t *key, const void *data, size_t len_bytes)
{
    const uint64_t words[2] = {load64(key), load64(key + 8)};
    uint64_t last = 0;
    memcpy(&last, (const uint8_t *)data + len_bytes / 8 * 8, len_bytes % 8);
    return siphash_words(words, data, len_bytes / 8, siphash_last(last, len_bytes));
}
