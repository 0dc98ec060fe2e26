/* Sites keep their place among what is counted when another image is served: it goes by their name, the first of their hosts in order of
 * the alphabet. */
#ifndef SANDSTORM_SITE_PLACES_H
#define SANDSTORM_SITE_PLACES_H

#include <stdint.h>

#define WEB_SITES_MAX 256 /* that have a place of their own, those of images of before included */
#define WEB_SITES_OTHER 256 /* the place of all others, */
#define WEB_SITES_NONE 257 /* and of what was for no site */
#define WEB_SITE_PLACES 258

struct web_site_places {
    uint32_t count;
    uint64_t hashes[WEB_SITES_MAX]; /* of names, by place */
};

/* What a name is known by there. */
uint64_t web_site_hash(const uint8_t *name, uint32_t name_bytes);
/* The place of a name, which has one from now on. */
uint32_t web_site_place(struct web_site_places *places, const uint8_t *name, uint32_t name_bytes);

#endif
