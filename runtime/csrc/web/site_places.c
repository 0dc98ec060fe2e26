#include "site_places.h"

#include "image/image.h"

uint64_t web_site_hash(const uint8_t *name, uint32_t name_bytes)
{
    return image_route_hash(name, name_bytes, 0, 0, 0);
}

uint32_t web_site_place(struct web_site_places *places, const uint8_t *name, uint32_t name_bytes)
{
    uint64_t hash = web_site_hash(name, name_bytes);
    for (uint32_t place = 0; place < places->count; place++)
        if (places->hashes[place] == hash)
            return place;
    if (places->count == WEB_SITES_MAX)
        return WEB_SITES_OTHER;
    places->hashes[places->count] = hash;
    return places->count++;
}
