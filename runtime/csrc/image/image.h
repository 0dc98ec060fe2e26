/* The mapped image: validation, route lookup. No system call, no clock, no allocation. */
#ifndef SANDSTORM_IMAGE_H
#define SANDSTORM_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image_format.h"

/* Where the sections of an ELF file lie in memory, as its reader found them. The pointers must be 8-byte aligned
 * and stay mapped while the image is used. Sizes in bytes. */
struct image_sections {
    const void *header, *strings, *hosts, *sites, *buckets, *routes, *variants, *responses, *patches, *errors,
        *frames;
    const uint8_t *slots; /* may be NULL where only the tables are looked at */
    uint64_t header_bytes, strings_bytes, hosts_bytes, sites_bytes, buckets_bytes, routes_bytes, variants_bytes,
        responses_bytes, patches_bytes, errors_bytes, frames_bytes, slots_bytes;
};

/* A validated image. */
struct image {
    const struct ssi_header *header;
    const uint8_t *strings;
    const struct ssi_host *hosts;
    const struct ssi_site *sites;
    const uint32_t *buckets;
    const struct ssi_route *routes;
    const struct ssi_variant *variants;
    const struct ssi_response *responses;
    const struct ssi_patch *patches;
    const struct ssi_error *errors;
    const struct ssi_frame *frames;
    const uint8_t *slots;
};

/* Checks every offset, length and count, then fills *image. An image that passes can't make image_*, arena_*,
 * tcpip_* or web_* read out of bounds, as long as nobody else can write to its tables. The work is in proportion to
 * the sections' sizes. work: room for as many uint32_t as frames_bytes has struct ssi_frame, and one more; not needed
 * later. Returns 0, or a negative enum image_error. */
int image_open(struct image *image, const struct image_sections *sections, uint32_t *work);

/* What was wrong and where: "frame 12 has no slot". error: what image_open returned. Writes at
 * most size bytes with the final NUL into text. */
void image_error_text(int error, char *text, size_t size);

/* The order of hosts' names: as memcmp, and where one name begins with the other, the shorter first. */
int image_name_compare(const uint8_t *a, uint32_t a_bytes, const uint8_t *b, uint32_t b_bytes);

/* The site that a request for a host means; its name as it came, without port. host_bytes 0: the request names none.
 * SSI_NONE: no site is meant. */
uint32_t image_site_find(const struct image *image, const uint8_t *host, uint32_t host_bytes);

/* A site's responses for a status, or NULL. */
const struct ssi_error *image_error_find(const struct image *image, uint32_t site, uint32_t status);

/* The 64-bit hash of a route: its path, bytes as they are, its site and SSI_ROUTE_PREFIX or 0. */
uint64_t image_route_hash(const uint8_t *path, size_t path_bytes, uint32_t site, uint32_t prefix, uint64_t seed);

/* Where a hash's displacement is. */
static inline const uint32_t *image_route_bucket(const struct image *image, uint64_t hash)
{
    return &image->buckets[(hash >> 32) & (image->header->bucket_count - 1)];
}

/* The entry that hash h has under its bucket's displacement. */
uint32_t image_route_entry(uint64_t hash, uint32_t displacement, uint32_t route_table_len);

/* The route of a site that is for this path, or else for the longest prefix of it; or NULL. */
const struct ssi_route *image_route_find(const struct image *image, uint32_t site, const uint8_t *path,
                                         size_t path_bytes);

#endif
