#include "route_build.h"

#include <stdbool.h>
#include <string.h>

#include "image.h"

int route_build_hash(struct ssi_route *routes, uint32_t count, const uint8_t *strings, uint64_t strings_bytes,
                     uint64_t seed, uint64_t *hashes)
{
    for (uint32_t i = 0; i < count; i++) {
        struct ssi_route *r = &routes[i];
        if (r->path_offset > strings_bytes || r->path_bytes > strings_bytes - r->path_offset)
            return -1;
        uint32_t prefix = r->flags & SSI_ROUTE_PREFIX;
        r->hash = image_route_hash(strings + r->path_offset, r->path_bytes, r->site, prefix, seed);
        hashes[i] = r->hash;
    }
    return 0;
}

void route_build_table(const struct ssi_route *routes, uint32_t count, const uint32_t *displacements,
                       uint32_t bucket_count, struct ssi_route *table, uint32_t route_table_len)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t displacement = displacements[(routes[i].hash >> 32) & (bucket_count - 1)];
        table[image_route_entry(routes[i].hash, displacement, route_table_len)] = routes[i];
    }
}

/* Puts one bucket's hashes under a displacement; on a clash takes back what it took. */
static bool place(const uint64_t *hashes, const uint32_t *items, uint32_t count, uint32_t displacement,
                  uint32_t *taken, uint32_t route_table_len)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t entry = image_route_entry(hashes[items[i]], displacement, route_table_len);
        if (taken[entry]) {
            while (i-- > 0)
                taken[image_route_entry(hashes[items[i]], displacement, route_table_len)] = 0;
            return false;
        }
        taken[entry] = 1;
    }
    return true;
}

/* Hash and displace: the largest buckets choose first. */
int image_route_perfect(const uint64_t *hashes, uint32_t count, uint32_t *displacements, uint32_t bucket_count,
                        uint32_t route_table_len, uint32_t *work)
{
    const uint32_t tries = 1u << 24;
    if (count > route_table_len)
        return -1;
    uint32_t *start = work; /* [bucket_count + 1] */
    uint32_t *items = start + bucket_count + 1; /* [count], by bucket */
    uint32_t *fill = items + count; /* [bucket_count] */
    uint32_t *taken = fill + bucket_count; /* [route_table_len] */
    memset(start, 0, (bucket_count + 1) * sizeof(*start));
    memset(taken, 0, route_table_len * sizeof(*taken));
    memset(displacements, 0, bucket_count * sizeof(*displacements));
    for (uint32_t i = 0; i < count; i++)
        start[((hashes[i] >> 32) & (bucket_count - 1)) + 1]++;
    uint32_t largest = 0;
    for (uint32_t b = 0; b < bucket_count; b++) {
        largest = start[b + 1] > largest ? start[b + 1] : largest;
        start[b + 1] += start[b];
        fill[b] = start[b];
    }
    for (uint32_t i = 0; i < count; i++)
        items[fill[(hashes[i] >> 32) & (bucket_count - 1)]++] = i;
    for (uint32_t size = largest; size > 0; size--) {
        for (uint32_t b = 0; b < bucket_count; b++) {
            if (start[b + 1] - start[b] != size)
                continue;
            uint32_t d = 0;
            while (!place(hashes, items + start[b], size, d, taken, route_table_len))
                if (++d == tries)
                    return -1;
            displacements[b] = d;
        }
    }
    return 0;
}
