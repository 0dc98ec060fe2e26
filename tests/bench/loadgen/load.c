#include "load.h"

#include <math.h>

/* xorshift64*; in (0, 1]. */
static double random_share(struct load *load)
{
    load->random_state ^= load->random_state >> 12;
    load->random_state ^= load->random_state << 25;
    load->random_state ^= load->random_state >> 27;
    return (double)((load->random_state * 2685821657736338717u >> 11) + 1) * 0x1p-53;
}

uint64_t load_next_ns(const struct load *load)
{
    if (load->stopped)
        return LOAD_NEVER;
    return load->interval_ns > 0 ? (uint64_t)load->next_ns : 0;
}

bool load_take(struct load *load, uint64_t now_ns, uint64_t *scheduled_ns)
{
    uint64_t next_ns = load_next_ns(load);
    if (next_ns > now_ns)
        return false;
    *scheduled_ns = next_ns == 0 ? now_ns : next_ns;
    if (load->interval_ns > 0)
        load->next_ns += load->poisson ? -log(random_share(load)) * load->interval_ns : load->interval_ns;
    return true;
}
