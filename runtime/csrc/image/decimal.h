/* Numbers as text. */
#ifndef SANDSTORM_DECIMAL_H
#define SANDSTORM_DECIMAL_H

#include <stdint.h>
#include <string.h>

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

/* Puts a text at the end of a field, with blanks in front: whoever reads a value skips those (RFC 9110 section 5.5), but not
 * all skip what is behind it. Of a text that is too long, only as much as the field holds. */
static inline void text_put_right(uint8_t *field, uint32_t field_bytes, const uint8_t *text, uint32_t text_bytes)
{
    uint32_t bytes = text_bytes < field_bytes ? text_bytes : field_bytes;
    memset(field, ' ', field_bytes - bytes);
    memcpy(field + field_bytes - bytes, text, bytes);
}

/* The same of a number's digits. */
static inline void decimal_put_right(uint8_t *field, uint32_t field_bytes, uint64_t number)
{
    uint8_t digits[DECIMAL_BYTES_MAX];
    uint32_t count = decimal_put(digits, number);
    text_put_right(field, field_bytes, digits, count);
}

#endif
