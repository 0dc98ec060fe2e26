/* How the worker waits for frames: it spins where the next one is due at once, naps where more will come that need not be heard at
 * once, ACKs of what was just sent or the requests of many, and sleeps until a frame wakes it where neither is so. To be woken for each frame costs more than to serve it, on both sides, and a core that fell
 * idle answers late; to spin costs the core.
 *
 * Whom a nap would hold up is told by what comes. A client on the link that goes on as soon as it has what we sent waits for
 * nothing but us, so the worker spins. Of others it is known how long a connection takes from one turn to the next, a turn being
 * a request or an ACK that lets more of an answer go: the connections open, over the rate of turns (Little's law). A nap is at
 * most an eighth of that, so that what all naps together add to a download, or to a client's round of asking and getting, is
 * little beside what it takes anyway.
 *
 * As the core: no system call, no clock. */
#ifndef SANDSTORM_WAKE_H
#define SANDSTORM_WAKE_H

#include <stdbool.h>
#include <stdint.h>

enum wake_preference {
    WAKE_BALANCED,
    WAKE_LATENCY, /* no naps; spins as long as a frame is due within WAKE_LATENCY_SPIN_NS */
    WAKE_POWER, /* no spinning; naps of up to WAKE_POWER_NAP_NS */
    WAKE_BUSY, /* spins always */
};

#define WAKE_WINDOW_NS 1000000 /* what has come is looked at as often */
#define WAKE_SPIN_NS 50000 /* behind the last frame, */
#define WAKE_LATENCY_SPIN_NS 200000 /* and where latency is preferred */
#define WAKE_NAP_NS 100000 /* the longest, as NICs moderate their interrupts, */
#define WAKE_POWER_NAP_NS 1000000 /* and where power is */
#define WAKE_NAP_MIN_NS 20000 /* a shorter one costs more than it saves */
#define WAKE_NAP_SHARE 8 /* of what clients take themselves from turn to turn, the part that a nap may be */
#define WAKE_NAP_FRAMES 8 /* are due in a nap at most: to share a waking among more saves little and delays them */
#define WAKE_PROMPT_NS 200000 /* from request to request, of a client that waits for us */
#define WAKE_PROMPT_MIN 3 /* requests in a window: of fewer nothing is known */
#define WAKE_VAIN_PAUSE_NS 64000000 /* without spinning, after a window in which most of it was in vain */
#define WAKE_NAP_TRIALS 16 /* naps, */
#define WAKE_VAIN_PAUSE_TURNS 64 /* behind which there is none if most of those were in vain */

/* Totals of what has come so far. */
struct wake_seen {
    uint64_t frames;
    uint64_t requests; /* segments with data */
    uint64_t releasing; /* ACKs on which more of an answer could go */
    uint64_t prompt; /* of both, those of a client that waits for us */
    uint32_t connections; /* open now */
};

enum wake_way { WAKE_SPIN, WAKE_NAP, WAKE_SLEEP };

struct wake_choice {
    enum wake_way way;
    int64_t timeout_ns; /* of a nap or a sleep, -1: none; 0 of spinning */
};

/* Their names are in wake_counter_name. */
struct wake_counters {
    uint64_t loop_rounds;
    uint64_t loop_spins, loop_spins_in_vain;
    uint64_t loop_naps, loop_naps_in_vain;
    uint64_t loop_sleeps, loop_sleeps_in_vain;
};

struct wake {
    enum wake_preference preference;
    uint64_t start_ns; /* of the window */
    struct wake_seen start;
    uint64_t frame_ns; /* when a round had frames last */
    uint64_t spin_ns, nap_ns; /* as chosen for now; 0: not at all */
    uint64_t pause_until_ns; /* no spinning before */
    uint32_t spins, vain_spins; /* in the window */
    uint64_t turns; /* seen so far */
    uint64_t pause_until_turns; /* no napping before */
    uint32_t naps, vain_naps; /* of WAKE_NAP_TRIALS */
    enum wake_way way; /* chosen last, */
    bool waits; /* and what it was for has not come yet, */
    uint64_t due_ns; /* or when it is time for something else */
    struct wake_counters counters;
};

void wake_init(struct wake *wake, enum wake_preference preference, uint64_t now_ns);

/* A round has begun at now_ns, and had so many frames. */
void wake_round(struct wake *wake, uint64_t now_ns, uint32_t frames);

/* Nothing is left to be done at now_ns, and nothing but frames before deadline_ns (UINT64_MAX: never), which is later: how to
 * wait. */
struct wake_choice wake_choose(struct wake *wake, uint64_t now_ns, uint64_t deadline_ns,
                               const struct wake_seen *seen);

/* The counters and their names; NULL beyond the last. */
const char *wake_counter_name(uint32_t index);
uint64_t wake_counter(const struct wake *wake, uint32_t index);

#endif
