#include "tcb.h"

#include <string.h>

#include "tcp.h"
#include "wire/probe.h"
#include "wire/wire.h"

#define TIME_WAIT_US 60000000ull /* as Linux; twice an MSL of 30 s, RFC 9293 section 3.4.1 */
/* Where it is not TIME-WAIT, nothing will be sent again, so this is only as long as a path may hold back what was under way. */
#define LATE_SEGMENTS_US 5000000ull

/* Two words become one, every bit of both in every bit of the result. */
static uint64_t multiply_fold(uint64_t a, uint64_t b)
{
    __extension__ unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t flow_word(const struct tcp_flow *flow, uint32_t number)
{
    return load64((const uint8_t *)flow + 8 * number);
}

uint64_t tcb_hash(const struct stack *stack, const struct tcp_flow *flow)
{
    uint64_t key[2] = {load64(stack->config.secret), load64(stack->config.secret + 8)};
    /* Odd constants with as many ones as zeros: whatever the secret is, ports and addresses reach all bits. */
    uint64_t hash = multiply_fold(flow_word(flow, 0) ^ key[0] ^ 0xa0761d6478bd642f,
                                  flow_word(flow, 1) ^ key[1] ^ 0x9e3779b97f4a7c15);
    return multiply_fold(hash ^ flow_word(flow, 2) ^ key[1], key[0] ^ 0xe7037ed1a0b428db);
}

static bool flow_is(const struct tcp_flow *a, const struct tcp_flow *b)
{
    uint64_t differing = 0;
    for (uint32_t i = 0; i < TCP_FLOW_WORDS; i++)
        differing |= flow_word(a, i) ^ flow_word(b, i);
    return differing == 0;
}

struct tcb *tcb_find(struct stack *stack, const struct tcp_flow *flow, uint64_t flow_hash)
{
    uint32_t hash = (uint32_t)flow_hash;
    for (uint32_t at = hash & stack->table_mask;; at = (at + 1) & stack->table_mask) {
        const struct tcb_entry *entry = &stack->table[at];
        if (entry->index == TCB_NONE)
            return NULL;
        struct tcb *tcb = &stack->tcbs[entry->index];
        if (entry->hash == hash && flow_is(&tcb->flow, flow))
            return tcb;
    }
}

struct tcb *tcb_create(struct stack *stack, const struct tcp_flow *flow, uint64_t flow_hash)
{
    if (stack->tcb_free_count == 0)
        return NULL;
    uint32_t index = stack->tcb_free[--stack->tcb_free_count];
    struct tcb *tcb = &stack->tcbs[index];
    /* The place in the FIFO belongs to the pool's entry: a connection before may have left it there. */
    bool ready = tcb->ready;
    uint32_t ready_next = tcb->ready_next;
    memset(tcb, 0, TCB_CLEARED_BYTES);
    tcb->ready = ready;
    tcb->ready_next = ready_next;
    tcb->turn_bytes = TCB_TURN_BYTES;
    tcb->flow = *flow;
    uint32_t hash = tcb->table_hash = (uint32_t)flow_hash;
    tcb->request = TCB_NONE;
    tcb_few_spans(tcb);
    scoreboard_init(tcb);
    uint32_t at = hash & stack->table_mask;
    while (stack->table[at].index != TCB_NONE)
        at = (at + 1) & stack->table_mask;
    stack->table[at] = (struct tcb_entry){hash, index};
    COUNT(stack, tcp_opened);
    return tcb;
}

/* Linear probing without tombstones: what follows moves up where it may. */
static void table_remove(struct stack *stack, uint32_t hash, uint32_t index)
{
    uint32_t mask = stack->table_mask;
    uint32_t hole = hash & mask;
    while (stack->table[hole].index != index)
        hole = (hole + 1) & mask;
    for (uint32_t at = (hole + 1) & mask; stack->table[at].index != TCB_NONE; at = (at + 1) & mask) {
        uint32_t home = stack->table[at].hash & mask;
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            stack->table[hole] = stack->table[at];
            hole = at;
        }
    }
    stack->table[hole].index = TCB_NONE;
}

void tcb_destroy(struct stack *stack, struct tcb *tcb)
{
    uint32_t index = (uint32_t)(tcb - stack->tcbs);
    PROBE(tcb_destroy, tcb, tcb->state);
    timer_remove(stack, tcb);
    table_remove(stack, tcb->table_hash, index);
    request_release(stack, tcb);
    for (uint32_t i = 0; i < tcb->span_count; i++)
        composed_span_release(stack, tcb_span(tcb, i));
    span_ring_release(stack, tcb);
    scoreboard_release(stack, tcb);
    tcb->state = 0;
    stack->tcb_free[stack->tcb_free_count++] = index;
    COUNT(stack, tcp_closed);
}

struct time_wait *time_wait_find(struct stack *stack, uint64_t hash)
{
    struct time_wait *set = &stack->time_waits[(hash & stack->time_wait_mask) * TIME_WAIT_WAYS];
    for (uint32_t way = 0; way < TIME_WAIT_WAYS; way++)
        if (set[way].hash == hash && set[way].expires_us > stack->now_us)
            return &set[way];
    return NULL;
}

/* Which entry makes room: one that has expired, then one that only keeps late segments out, then a TIME-WAIT. */
static uint32_t time_wait_rank(const struct stack *stack, const struct time_wait *wait)
{
    if (wait->expires_us <= stack->now_us)
        return 0;
    return wait->ended == ENDED_BY_US ? 2 : 1;
}

static struct time_wait *time_wait_victim(struct stack *stack, struct time_wait *set)
{
    struct time_wait *victim = set;
    for (uint32_t way = 1; way < TIME_WAIT_WAYS; way++) {
        uint32_t rank = time_wait_rank(stack, &set[way]), least = time_wait_rank(stack, victim);
        if (rank < least || (rank == least && set[way].expires_us < victim->expires_us))
            victim = &set[way];
    }
    return victim;
}

void time_wait_restart(struct stack *stack, struct time_wait *wait)
{
    wait->expires_us = stack->now_us + TIME_WAIT_US;
}

/* In the microseconds of the stack's time: until when the connection is remembered. */
static uint64_t remembered_until_us(const struct stack *stack, const struct tcb *tcb, enum tcp_ended ended)
{
    uint64_t least_us = stack->now_us + (ended == ENDED_BY_US ? TIME_WAIT_US : LATE_SEGMENTS_US);
    uint64_t cookie_us = cookie_expires_us(tcb->opened_s * 1000000ull);
    return cookie_us > least_us ? cookie_us : least_us;
}

/* Where all places are taken by TIME-WAITs, a late segment of what is no TIME-WAIT may open it again: it would be answered, and
 * closed as any other. */
void time_wait_add(struct stack *stack, const struct tcb *tcb, enum tcp_ended ended)
{
    uint64_t hash = tcb_hash(stack, &tcb->flow);
    struct time_wait *set = &stack->time_waits[(hash & stack->time_wait_mask) * TIME_WAIT_WAYS];
    struct time_wait *victim = time_wait_victim(stack, set);
    if (time_wait_rank(stack, victim) == 2 && ended != ENDED_BY_US)
        return;
    *victim = (struct time_wait){.hash = hash,
                                 .expires_us = remembered_until_us(stack, tcb, ended),
                                 .snd_nxt = (uint32_t)tcb->snd_nxt,
                                 .rcv_nxt = tcb->rcv_nxt,
                                 .irs = tcb->irs,
                                 .ts_recent = tcb->ts_recent,
                                 .ts_offset = tcb->ts_offset,
                                 .timestamps = tcb->timestamps,
                                 .ended = (uint8_t)ended};
}
