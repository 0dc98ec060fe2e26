#include "wake.h"

#include <stddef.h>

#include "wire/counters.h"

void wake_init(struct wake *wake, enum wake_preference preference, uint64_t now_ns)
{
    *wake = (struct wake){.preference = preference, .start_ns = now_ns, .frame_ns = now_ns, .way = WAKE_SLEEP};
}

void wake_round(struct wake *wake, uint64_t now_ns, uint32_t frames)
{
    COUNT(wake, loop_rounds);
    if (frames > 0) {
        wake->frame_ns = now_ns;
        wake->waits = false;
        return;
    }
    if (!wake->waits || wake->way == WAKE_SPIN)
        return;
    wake->waits = false;
    if (now_ns >= wake->due_ns)
        return;
    if (wake->way == WAKE_NAP) {
        COUNT(wake, loop_naps_in_vain);
        wake->vain_naps++;
    } else {
        COUNT(wake, loop_sleeps_in_vain);
    }
}

/* Are there clients that wait for nothing but us? */
static bool are_prompt(uint64_t window_ns, const struct wake_seen *in)
{
    uint64_t turns = in->requests + in->releasing;
    if (turns * WAKE_WINDOW_NS < WAKE_PROMPT_MIN * window_ns)
        return false;
    return 4 * in->prompt >= 3 * turns || in->connections * window_ns < WAKE_PROMPT_NS * in->requests;
}

static uint64_t spin_for(struct wake *wake, uint64_t now_ns, uint64_t window_ns, const struct wake_seen *in)
{
    if (2 * wake->vain_spins > wake->spins)
        wake->pause_until_ns = now_ns + WAKE_VAIN_PAUSE_NS;
    if (wake->preference == WAKE_LATENCY)
        return in->frames * WAKE_LATENCY_SPIN_NS >= window_ns ? WAKE_LATENCY_SPIN_NS : 0;
    if (wake->preference == WAKE_POWER || now_ns < wake->pause_until_ns || !are_prompt(window_ns, in))
        return 0;
    return WAKE_SPIN_NS;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* A connection's turns are its requests and the ACKs that let more of an answer go: each of them may have to wait for a nap's
 * end. */
static uint64_t nap_for(const struct wake *wake, uint64_t window_ns, const struct wake_seen *in)
{
    uint64_t turns = in->requests + in->releasing;
    uint64_t turn_ns = turns > 0 ? in->connections * window_ns / turns : UINT64_MAX;
    uint64_t most_ns = wake->preference == WAKE_POWER ? WAKE_POWER_NAP_NS : WAKE_NAP_NS;
    if (wake->preference == WAKE_LATENCY || in->frames == 0)
        return 0;
    uint64_t gap_ns = window_ns / in->frames, nap_ns = least(most_ns, turn_ns / WAKE_NAP_SHARE);
    if (wake->preference != WAKE_POWER)
        nap_ns = least(nap_ns, WAKE_NAP_FRAMES * gap_ns);
    return nap_ns < WAKE_NAP_MIN_NS ? 0 : nap_ns;
}

/* A window is over: what came in it says how to wait from now on. */
static void reckon(struct wake *wake, uint64_t now_ns, const struct wake_seen *seen)
{
    uint64_t window_ns = now_ns - wake->start_ns;
    struct wake_seen in = {.frames = seen->frames - wake->start.frames,
                           .requests = seen->requests - wake->start.requests,
                           .releasing = seen->releasing - wake->start.releasing,
                           .prompt = seen->prompt - wake->start.prompt,
                           .connections = seen->connections > 0 ? seen->connections : 1};
    wake->spin_ns = spin_for(wake, now_ns, window_ns, &in);
    wake->nap_ns = nap_for(wake, window_ns, &in);
    wake->start = *seen;
    wake->start_ns = now_ns;
    wake->spins = wake->vain_spins = 0;
}

static bool is_spinning(const struct wake *wake)
{
    return wake->waits && wake->way == WAKE_SPIN;
}

/* Where answers have just gone, their ACKs follow. turns: that have come so far. */
static bool naps(struct wake *wake, uint64_t turns)
{
    bool behind_a_turn = turns != wake->turns;
    wake->turns = turns;
    if (wake->naps == WAKE_NAP_TRIALS) {
        if (2 * wake->vain_naps > wake->naps)
            wake->pause_until_turns = turns + WAKE_VAIN_PAUSE_TURNS;
        wake->naps = wake->vain_naps = 0;
    }
    return wake->nap_ns > 0 && behind_a_turn && turns >= wake->pause_until_turns;
}

static enum wake_way way_at(struct wake *wake, uint64_t now_ns, uint64_t turns)
{
    if (wake->preference == WAKE_BUSY || now_ns - wake->frame_ns < wake->spin_ns)
        return WAKE_SPIN;
    return naps(wake, turns) ? WAKE_NAP : WAKE_SLEEP;
}

static void count(struct wake *wake, enum wake_way way)
{
    if (way != WAKE_SPIN && is_spinning(wake)) {
        COUNT(wake, loop_spins_in_vain);
        wake->vain_spins++;
    }
    if (way == WAKE_SPIN && !is_spinning(wake)) {
        COUNT(wake, loop_spins);
        wake->spins++;
    }
    if (way == WAKE_NAP) {
        COUNT(wake, loop_naps);
        wake->naps++;
    }
    if (way == WAKE_SLEEP)
        COUNT(wake, loop_sleeps);
}

struct wake_choice wake_choose(struct wake *wake, uint64_t now_ns, uint64_t deadline_ns, const struct wake_seen *seen)
{
    if (now_ns - wake->start_ns >= WAKE_WINDOW_NS)
        reckon(wake, now_ns, seen);
    enum wake_way way = way_at(wake, now_ns, seen->requests + seen->releasing);
    count(wake, way);
    wake->way = way;
    wake->waits = true;
    wake->due_ns = deadline_ns;
    if (way == WAKE_SPIN)
        return (struct wake_choice){way, 0};
    uint64_t left_ns = deadline_ns - now_ns;
    if (way == WAKE_NAP)
        return (struct wake_choice){way, (int64_t)(left_ns < wake->nap_ns ? left_ns : wake->nap_ns)};
    return (struct wake_choice){way, deadline_ns == UINT64_MAX ? -1 : (int64_t)left_ns};
}

static const char *const names[] = {"loop_rounds",       "loop_spins",  "loop_spins_in_vain", "loop_naps",
                                    "loop_naps_in_vain", "loop_sleeps", "loop_sleeps_in_vain"};
_Static_assert(sizeof(struct wake_counters) == sizeof(names) / sizeof(names[0]) * sizeof(uint64_t),
               "a name for each");

const char *wake_counter_name(uint32_t index)
{
    return index < sizeof(names) / sizeof(names[0]) ? names[index] : NULL;
}

uint64_t wake_counter(const struct wake *wake, uint32_t index)
{
    return ((const uint64_t *)&wake->counters)[index];
}
