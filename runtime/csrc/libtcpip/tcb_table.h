/* All TCBs: a pool of so many, and a hash table to find one by its flow. */
#ifndef SANDSTORM_TCB_TABLE_H
#define SANDSTORM_TCB_TABLE_H

#include "tcb.h"
#include "wire/layout.h"

struct tcb_entry {
    uint32_t hash;
    uint32_t index; /* TCB_NONE: empty */
};

struct tcb_table {
    struct tcb *tcbs; /* [count_max] */
    uint32_t *free; /* stack of free indices */
    uint32_t free_count, count_max;
    uint32_t touched; /* from this one on none has been used: their memory is not taken from the machine yet */
    struct tcb_entry *entries; /* [mask + 1] */
    uint32_t mask;
    uint8_t secret[16]; /* of the hash */
};

void tcb_table_lay_out(struct tcb_table *table, struct layout *layout, uint32_t max_connections);
/* All are free. secret: 16 bytes. */
void tcb_table_init(struct tcb_table *table, uint32_t max_connections, const uint8_t *secret);

/* Keyed, and never shown to anybody: 64 bits that stand for the flow. The low half is the table's. */
uint64_t tcb_hash(const struct tcb_table *table, const struct tcp_flow *flow);
struct tcb *tcb_find(const struct tcb_table *table, const struct tcp_flow *flow, uint64_t hash);
/* A zeroed TCB in the table, or NULL when the pool is empty. */
struct tcb *tcb_table_add(struct tcb_table *table, const struct tcp_flow *flow, uint64_t hash);
void tcb_table_remove(struct tcb_table *table, struct tcb *tcb);

static inline uint32_t tcb_index(const struct tcb_table *table, const struct tcb *tcb)
{
    return (uint32_t)(tcb - table->tcbs);
}

static inline uint32_t tcb_table_count(const struct tcb_table *table)
{
    return table->count_max - table->free_count;
}

#endif
