/* A log-linear histogram of nanoseconds: exact below 256, then 128 steps to each power of two, so that no value is off
 * by more than one part in 128. */
#ifndef LOADGEN_HISTOGRAM_H
#define LOADGEN_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_STEPS 128
#define HISTOGRAM_OCTAVES 32 /* above the first 256: up to 2^40 ns, 18 minutes; what is more counts as that */
#define HISTOGRAM_BUCKETS ((HISTOGRAM_OCTAVES + 2) * HISTOGRAM_STEPS)

struct histogram {
    uint64_t count, max_ns;
    uint64_t bucket[HISTOGRAM_BUCKETS];
};

static inline uint32_t histogram_index(uint64_t value_ns)
{
    if (value_ns < 2 * HISTOGRAM_STEPS)
        return (uint32_t)value_ns;
    uint32_t shift = 56 - (uint32_t)__builtin_clzll(value_ns);
    return shift > HISTOGRAM_OCTAVES ? HISTOGRAM_BUCKETS - 1
                                     : shift * HISTOGRAM_STEPS + (uint32_t)(value_ns >> shift);
}

/* The largest value that a bucket takes. */
static inline uint64_t histogram_value_ns(uint32_t index)
{
    if (index < 2 * HISTOGRAM_STEPS)
        return index;
    uint32_t shift = index / HISTOGRAM_STEPS - 1;
    return (((uint64_t)index - shift * HISTOGRAM_STEPS + 1) << shift) - 1;
}

static inline void histogram_add(struct histogram *histogram, uint64_t value_ns)
{
    histogram->count++;
    histogram->bucket[histogram_index(value_ns)]++;
    if (value_ns > histogram->max_ns)
        histogram->max_ns = value_ns;
}

/* What that share of the values, 0 to 1, does not exceed. 0 without values. */
static inline uint64_t histogram_quantile_ns(const struct histogram *histogram, double share)
{
    double wanted = share * (double)histogram->count;
    uint64_t seen = 0;
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += histogram->bucket[i];
        if (seen > 0 && (double)seen >= wanted) {
            uint64_t value_ns = histogram_value_ns(i);
            return value_ns < histogram->max_ns ? value_ns : histogram->max_ns;
        }
    }
    return histogram->max_ns;
}

#endif
