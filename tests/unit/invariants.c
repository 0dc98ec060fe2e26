/* Breaks an invariant of the core on purpose: invariants NAME. Built with them checked it ends there and says which; built
 * without, all is as if nothing stood there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libeth/eth.h"
#include "libtcpip/connection.h"
#include "libtcpip/scoreboard.h"
#include "libtcpip/state.h"
#include "libtcpip/tcb_table.h"

#define CONNECTIONS 2

static struct tcpip tcpip;
static struct eth eth;
static struct tcb tcbs[CONNECTIONS];

/* One slice more than there is room for. */
static void slice_count(void)
{
    struct response_slice slice = {.first_frame = 0};
    tcb_few_slices(tcbs);
    ready_init(&tcpip.ready, tcbs);
    for (uint32_t i = 0; i <= TCB_SLICES; i++)
        tcpip_write(&tcpip, tcbs, &slice, 100);
}

/* A chunk that is not in flight comes back. */
static void in_flight(void)
{
    static uint8_t flights[4];
    struct nmio_region region = {.in_flight = flights, .chunk_count = sizeof(flights)};
    nmio_release(&region, 3);
}

/* A frame for which tx has no space. */
static void space(void)
{
    static struct nmio_tx_desc desc[1];
    static uint8_t frame[60];
    struct nmio_tx tx = {.desc = desc, .space = 0};
    eth.tx = &tx;
    eth_output(&eth, frame, sizeof(frame), 0);
}

/* Bytes are left out between two that are sent. */
static void adjacent(void)
{
    scoreboard_init(tcbs);
    scoreboard_sent(tcbs, 1000, 2000, 1);
    scoreboard_sent(tcbs, 3000, 4000, 1000000);
}

/* More bytes are SACKed than ranges say. */
static void counted(void)
{
    scoreboard_init(tcbs);
    tcbs->sacked_bytes = 5;
    scoreboard_sent(tcbs, 1000, 2000, 1);
}

/* The same TCB is given back twice. */
static void balanced(void)
{
    static uint32_t free_indices[CONNECTIONS];
    static struct tcb_entry entries[2 * CONNECTIONS];
    static const uint8_t secret[16];
    struct tcb_table table = {.tcbs = tcbs, .free = free_indices, .entries = entries, .mask = 2 * CONNECTIONS - 1};
    const struct tcp_flow flow = {.peer_port = 1};
    tcb_table_init(&table, CONNECTIONS, secret);
    struct tcb *tcb = tcb_table_add(&table, &flow, 1);
    tcb->state = 1;
    tcb_table_remove(&table, tcb);
    tcb_table_remove(&table, tcb);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*broken)(void);
    } all[] = {{"slice_count", slice_count}, {"in_flight", in_flight}, {"space", space},
               {"adjacent", adjacent},       {"counted", counted},     {"balanced", balanced}};
    for (size_t i = 0; argc == 2 && i < sizeof(all) / sizeof(all[0]); i++)
        if (strcmp(argv[1], all[i].name) == 0)
            all[i].broken();
    puts("nothing was noticed");
    return 0;
}
