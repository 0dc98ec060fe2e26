/* A limit on what strangers can make us send, a second at a time, for all senders together (RFC 1812 section 4.3.2.8, RFC 4443
 * section 2.4 f). TCP's answers have none: challenge ACKs are limited for each connection (fsm.c), and a reset is no larger than
 * what draws it. A budget that connections share would tell a stranger what another one's segments have drawn, and
 * could be used up to silence answers to others (RFC 5961 section 7 as Linux had it until CVE-2016-5696). */
#ifndef SANDSTORM_RATE_LIMIT_H
#define SANDSTORM_RATE_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

enum rate_limit { LIMIT_ECHO, LIMIT_COUNT };

#define LIMIT_A_SECOND 1000 /* of each kind, as Linux has it for ICMP */

struct rate_limits {
    uint64_t second;
    uint32_t used[LIMIT_COUNT];
};

static inline bool rate_limit_allows(struct rate_limits *limits, enum rate_limit kind, uint64_t now_us)
{
    uint64_t second = now_us / 1000000;
    if (limits->second != second)
        *limits = (struct rate_limits){.second = second};
    return limits->used[kind] < LIMIT_A_SECOND && ++limits->used[kind] > 0;
}

#endif
