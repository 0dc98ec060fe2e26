/* For the compiler: the rows of routes become the table that image_route_find looks them up in. */
#ifndef SANDSTORM_ROUTE_BUILD_H
#define SANDSTORM_ROUTE_BUILD_H

#include <stdint.h>

#include "image_format.h"

/* Sets the hash of routes[count]. strings: what their path_offset points into. hashes: the same once more, for
 * image_route_perfect. Returns 0, or -1 if a path is not in the strings_bytes of strings. */
int route_build_hash(struct ssi_route *routes, uint32_t count, const uint8_t *strings, uint64_t strings_bytes,
                     uint64_t seed, uint64_t *hashes);

/* Fills displacements[bucket_count] such that no two of the hashes[count] share an entry; for the compiler.
 * work: room for 5 * count + 2 * bucket_count + 8 + route_table_len uint32_t. Returns 0, or -1 if the table is too full
 * or two hashes are equal (try another seed). */
int image_route_perfect(const uint64_t *hashes, uint32_t count, uint32_t *displacements, uint32_t bucket_count,
                        uint32_t route_table_len, uint32_t *work);

/* Puts routes[count] where displacements[bucket_count], as image_route_perfect has filled it, says. table:
 * route_table_len entries, all zeros; that and bucket_count are powers of two. */
void route_build_table(const struct ssi_route *routes, uint32_t count, const uint32_t *displacements,
                       uint32_t bucket_count, struct ssi_route *table, uint32_t route_table_len);

#endif
