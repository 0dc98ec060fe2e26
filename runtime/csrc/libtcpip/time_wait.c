#include "time_wait.h"

#include "syn_cookie.h"

#define TIME_WAIT_US 60000000ull /* as Linux; twice an MSL of 30 s, RFC 9293 section 3.4.1 */
/* Where it is not TIME-WAIT, nothing will be sent again, so this is only as long as a path may hold back what was under way. */
#define LATE_SEGMENTS_US 5000000ull

#define TIME_WAIT_SETS_MAX 16384

void time_waits_lay_out(struct time_waits *waits, struct layout *layout, uint32_t max_connections)
{
    uint32_t sets = 1;
    while (sets < max_connections / TIME_WAIT_WAYS + 1 && sets < TIME_WAIT_SETS_MAX)
        sets *= 2;
    waits->entries = layout_take(layout, (size_t)sets * TIME_WAIT_WAYS * sizeof(*waits->entries));
    waits->mask = sets - 1;
}

struct time_wait *time_wait_find(struct time_waits *waits, uint64_t now_us, uint64_t hash)
{
    struct time_wait *set = &waits->entries[(hash & waits->mask) * TIME_WAIT_WAYS];
    for (uint32_t way = 0; way < TIME_WAIT_WAYS; way++)
        if (set[way].hash == hash && set[way].expires_us > now_us)
            return &set[way];
    return NULL;
}

/* Which entry makes room: one that has expired, then one that only keeps late segments out, then a TIME-WAIT. */
static uint32_t rank_of(const struct time_wait *wait, uint64_t now_us)
{
    if (wait->expires_us <= now_us)
        return 0;
    return wait->ended == ENDED_BY_US ? 2 : 1;
}

static struct time_wait *victim_of(struct time_wait *set, uint64_t now_us)
{
    struct time_wait *victim = set;
    for (uint32_t way = 1; way < TIME_WAIT_WAYS; way++) {
        uint32_t rank = rank_of(&set[way], now_us), least = rank_of(victim, now_us);
        if (rank < least || (rank == least && set[way].expires_us < victim->expires_us))
            victim = &set[way];
    }
    return victim;
}

void time_wait_restart(struct time_wait *wait, uint64_t now_us)
{
    wait->expires_us = now_us + TIME_WAIT_US;
}

/* Until when the connection is remembered. */
static uint64_t remembered_until_us(const struct tcb *tcb, uint64_t now_us, enum tcp_ended ended)
{
    uint64_t least_us = now_us + (ended == ENDED_BY_US ? TIME_WAIT_US : LATE_SEGMENTS_US);
    uint64_t cookie_us = cookie_expires_us(tcb->opened_s * 1000000ull);
    return cookie_us > least_us ? cookie_us : least_us;
}

/* Where all places are taken by TIME-WAITs, a late segment of what is no TIME-WAIT may open it again: it would be answered, and
 * closed as any other. */
void time_wait_add(struct time_waits *waits, uint64_t now_us, uint64_t hash, const struct tcb *tcb,
                   enum tcp_ended ended)
{
    struct time_wait *set = &waits->entries[(hash & waits->mask) * TIME_WAIT_WAYS];
    struct time_wait *victim = victim_of(set, now_us);
    if (rank_of(victim, now_us) == 2 && ended != ENDED_BY_US)
        return;
    *victim = (struct time_wait){.hash = hash,
                                 .expires_us = remembered_until_us(tcb, now_us, ended),
                                 .snd_nxt = (uint32_t)tcb->snd_nxt,
                                 .rcv_nxt = tcb->rcv_nxt,
                                 .irs = tcb->irs,
                                 .ts_recent = tcb->ts_recent,
                                 .ts_offset = tcb->ts_offset,
                                 .timestamps = tcb->timestamps,
                                 .ended = (uint8_t)ended};
}

void time_wait_take(struct time_waits *waits, uint64_t now_us, const struct time_wait *wait)
{
    struct time_wait *victim = victim_of(&waits->entries[(wait->hash & waits->mask) * TIME_WAIT_WAYS], now_us);
    if (rank_of(wait, now_us) >= rank_of(victim, now_us))
        *victim = *wait;
}
