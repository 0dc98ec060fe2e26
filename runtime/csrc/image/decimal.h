/* Numbers as text. */
#ifndef SANDSTORM_DECIMAL_H
#define SANDSTORM_DECIMAL_H

#include <stdint.h>

#define DECIMAL_BYTES_MAX 20 /* of a 64-bit number */

/* Writes a number's digits, without a zero behind them; how many. */
static inline uint32_t decimal_put(uint8_t *at, uint64_t number)
{
    uint8_t digits[DECIMAL_BYTES_MAX];
    uint32_t count = 0;
    do {
        digits[count++] = (uint8_t)('0' + number % 10);
        number /= 10;
    } while (number != 0);
    for (uint32_t i = 0; i < count; i++)
        at[i] = digits[count - 1 - i];
    return count;
}

#endif
