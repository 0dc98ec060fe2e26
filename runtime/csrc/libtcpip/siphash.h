/* SipHash-2-4 (Aumasson, Bernstein 2012): a keyed hash that a stranger can't predict. */
#ifndef SANDSTORM_SIPHASH_H
#define SANDSTORM_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

/* key: 16 bytes. */
uint64_t siphash(const uint8_t *key, const void *data, size_t len_bytes);

#endif
