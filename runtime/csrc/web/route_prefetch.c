/* From a request to its first frames there are half a dozen tables, each of which says where to look in the next. In a large
 * image none of them is in the caches, and to wait for one after the other takes longer than all the rest of an answer. So
 * while other segments are taken, what the next requests will need is fetched, a table a step. */
#include "route_prefetch.h"

#include <string.h>

#include "state.h"

enum { STEP_BUCKET, STEP_ROUTE, STEP_VARIANT, STEP_RESPONSE, STEP_FRAMES };
_Static_assert(STEP_FRAMES + 1 == WEB_PREFETCH_STEPS, "as many steps as there are");

static const char method[] = "GET ";
#define METHOD_BYTES (sizeof(method) - 1)

/* The route's hash of a GET, if its path stands for itself and all names are one site's. */
static bool hash_of(const struct image *image, const struct tcpip_prefetch *ahead, uint64_t *hash)
{
    bool one_site = image->header->host_count == 1 && image->hosts->name_bytes == 0;
    if (!one_site || ahead->data_bytes <= METHOD_BYTES || memcmp(ahead->data, method, METHOD_BYTES) != 0)
        return false;
    const uint8_t *path = ahead->data + METHOD_BYTES;
    const uint8_t *end = memchr(path, ' ', ahead->data_bytes - METHOD_BYTES);
    if (end == NULL)
        return false;
    *hash = image_route_hash(path, (size_t)(end - path), image->hosts->site, 0, image->header->route_hash_seed);
    return true;
}

/* Always inline: see arena_prefetch. */
__attribute__((always_inline)) static inline void prefetch_frames(const struct tcpip *tcpip, uint32_t first)
{
    const struct generation *generation = generation_newest(&tcpip->generations);
    const struct ssi_frame *frames = &generation->image.frames[first];
    const struct arena_frame *places = &generation->frames[first];
    __builtin_prefetch(frames);
    __builtin_prefetch((const uint8_t *)frames + NMIO_CACHE_LINE_BYTES);
    __builtin_prefetch(places);
    __builtin_prefetch((const uint8_t *)places + NMIO_CACHE_LINE_BYTES);
}

bool web_prefetch(const struct tcpip *tcpip, struct tcpip_prefetch *ahead, uint32_t step)
{
    const struct web *web = tcpip->app_state;
    const struct image *image = web->image;
    const struct ssi_header *header = image->header;
    switch (step) {
    case STEP_BUCKET:
        if (!hash_of(image, ahead, &ahead->found))
            return false;
        __builtin_prefetch(image_route_bucket(image, ahead->found));
        return true;
    case STEP_ROUTE:
        ahead->found =
            image_route_entry(ahead->found, *image_route_bucket(image, ahead->found), header->route_table_len);
        __builtin_prefetch(&image->routes[ahead->found]);
        return true;
    case STEP_VARIANT:
        if (image->routes[ahead->found].variant_count == 0)
            return false;
        __builtin_prefetch(image->strings + image->routes[ahead->found].path_offset);
        ahead->found = image->routes[ahead->found].first_variant;
        __builtin_prefetch(&image->variants[ahead->found]);
        return true;
    case STEP_RESPONSE:
        ahead->found = image->variants[ahead->found].get_response;
        __builtin_prefetch(&image->responses[ahead->found]);
        __builtin_prefetch(&web->response_uses[ahead->found], 1);
        return true;
    default:
        prefetch_frames(tcpip, image->responses[ahead->found].first_frame);
        return false;
    }
}
