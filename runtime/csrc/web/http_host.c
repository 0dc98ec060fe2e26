#include "http_host.h"

#include <stdbool.h>
#include <string.h>

#define IPV6_GROUPS 8
#define IPV4_GROUPS 2 /* that an IPv4 address at the end stands for */
#define GROUP_DIGITS_MAX 4

/* A number of an IPv4 address: 0 to 255 without zeros in front. Returns its bytes, or 0. */
static uint32_t octet_bytes(const uint8_t *text, uint32_t len_bytes)
{
    uint32_t at = 0, value = 0;
    while (at < len_bytes && at < 4 && text[at] >= '0' && text[at] <= '9')
        value = value * 10 + (text[at++] - '0');
    bool fits = at > 0 && value <= 255 && (at == 1 || text[0] != '0');
    return fits ? at : 0;
}

static bool is_ipv4(const uint8_t *text, uint32_t len_bytes)
{
    uint32_t at = 0;
    for (uint32_t number = 0; number < 4; number++) {
        if (number > 0 && (at == len_bytes || text[at++] != '.'))
            return false;
        uint32_t bytes = octet_bytes(text + at, len_bytes - at);
        if (bytes == 0)
            return false;
        at += bytes;
    }
    return at == len_bytes;
}

static uint32_t group_bytes(const uint8_t *text, uint32_t len_bytes)
{
    uint32_t digits = 0;
    while (digits < len_bytes && digits < GROUP_DIGITS_MAX && http_hex_digit(text[digits]) >= 0)
        digits++;
    return digits;
}

/* Groups parted by colons; two colons stand, once, for a group of zeros or more. */
static bool is_ipv6(const uint8_t *text, uint32_t len_bytes)
{
    bool shortened = len_bytes >= 2 && text[0] == ':' && text[1] == ':';
    uint32_t groups = 0, at = shortened ? 2 : 0;
    while (at < len_bytes) {
        if (is_ipv4(text + at, len_bytes - at)) {
            groups += IPV4_GROUPS;
            break;
        }
        uint32_t bytes = group_bytes(text + at, len_bytes - at);
        if (bytes == 0)
            return false;
        groups++;
        at += bytes;
        if (at == len_bytes)
            break;
        if (text[at++] != ':' || at == len_bytes)
            return false;
        if (text[at] == ':') {
            if (shortened)
                return false;
            shortened = true;
            at++;
        }
    }
    return shortened ? groups < IPV6_GROUPS : groups == IPV6_GROUPS;
}

/* "v", hexadecimal digits, a dot, and unreserved characters, sub-delims and colons. */
static bool is_later_version(const uint8_t *text, uint32_t len_bytes)
{
    static const char allowed[] = "-._~!$&'()*+,;=:";
    uint32_t at = 1;
    if (len_bytes == 0 || (text[0] | 32) != 'v')
        return false;
    while (at < len_bytes && http_hex_digit(text[at]) >= 0)
        at++;
    if (at == 1 || len_bytes - at < 2 || text[at] != '.')
        return false;
    while (++at < len_bytes) {
        uint8_t c = text[at], letter = c | 32;
        bool is_alphanumeric = (c >= '0' && c <= '9') || (letter >= 'a' && letter <= 'z');
        if (!is_alphanumeric && memchr(allowed, c, sizeof(allowed) - 1) == NULL)
            return false;
    }
    return true;
}

uint32_t http_ip_literal_bytes(const uint8_t *text, uint32_t len_bytes)
{
    const uint8_t *end = memchr(text, ']', len_bytes);
    if (len_bytes == 0 || text[0] != '[' || end == NULL)
        return 0;
    uint32_t inner_bytes = (uint32_t)(end - text) - 1;
    bool fits = is_ipv6(text + 1, inner_bytes) || is_later_version(text + 1, inner_bytes);
    return fits ? inner_bytes + 2 : 0;
}
