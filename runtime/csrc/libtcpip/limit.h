/* Limits on what strangers can make us send, a second at a time, for the whole stack (RFC 5961 section 7, RFC 1812
 * section 4.3.2.8, RFC 4443 section 2.4 f). */
#ifndef SANDSTORM_LIMIT_H
#define SANDSTORM_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

enum limit { LIMIT_CHALLENGE_ACK, LIMIT_RST, LIMIT_ECHO, LIMIT_COUNT };

#define LIMIT_A_SECOND 1000 /* of each kind, as Linux has it for ICMP */

struct limits {
    uint64_t second;
    uint32_t used[LIMIT_COUNT];
};

static inline bool limit_allows(struct limits *limits, enum limit kind, uint64_t now_us)
{
    uint64_t second = now_us / 1000000;
    if (limits->second != second)
        *limits = (struct limits){.second = second};
    return limits->used[kind] < LIMIT_A_SECOND && ++limits->used[kind] > 0;
}

#endif
