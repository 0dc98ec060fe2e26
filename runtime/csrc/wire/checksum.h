/* The Internet checksum, RFC 1071. Sums are of 16-bit words in memory order: the ones'-complement sum doesn't care
 * for byte order, so nothing is swapped. A partial sum is a uint64_t of any size; checksum_fold makes it 16 bits. */
#ifndef SANDSTORM_CHECKSUM_H
#define SANDSTORM_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Sum of a buffer that starts at an even offset of what is summed; an odd last byte is padded with zero. */
static inline uint64_t checksum_sum(const void *data, size_t len_bytes)
{
    const uint8_t *at = data;
    /* Carries gather in the upper half: a word takes an add and an add with carry. */
    __extension__ unsigned __int128 wide = 0;
    uint32_t word;
    uint16_t half;
    for (; len_bytes >= 8; at += 8, len_bytes -= 8) {
        uint64_t words;
        memcpy(&words, at, sizeof(words));
        wide += words;
    }
    uint64_t sum = ((uint64_t)wide >> 32) + (uint32_t)wide + (uint64_t)(wide >> 64);
    if (len_bytes >= 4) {
        memcpy(&word, at, sizeof(word));
        sum += word;
        at += 4;
        len_bytes -= 4;
    }
    if (len_bytes >= 2) {
        memcpy(&half, at, sizeof(half));
        sum += half;
        at += 2;
        len_bytes -= 2;
    }
    if (len_bytes > 0) {
        half = 0;
        memcpy(&half, at, 1);
        sum += half;
    }
    return sum;
}

static inline uint16_t checksum_fold(uint64_t sum)
{
    /* A sum and the same with its halves swapped: the upper half of theirs is both halves' sum with its carry. */
    sum += sum >> 32 | sum << 32;
    uint32_t word = (uint32_t)(sum >> 32);
    word += word >> 16 | word << 16;
    return (uint16_t)(word >> 16);
}

/* The sum of a buffer that starts at offset: at an odd one every byte is in the other half of its word. */
static inline uint16_t checksum_at(uint64_t sum, size_t offset)
{
    uint16_t folded = checksum_fold(sum);
    return (offset & 1) != 0 ? __builtin_bswap16(folded) : folded;
}

/* The pseudo-header's part that both families share: protocol and length, in memory order. */
static inline uint64_t checksum_pseudo(uint8_t protocol, uint32_t len_bytes)
{
    return (uint64_t)__builtin_bswap16(protocol) + __builtin_bswap32(len_bytes);
}

#endif
