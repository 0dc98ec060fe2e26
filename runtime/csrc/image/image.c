#include "image.h"

#include <string.h>

/* The finalizer of MurmurHash3: every input bit changes every output bit. */
static uint64_t mix(uint64_t x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccd;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53;
    return x ^ (x >> 33);
}

/* The last bytes of a text, from one to seven, as a word; the same as a copy of them over zeros. */
static uint64_t tail_word(const uint8_t *text, size_t text_bytes)
{
    uint64_t word = 0;
    if (text_bytes >= 8) {
        memcpy(&word, text + text_bytes - 8, 8);
        return word >> 8 >> (56 - text_bytes % 8 * 8);
    }
    for (size_t i = 0; i < text_bytes; i++)
        word |= (uint64_t)text[i] << 8 * i;
    return word;
}

uint64_t image_route_hash(const uint8_t *path, size_t path_bytes, uint32_t site, uint32_t prefix, uint64_t seed)
{
    uint64_t where = (uint64_t)site << 16 | prefix; /* most often 0, of which mix makes 0 */
    uint64_t hash = seed ^ (where != 0 ? mix(where) : 0) ^ (path_bytes * 0x9e3779b97f4a7c15);
    size_t at = 0;
    for (; path_bytes - at >= 8; at += 8) {
        uint64_t word;
        memcpy(&word, path + at, sizeof(word));
        hash = mix(hash ^ word) + 0x9e3779b97f4a7c15;
    }
    return at < path_bytes ? mix(hash ^ tail_word(path, path_bytes)) + 0x9e3779b97f4a7c15 : hash;
}

uint32_t image_route_entry(uint64_t hash, uint32_t displacement, uint32_t route_table_len)
{
    return (uint32_t)mix(hash ^ (displacement * 0x9e3779b97f4a7c15)) & (route_table_len - 1);
}

static const struct ssi_route *find_exact(const struct image *image, uint32_t site, uint32_t prefix,
                                          const uint8_t *path, size_t path_bytes)
{
    const struct ssi_header *h = image->header;
    uint64_t hash = image_route_hash(path, path_bytes, site, prefix, h->route_hash_seed);
    uint32_t displacement = *image_route_bucket(image, hash);
    const struct ssi_route *route = &image->routes[image_route_entry(hash, displacement, h->route_table_len)];
    if (route->variant_count == 0 || route->hash != hash || route->path_bytes != path_bytes || route->site != site ||
        (route->flags & SSI_ROUTE_PREFIX) != prefix)
        return NULL;
    return memcmp(image->strings + route->path_offset, path, path_bytes) == 0 ? route : NULL;
}

const struct ssi_route *image_route_find(const struct image *image, uint32_t site, const uint8_t *path,
                                         size_t path_bytes)
{
    const struct ssi_route *route = find_exact(image, site, 0, path, path_bytes);
    uint32_t prefix_bytes_max = image->sites[site].prefix_bytes_max;
    size_t end = path_bytes < prefix_bytes_max ? path_bytes : prefix_bytes_max;
    for (; route == NULL && end > 0; end--)
        if (path[end - 1] == '/')
            route = find_exact(image, site, SSI_ROUTE_PREFIX, path, end);
    return route;
}

int image_name_compare(const uint8_t *a, uint32_t a_bytes, const uint8_t *b, uint32_t b_bytes)
{
    int order = memcmp(a, b, a_bytes < b_bytes ? a_bytes : b_bytes);
    if (order != 0 || a_bytes == b_bytes)
        return order;
    return a_bytes < b_bytes ? -1 : 1;
}

static const struct ssi_host *find_host(const struct image *image, const uint8_t *name, uint32_t name_bytes)
{
    uint32_t low = 0, high = image->header->host_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct ssi_host *host = &image->hosts[middle];
        int order = image_name_compare(image->strings + host->name_offset, host->name_bytes, name, name_bytes);
        if (order == 0)
            return host;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

/* "*.example.org" for "a.b.example.org", the longest that there is. */
static const struct ssi_host *find_wildcard(const struct image *image, const uint8_t *name, uint32_t name_bytes)
{
    uint8_t pattern[SSI_HOST_BYTES_MAX + 1];
    for (uint32_t at = 1; at < name_bytes; at++) {
        if (name[at] != '.')
            continue;
        pattern[0] = '*';
        memcpy(pattern + 1, name + at, name_bytes - at);
        const struct ssi_host *host = find_host(image, pattern, name_bytes - at + 1);
        if (host != NULL)
            return host;
    }
    return NULL;
}

/* As struct ssi_host has names: in lower case, without the dot of a fully qualified one. 0: too long to be one. */
static uint32_t name_of(const uint8_t *host, uint32_t host_bytes, uint8_t *name)
{
    if (host_bytes > 0 && host[host_bytes - 1] == '.')
        host_bytes--;
    if (host_bytes > SSI_HOST_BYTES_MAX)
        return 0;
    for (uint32_t i = 0; i < host_bytes; i++)
        name[i] = host[i] >= 'A' && host[i] <= 'Z' ? host[i] | 32 : host[i];
    return host_bytes;
}

uint32_t image_site_find(const struct image *image, const uint8_t *host, uint32_t host_bytes)
{
    /* By far the most images have one site for all names. */
    if (image->header->host_count == 1 && image->hosts->name_bytes == 0)
        return image->hosts->site;
    uint8_t name[SSI_HOST_BYTES_MAX] = "";
    uint32_t name_bytes = name_of(host, host_bytes, name);
    const struct ssi_host *found = find_host(image, name, name_bytes);
    if (found == NULL)
        found = find_wildcard(image, name, name_bytes);
    if (found == NULL)
        found = find_host(image, name, 0);
    return found != NULL ? found->site : SSI_NONE;
}

const struct ssi_error *image_error_find(const struct image *image, uint32_t site, uint32_t status)
{
    const struct ssi_error *errors = image->errors + image->sites[site].first_error;
    for (uint32_t i = 0; i < image->sites[site].error_count; i++)
        if (errors[i].status == status)
            return &errors[i];
    return NULL;
}
