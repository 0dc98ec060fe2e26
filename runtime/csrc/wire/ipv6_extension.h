/* IPv6 extension headers (RFC 8200 section 4): the way to what they stand in front of. Functions of bytes alone. */
#ifndef SANDSTORM_IPV6_EXTENSION_H
#define SANDSTORM_IPV6_EXTENSION_H

#include <stdbool.h>

#include "wire/wire.h"

/* Nobody has use for more than one of each, and destination options twice; a longer chain is work for us. */
#define IPV6_EXTENSIONS_MAX 8
#define IPV6_EXTENSION_UNIT_BYTES 8 /* a length field counts those beyond the first */
#define IPV6_OPTION_PAD1 0 /* the one without a length */
#define IPV6_OPTION_ACTION 0xc0 /* section 4.2: not 0 in what a node that doesn't know it must discard */
#define IPV6_FRAGMENT_MASK 0xfff9 /* offset and more-fragments flag */

struct ipv6_walk {
    uint8_t *at; /* the header that next is about */
    uint32_t left_bytes; /* from there on */
    uint8_t next;
    bool fragment_header; /* one of a packet that is whole nevertheless, RFC 6946 */
};

static inline bool ipv6_is_extension(uint8_t next)
{
    return next == IPV6_HOP_BY_HOP || next == IPV6_ROUTING || next == IPV6_FRAGMENT ||
           next == IPV6_DESTINATION_OPTIONS;
}

/* Are all options such that who does not know them skips them? We know none. */
static inline bool ipv6_options_skippable(const uint8_t *at, uint32_t bytes)
{
    while (bytes > 0) {
        uint32_t option_bytes = 1;
        if (at[0] != IPV6_OPTION_PAD1) {
            if (bytes < 2 || (at[0] & IPV6_OPTION_ACTION) != 0)
                return false;
            option_bytes = 2 + (uint32_t)at[1];
        }
        if (option_bytes > bytes)
            return false;
        at += option_bytes;
        bytes -= option_bytes;
    }
    return true;
}

/* May the header be passed over? number: how many were in front of it. */
static inline bool ipv6_may_pass(const struct ipv6_walk *walk, uint32_t number, uint32_t bytes)
{
    if (bytes > walk->left_bytes)
        return false;
    if (walk->next == IPV6_ROUTING)
        return walk->at[3] == 0; /* segments left: we forward nothing */
    if (walk->next == IPV6_HOP_BY_HOP && number > 0)
        return false;
    return ipv6_options_skippable(walk->at + 2, bytes - 2);
}

/* Goes on to the first header that is no extension, or to the fragment header of a packet that is not whole. False: the
 * packet must be dropped. */
static inline bool ipv6_walk(struct ipv6_walk *walk)
{
    for (uint32_t number = 0; ipv6_is_extension(walk->next); number++) {
        uint32_t bytes = IPV6_EXTENSION_UNIT_BYTES;
        if (number == IPV6_EXTENSIONS_MAX || walk->left_bytes < bytes)
            return false;
        if (walk->next == IPV6_FRAGMENT) {
            if ((load_be16(walk->at + 2) & IPV6_FRAGMENT_MASK) != 0)
                return true;
            walk->fragment_header = true;
        } else {
            bytes += walk->at[1] * IPV6_EXTENSION_UNIT_BYTES;
            if (!ipv6_may_pass(walk, number, bytes))
                return false;
        }
        walk->next = walk->at[0];
        walk->at += bytes;
        walk->left_bytes -= bytes;
    }
    return true;
}

#endif
