/* SipHash-2-4 (Aumasson, Bernstein 2012): a keyed hash that a stranger can't predict. */
#ifndef SANDSTORM_SIPHASH_H
#define SANDSTORM_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

/* key: 16 bytes. */
uint64_t siphash(const uint8_t *key, const void *data, size_t len_bytes);

/* The same of data that is there as words: so many whole ones, and siphash_last of what is behind them. */
uint64_t siphash_words(const uint64_t key[2], const void *data, size_t word_count, uint64_t last);

/* SipHash's last word: up to seven bytes, and the length of all. */
static inline uint64_t siphash_last(uint64_t bytes, size_t len_bytes)
{
    return bytes | (uint64_t)len_bytes << 56;
}

#endif
