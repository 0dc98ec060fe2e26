/* Gives recovery ACKs with four SACK blocks while the scoreboard is full: every other segment is lost, each ACK tells one more
 * that has arrived, and three that it knows of.
 *
 *   scoreboard ACKS
 *
 * Prints how many ranges there are at the end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arguments.h"
#include "libtcpip/recovery.h"

#define MSS_BYTES 1448u
#define FULL_BLOCKS (SCOREBOARD_RANGES / 2) /* with as many holes between them */

/* In a function of its own so that callgrind can count it alone. */
__attribute__((noipa)) void take_ack(struct tcpip *tcpip, struct tcb *tcb, const struct tcp_segment *segment)
{
    recovery_ack(tcpip, tcb, segment, tcb->snd_una, true);
}

/* In the order in which they are told; each has a hole in front of it. */
static void block_of(const struct tcb *tcb, uint32_t number, uint32_t sack[2])
{
    sack[0] = (uint32_t)tcb->snd_una + (2 * number + 1) * MSS_BYTES;
    sack[1] = sack[0] + MSS_BYTES;
}

static struct tcpip *make_tcpip(struct tcb *tcb)
{
    struct tcpip *tcpip = calloc(1, sizeof(*tcpip));
    struct sent_range *boards = calloc(SCOREBOARD_RANGES, sizeof(*boards));
    uint32_t *board_free = calloc(1, sizeof(*board_free));
    if (tcpip == NULL || boards == NULL || board_free == NULL)
        stop("no memory");
    tcpip->overflow = (struct overflow_scoreboards){boards, {board_free, 1, 1}};
    tcpip->connections.tcbs = tcb;
    ready_init(&tcpip->ready, tcb);
    tcpip->now_us = 1000000;
    return tcpip;
}

static void open_flight(struct tcpip *tcpip, struct tcb *tcb, uint32_t segments)
{
    memset(tcb, 0, sizeof(*tcb));
    scoreboard_init(tcb);
    tcb->sack = true;
    tcb->mss = tcb->snd_mss = MSS_BYTES;
    tcb->snd_una = 1ull << 32;
    tcb->snd_nxt = tcb->snd_end = tcb->snd_una + (uint64_t)segments * MSS_BYTES;
    tcb->cwnd = segments * MSS_BYTES;
    tcb->ssthresh = UINT32_MAX;
    tcb->rack_fack = tcb->rack.end = (uint32_t)tcb->snd_una;
    scoreboard_sent(tcb, (uint32_t)tcb->snd_una, (uint32_t)tcb->snd_nxt, (uint32_t)tcpip->now_us);
    tcpip->now_us += 20000;
}

int main(int argc, char **argv)
{
    if (argc != 2)
        stop("usage: scoreboard ACKS");
    uint32_t acks = (uint32_t)strtoul(argv[1], NULL, 10);
    struct tcb *tcb = aligned_alloc(64, sizeof(*tcb));
    if (tcb == NULL)
        stop("no memory");
    struct tcpip *tcpip = make_tcpip(tcb);
    open_flight(tcpip, tcb, 2 * (FULL_BLOCKS + acks + 1));
    for (uint32_t number = 0; number < FULL_BLOCKS + acks; number++) {
        struct tcp_segment segment = {.ack = (uint32_t)tcb->snd_una, .flags = TCP_ACK};
        for (uint32_t i = 0; i < 4 && i <= number; i++)
            block_of(tcb, number - i, segment.options.sacks[segment.options.sack_count++]);
        tcpip->now_us += 10;
        if (number < FULL_BLOCKS)
            recovery_ack(tcpip, tcb, &segment, tcb->snd_una, true);
        else
            take_ack(tcpip, tcb, &segment);
    }
    printf("%u\n", tcb->range_count);
    return 0;
}
