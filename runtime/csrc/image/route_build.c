#include "route_build.h"

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
