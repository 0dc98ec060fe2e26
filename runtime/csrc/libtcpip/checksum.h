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
    uint64_t sum = 0;
    for (; len_bytes >= 4; at += 4, len_bytes -= 4) {
        uint32_t word;
        memcpy(&word, at, sizeof(word));
        sum += word;
    }
    uint32_t rest = 0;
    memcpy(&rest, at, len_bytes);
    return sum + rest;
}

static inline uint16_t checksum_fold(uint64_t sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
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
