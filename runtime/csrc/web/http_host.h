/* What stands in brackets where a host name is asked for, RFC 3986 section 3.2.2. */
#ifndef SANDSTORM_HTTP_HOST_H
#define SANDSTORM_HTTP_HOST_H

#include <stdint.h>

/* The value of a hexadecimal digit; -1: it is none. */
static inline int http_hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 32;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* An IP literal that a text begins with: an IPv6 address or one of a later version, with its brackets. Returns its bytes, or
 * 0: it is none. */
uint32_t http_ip_literal_bytes(const uint8_t *text, uint32_t len_bytes);

#endif
