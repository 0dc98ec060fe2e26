#include "tcb_table.h"

#include <string.h>

#include "libnmio/invariant.h"

static uint32_t power_of_two_at_least(uint32_t value)
{
    uint32_t power = 1;
    while (power < value)
        power *= 2;
    return power;
}

void tcb_table_lay_out(struct tcb_table *table, struct layout *layout, uint32_t max_connections)
{
    uint32_t entries = 2 * power_of_two_at_least(max_connections);
    table->tcbs = layout_take(layout, max_connections * sizeof(*table->tcbs));
    table->free = layout_take(layout, max_connections * sizeof(*table->free));
    table->entries = layout_take(layout, entries * sizeof(*table->entries));
    table->mask = entries - 1;
}

void tcb_table_init(struct tcb_table *table, uint32_t max_connections, const uint8_t *secret)
{
    memcpy(table->secret, secret, sizeof(table->secret));
    table->count_max = table->free_count = max_connections;
    for (uint32_t i = 0; i < max_connections; i++)
        table->free[i] = max_connections - 1 - i;
    for (uint32_t i = 0; i <= table->mask; i++)
        table->entries[i].index = TCB_NONE;
}

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

uint64_t tcb_hash(const struct tcb_table *table, const struct tcp_flow *flow)
{
    uint64_t key[2] = {load64(table->secret), load64(table->secret + 8)};
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

struct tcb *tcb_find(const struct tcb_table *table, const struct tcp_flow *flow, uint64_t flow_hash)
{
    uint32_t hash = (uint32_t)flow_hash;
    for (uint32_t at = hash & table->mask;; at = (at + 1) & table->mask) {
        const struct tcb_entry *entry = &table->entries[at];
        if (entry->index == TCB_NONE)
            return NULL;
        struct tcb *tcb = &table->tcbs[entry->index];
        if (entry->hash == hash && flow_is(&tcb->flow, flow))
            return tcb;
    }
}

struct tcb *tcb_table_add(struct tcb_table *table, const struct tcp_flow *flow, uint64_t flow_hash)
{
    if (table->free_count == 0)
        return NULL;
    uint32_t index = table->free[--table->free_count];
    struct tcb *tcb = &table->tcbs[index];
    if (index >= table->touched)
        table->touched = index + 1;
    INVARIANT(tcb->state == 0); /* nobody's */
    /* The place in the FIFO belongs to the pool's entry: a connection before may have left it there. */
    bool ready = tcb->ready;
    uint32_t ready_next = tcb->ready_next;
    memset(tcb, 0, TCB_CLEARED_BYTES);
    tcb->ready = ready;
    tcb->ready_next = ready_next;
    tcb->turn_bytes = TCB_TURN_BYTES;
    tcb->flow = *flow;
    uint32_t hash = tcb->table_hash = (uint32_t)flow_hash;
    tcb->buffer = TCB_NONE;
    tcb_few_slices(tcb);
    uint32_t at = hash & table->mask;
    while (table->entries[at].index != TCB_NONE)
        at = (at + 1) & table->mask;
    table->entries[at] = (struct tcb_entry){hash, index};
    return tcb;
}

/* Linear probing without tombstones: what follows moves up where it may. */
static void unlink_entry(struct tcb_table *table, uint32_t hash, uint32_t index)
{
    uint32_t mask = table->mask;
    uint32_t hole = hash & mask;
    while (table->entries[hole].index != index)
        hole = (hole + 1) & mask;
    for (uint32_t at = (hole + 1) & mask; table->entries[at].index != TCB_NONE; at = (at + 1) & mask) {
        uint32_t home = table->entries[at].hash & mask;
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            table->entries[hole] = table->entries[at];
            hole = at;
        }
    }
    table->entries[hole].index = TCB_NONE;
}

void tcb_table_remove(struct tcb_table *table, struct tcb *tcb)
{
    uint32_t index = tcb_index(table, tcb);
    INVARIANT(tcb->state != 0 && table->free_count < table->count_max); /* it has not been given back before */
    unlink_entry(table, tcb->table_hash, index);
    tcb->state = 0;
    table->free[table->free_count++] = index;
}
