#include "image.h"

#include <string.h>

/* One code for each rule of image_format.h; the texts are below. */
enum image_error {
    IMAGE_ERROR_ALIGNMENT = 1,
    IMAGE_ERROR_HEADER_SIZE,
    IMAGE_ERROR_VERSION,
    IMAGE_ERROR_SLOT_BYTES,
    IMAGE_ERROR_SEGMENT_BYTES,
    IMAGE_ERROR_MTU,
    IMAGE_ERROR_FAMILIES,
    IMAGE_ERROR_FLAGS,
    IMAGE_ERROR_SECTION_SIZE,
    IMAGE_ERROR_HOST,
    IMAGE_ERROR_SITE,
    IMAGE_ERROR_ROUTE_TABLE,
    IMAGE_ERROR_ROUTE,
    IMAGE_ERROR_ROUTE_HASH,
    IMAGE_ERROR_ROUTE_COUNT,
    IMAGE_ERROR_VARIANT,
    IMAGE_ERROR_RESPONSE,
    IMAGE_ERROR_RESPONSE_FRAMES,
    IMAGE_ERROR_RESPONSE_PATCHES,
    IMAGE_ERROR_PATCH_FRAME,
    IMAGE_ERROR_PATCH_KIND,
    IMAGE_ERROR_PATCH_BYTES,
    IMAGE_ERROR_PATCH_HEAD,
    IMAGE_ERROR_PATCH_ORDER,
    IMAGE_ERROR_PATCH_TWICE,
    IMAGE_ERROR_SITE_ERROR,
    IMAGE_ERROR_FRAME,
    IMAGE_ERROR_END
};

static const char *const error_texts[IMAGE_ERROR_END] = {
    [IMAGE_ERROR_ALIGNMENT] = "a section is missing or not 8-byte aligned",
    [IMAGE_ERROR_HEADER_SIZE] = "the header has the wrong size",
    [IMAGE_ERROR_VERSION] = "the image's format is another version",
    [IMAGE_ERROR_SLOT_BYTES] = "slot_bytes is not a power of two within bounds",
    [IMAGE_ERROR_SEGMENT_BYTES] = "segment_bytes doesn't fit the slots",
    [IMAGE_ERROR_MTU] = "mtu_bytes doesn't match segment_bytes",
    [IMAGE_ERROR_FAMILIES] = "families names no address family, or an unknown one",
    [IMAGE_ERROR_FLAGS] = "flags has a bit that is not known",
    [IMAGE_ERROR_SECTION_SIZE] = "a section's size doesn't match its count in the header",
    [IMAGE_ERROR_HOST] = "a host name points outside of its tables, or is not in order or too long",
    [IMAGE_ERROR_SITE] = "there is no site, or one points outside of its tables",
    [IMAGE_ERROR_ROUTE_TABLE] = "the route table's or the buckets' number is not a power of two",
    [IMAGE_ERROR_ROUTE] =
        "a route points outside of its tables, or its path is longer than the site or the format says",
    [IMAGE_ERROR_ROUTE_HASH] = "a route is not where its hash says",
    [IMAGE_ERROR_ROUTE_COUNT] = "route_count is not the number of routes in use",
    [IMAGE_ERROR_VARIANT] = "a variant points outside of its tables",
    [IMAGE_ERROR_RESPONSE] = "a response has an impossible length or status",
    [IMAGE_ERROR_RESPONSE_FRAMES] = "a response and its frames don't match",
    [IMAGE_ERROR_RESPONSE_PATCHES] = "a response has patches outside of their table, or more than there are kinds",
    [IMAGE_ERROR_PATCH_FRAME] = "a response has patches, but its first frame says that there are none",
    [IMAGE_ERROR_PATCH_KIND] = "a response has a patch of an unknown kind",
    [IMAGE_ERROR_PATCH_BYTES] = "a response has a patch that is too short or too long for its kind",
    [IMAGE_ERROR_PATCH_HEAD] = "a response has a patch that is not inside its head and its first frame",
    [IMAGE_ERROR_PATCH_ORDER] = "a response has patches that overlap, or are not in order",
    [IMAGE_ERROR_PATCH_TWICE] = "a response has two patches of one kind",
    [IMAGE_ERROR_SITE_ERROR] = "an error response points outside of its tables",
    [IMAGE_ERROR_FRAME] = "a frame points outside of the slots, or is longer than one",
};

/* An error and the index it was found at in one negative int. */
static int fail(enum image_error error, uint64_t index)
{
    uint32_t low = index > 0x1ffffff ? 0x1ffffff : (uint32_t)index;
    return -(int)(((uint32_t)error << 25) | low);
}

static size_t append(char *text, size_t size, size_t at, const char *more)
{
    while (*more != '\0' && at + 1 < size)
        text[at++] = *more++;
    if (size > 0)
        text[at] = '\0';
    return at;
}

void image_error_text(int error, char *text, size_t size)
{
    uint32_t code = (uint32_t)-error >> 25;
    uint32_t index = (uint32_t)-error & 0x1ffffff;
    char digits[12];
    size_t first = sizeof(digits) - 1;
    digits[first] = '\0';
    do {
        digits[--first] = (char)('0' + index % 10);
        index /= 10;
    } while (index != 0);
    bool known = error < 0 && code > 0 && code < IMAGE_ERROR_END;
    size_t at = append(text, size, 0, known ? error_texts[code] : "no error");
    at = append(text, size, at, " (index ");
    at = append(text, size, at, &digits[first]);
    append(text, size, at, ")");
}

static bool is_power_of_two(uint64_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

static int check_header(const struct ssi_header *h)
{
    if (h->header_bytes != sizeof(*h))
        return fail(IMAGE_ERROR_HEADER_SIZE, h->header_bytes);
    if (!is_power_of_two(h->slot_bytes) || h->slot_bytes < SSI_SLOT_BYTES_MIN || h->slot_bytes > SSI_SLOT_BYTES_MAX)
        return fail(IMAGE_ERROR_SLOT_BYTES, h->slot_bytes);
    if (h->segment_bytes < SSI_SEGMENT_BYTES_MIN || h->segment_bytes > h->slot_bytes - SSI_PAYLOAD_OFFSET)
        return fail(IMAGE_ERROR_SEGMENT_BYTES, h->segment_bytes);
    if (h->mtu_bytes > 65535 || h->mtu_bytes < h->segment_bytes + 52)
        return fail(IMAGE_ERROR_MTU, h->mtu_bytes);
    if (h->families == 0 || (h->families & ~(uint32_t)(SSI_FAMILY_IPV4 | SSI_FAMILY_IPV6)) != 0)
        return fail(IMAGE_ERROR_FAMILIES, h->families);
    if ((h->flags & ~(uint32_t)SSI_IMAGE_MERGE_SLASHES) != 0)
        return fail(IMAGE_ERROR_FLAGS, h->flags);
    if (!is_power_of_two(h->route_table_len) || !is_power_of_two(h->bucket_count))
        return fail(IMAGE_ERROR_ROUTE_TABLE, h->route_table_len);
    return 0;
}

/* The lengths that the ELF file states against the counts that the header states. */
static int check_sizes(const struct ssi_header *h, const struct image_sections *s)
{
    const uint64_t pairs[][2] = {
        {s->strings_bytes, h->string_bytes},
        {s->hosts_bytes, (uint64_t)h->host_count * sizeof(struct ssi_host)},
        {s->sites_bytes, (uint64_t)h->site_count * sizeof(struct ssi_site)},
        {s->buckets_bytes, (uint64_t)h->bucket_count * sizeof(uint32_t)},
        {s->routes_bytes, (uint64_t)h->route_table_len * sizeof(struct ssi_route)},
        {s->variants_bytes, (uint64_t)h->variant_count * sizeof(struct ssi_variant)},
        {s->responses_bytes, (uint64_t)h->response_count * sizeof(struct ssi_response)},
        {s->patches_bytes, (uint64_t)h->patch_count * sizeof(struct ssi_patch)},
        {s->errors_bytes, (uint64_t)h->error_count * sizeof(struct ssi_error)},
        {s->frames_bytes, (uint64_t)h->frame_count * sizeof(struct ssi_frame)},
        {s->slots_bytes, (uint64_t)h->slot_count * h->slot_bytes},
    };
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
        if (pairs[i][0] != pairs[i][1])
            return fail(IMAGE_ERROR_SECTION_SIZE, i);
    return 0;
}

static int check_frames(const struct image *image)
{
    const struct ssi_header *h = image->header;
    for (uint32_t i = 0; i < h->frame_count; i++) {
        const struct ssi_frame *frame = &image->frames[i];
        if (frame->copies == 0 || frame->slot >= h->slot_count || frame->copies > h->slot_count - frame->slot)
            return fail(IMAGE_ERROR_FRAME, i);
        if (frame->payload_bytes == 0 || frame->payload_bytes > h->segment_bytes)
            return fail(IMAGE_ERROR_FRAME, i);
    }
    return 0;
}

/* Bytes of a patch, by its kind. */
static const struct {
    uint8_t least, most;
} patch_widths[SSI_PATCH_KINDS] = {
    [SSI_PATCH_DATE] = {SSI_DATE_BYTES, SSI_DATE_BYTES},
    [SSI_PATCH_CONNECTION] = {SSI_CONNECTION_BYTES, SSI_CONNECTION_BYTES},
    [SSI_PATCH_CONTENT_LENGTH] = {1, SSI_LENGTH_BYTES_MAX},
    [SSI_PATCH_CONTENT_RANGE] = {1, SSI_RANGE_BYTES_MAX},
    [SSI_PATCH_ETAG] = {SSI_ETAG_BYTES, SSI_ETAG_BYTES},
    [SSI_PATCH_LAST_MODIFIED] = {SSI_DATE_BYTES, SSI_DATE_BYTES},
};

/* A patch, those in front of which end at a byte of the stream and are of these kinds (bits). 0, or what is wrong with it. */
static uint32_t patch_error(const struct ssi_patch *patch, uint32_t end_before, uint32_t kinds_before)
{
    if (patch->kind >= SSI_PATCH_KINDS)
        return IMAGE_ERROR_PATCH_KIND;
    if (patch->bytes < patch_widths[patch->kind].least || patch->bytes > patch_widths[patch->kind].most)
        return IMAGE_ERROR_PATCH_BYTES;
    if (patch->offset < end_before)
        return IMAGE_ERROR_PATCH_ORDER;
    return (kinds_before >> patch->kind & 1) != 0 ? IMAGE_ERROR_PATCH_TWICE : 0;
}

/* The same of all patches of a response. */
static uint32_t patches_error(const struct image *image, const struct ssi_response *r)
{
    const struct ssi_frame *first = &image->frames[r->first_frame];
    const struct ssi_patch *patch = image->patches + r->first_patch;
    uint32_t end = 0, kinds = 0;
    if (r->patch_count > SSI_PATCH_KINDS || r->first_patch > image->header->patch_count ||
        r->patch_count > image->header->patch_count - r->first_patch)
        return IMAGE_ERROR_RESPONSE_PATCHES;
    if (r->patch_count > 0 && (first->flags & SSI_FRAME_PATCHED) == 0)
        return IMAGE_ERROR_PATCH_FRAME;
    for (uint32_t i = 0; i < r->patch_count; i++, patch++) {
        uint32_t error = patch_error(patch, end, kinds);
        if (error != 0)
            return error;
        end = (uint32_t)patch->offset + patch->bytes;
        kinds |= 1u << patch->kind;
    }
    return end <= r->head_bytes && end <= first->payload_bytes ? 0 : IMAGE_ERROR_PATCH_HEAD;
}

/* How many frames in front of each one are not full; also in front of the one behind the last. */
static void count_short_frames(const struct image *image, uint32_t *short_before)
{
    const struct ssi_header *h = image->header;
    short_before[0] = 0;
    for (uint32_t i = 0; i < h->frame_count; i++)
        short_before[i + 1] = short_before[i] + (image->frames[i].payload_bytes != h->segment_bytes);
}

/* Are a response's bytes those of frames that are all full but the last? Responses may share frames, so that none are walked
 * through here. */
static bool check_stream(const struct image *image, const struct ssi_response *r, const uint32_t *short_before)
{
    const struct ssi_header *h = image->header;
    uint64_t count = (r->stream_bytes - 1) / h->segment_bytes + 1;
    if (r->first_frame >= h->frame_count || count > h->frame_count - r->first_frame)
        return false;
    uint64_t last = r->first_frame + count - 1;
    return short_before[last] == short_before[r->first_frame] &&
           image->frames[last].payload_bytes == r->stream_bytes - (count - 1) * h->segment_bytes;
}

static int check_responses(const struct image *image, uint32_t *short_before)
{
    const struct ssi_header *h = image->header;
    count_short_frames(image, short_before);
    for (uint32_t i = 0; i < h->response_count; i++) {
        const struct ssi_response *r = &image->responses[i];
        if (r->status < 200 || r->status > 599 || r->head_bytes == 0 || r->stream_bytes < r->head_bytes)
            return fail(IMAGE_ERROR_RESPONSE, i);
        if (!check_stream(image, r, short_before))
            return fail(IMAGE_ERROR_RESPONSE_FRAMES, i);
        uint32_t error = patches_error(image, r);
        if (error != 0)
            return fail(error, i);
    }
    return 0;
}

static bool string_fits(const struct ssi_header *h, uint32_t offset, uint32_t bytes)
{
    return (uint64_t)offset + bytes <= h->string_bytes;
}

static bool is_patched(const struct image *image, uint32_t response_index, uint32_t kind)
{
    const struct ssi_response *r = &image->responses[response_index];
    for (uint32_t i = 0; i < r->patch_count; i++)
        if (image->patches[r->first_patch + i].kind == kind)
            return true;
    return false;
}

/* A response that says nothing of a variant, whoever sends it. */
static bool plain_fits(const struct image *image, uint32_t index)
{
    if (index >= image->header->response_count)
        return false;
    return !is_patched(image, index, SSI_PATCH_ETAG) && !is_patched(image, index, SSI_PATCH_LAST_MODIFIED);
}

/* The same, or none. */
static bool plain_or_none_fits(const struct image *image, uint32_t index)
{
    return index == SSI_NONE || plain_fits(image, index);
}

/* What a variant's 304 or 206 is answered with, or none: what it says of the variant must be there and as long. */
static bool shared_fits(const struct image *image, uint32_t index, const struct ssi_variant *v)
{
    if (index >= image->header->response_count)
        return index == SSI_NONE;
    bool dated = v->last_modified_s >= 0 && v->last_modified_s <= SSI_LAST_MODIFIED_MAX_S;
    return (v->etag_bytes == SSI_ETAG_BYTES || !is_patched(image, index, SSI_PATCH_ETAG)) &&
           (dated || !is_patched(image, index, SSI_PATCH_LAST_MODIFIED));
}

/* Where a redirect puts what is asked for, the path in front of the query: inside its head, and nobody else has such places. */
static bool places_fit(const struct ssi_variant *v, const struct ssi_response *get)
{
    uint32_t query = v->swap_offset, path = v->swap_bytes;
    if (query == 0 && path == 0)
        return true;
    bool redirects = get->status >= 300 && get->status <= 399;
    return redirects && query < get->head_bytes && path < get->head_bytes && (query == 0 || path <= query);
}

/* What ranges are answered with. A slice must lie inside the body, and what is swapped strictly inside the head: no
 * span may be empty. */
static bool ranges_fit(const struct image *image, const struct ssi_variant *v)
{
    const struct ssi_header *h = image->header;
    if (!shared_fits(image, v->partial_response, v) || !plain_or_none_fits(image, v->part_response))
        return false;
    const struct ssi_response *get = &image->responses[v->get_response];
    if (v->partial_response == SSI_NONE)
        return v->part_response == SSI_NONE && places_fit(v, get);
    const struct ssi_response *partial = &image->responses[v->partial_response];
    if (get->stream_bytes - get->head_bytes != v->content_bytes)
        return false;
    if (v->part_response == SSI_NONE)
        return true;
    return h->multipart_type_response != SSI_NONE && h->multipart_end_response != SSI_NONE && v->swap_offset > 0 &&
           (uint64_t)v->swap_offset + v->swap_bytes < partial->head_bytes;
}

static int check_variants(const struct image *image)
{
    const struct ssi_header *h = image->header;
    if (h->variant_count > SSI_VARIANTS_MAX || !plain_or_none_fits(image, h->multipart_type_response) ||
        !plain_or_none_fits(image, h->multipart_end_response))
        return fail(IMAGE_ERROR_VARIANT, h->variant_count);
    for (uint32_t i = 0; i < h->variant_count; i++) {
        const struct ssi_variant *v = &image->variants[i];
        bool fits = plain_fits(image, v->get_response) && shared_fits(image, v->not_modified_response, v) &&
                    v->encoding < SSI_ENCODING_COUNT && string_fits(h, v->etag_offset, v->etag_bytes);
        if (!fits || !ranges_fit(image, v))
            return fail(IMAGE_ERROR_VARIANT, i);
    }
    for (uint32_t i = 0; i < h->error_count; i++) {
        const struct ssi_error *e = &image->errors[i];
        if (!plain_fits(image, e->get_response))
            return fail(IMAGE_ERROR_SITE_ERROR, i);
    }
    return 0;
}

/* As memcmp, and where one name begins with the other, the shorter first. */
static int name_compare(const uint8_t *a, uint32_t a_bytes, const uint8_t *b, uint32_t b_bytes)
{
    int order = memcmp(a, b, a_bytes < b_bytes ? a_bytes : b_bytes);
    if (order != 0 || a_bytes == b_bytes)
        return order;
    return a_bytes < b_bytes ? -1 : 1;
}

static int check_hosts(const struct image *image)
{
    const struct ssi_header *h = image->header;
    for (uint32_t i = 0; i < h->host_count; i++) {
        const struct ssi_host *host = &image->hosts[i];
        if (!string_fits(h, host->name_offset, host->name_bytes) || host->name_bytes > SSI_HOST_BYTES_MAX ||
            host->site >= h->site_count)
            return fail(IMAGE_ERROR_HOST, i);
        const struct ssi_host *before = host - 1;
        if (i > 0 && name_compare(image->strings + before->name_offset, before->name_bytes,
                                  image->strings + host->name_offset, host->name_bytes) >= 0)
            return fail(IMAGE_ERROR_HOST, i);
    }
    return 0;
}

static int check_sites(const struct image *image)
{
    const struct ssi_header *h = image->header;
    if (h->site_count == 0 || h->site_count > SSI_SITES_MAX)
        return fail(IMAGE_ERROR_SITE, h->site_count);
    for (uint32_t i = 0; i < h->site_count; i++) {
        const struct ssi_site *site = &image->sites[i];
        if (site->first_error > h->error_count || site->error_count > h->error_count - site->first_error ||
            site->prefix_bytes_max > SSI_PREFIX_BYTES_MAX)
            return fail(IMAGE_ERROR_SITE, i);
    }
    return 0;
}

static bool route_fits(const struct image *image, const struct ssi_route *r)
{
    const struct ssi_header *h = image->header;
    if (r->first_variant >= h->variant_count || r->variant_count > h->variant_count - r->first_variant ||
        !string_fits(h, r->path_offset, r->path_bytes) || r->path_bytes > SSI_PATH_BYTES_MAX ||
        !plain_or_none_fits(image, r->options_response) || r->site >= h->site_count ||
        (r->flags & ~(SSI_ROUTE_PREFIX | SSI_ROUTE_ALIAS)) != 0)
        return false;
    return (r->flags & SSI_ROUTE_PREFIX) == 0 || r->path_bytes <= image->sites[r->site].prefix_bytes_max;
}

static int check_routes(const struct image *image)
{
    const struct ssi_header *h = image->header;
    uint32_t used = 0;
    for (uint32_t i = 0; i < h->route_table_len; i++) {
        const struct ssi_route *r = &image->routes[i];
        if (r->variant_count == 0)
            continue;
        used++;
        if (!route_fits(image, r))
            return fail(IMAGE_ERROR_ROUTE, i);
        uint64_t hash = image_route_hash(image->strings + r->path_offset, r->path_bytes, r->site,
                                         r->flags & SSI_ROUTE_PREFIX, h->route_hash_seed);
        uint32_t displacement = image->buckets[(hash >> 32) & (h->bucket_count - 1)];
        if (hash != r->hash || image_route_entry(hash, displacement, h->route_table_len) != i)
            return fail(IMAGE_ERROR_ROUTE_HASH, i);
    }
    return used == h->route_count ? 0 : fail(IMAGE_ERROR_ROUTE_COUNT, used);
}

int image_open(struct image *image, const struct image_sections *s, uint32_t *work)
{
    const void *all[] = {s->header,   s->strings,   s->hosts,   s->sites,  s->buckets, s->routes,
                         s->variants, s->responses, s->patches, s->errors, s->frames,  s->slots};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        if (((uintptr_t)all[i] & 7) != 0)
            return fail(IMAGE_ERROR_ALIGNMENT, i);
    const struct ssi_header *header = s->header;
    if (s->header_bytes >= sizeof(header->version) && header->version != SSI_VERSION)
        return fail(IMAGE_ERROR_VERSION, header->version);
    if (s->header_bytes != sizeof(struct ssi_header))
        return fail(IMAGE_ERROR_HEADER_SIZE, s->header_bytes);
    *image = (struct image){s->header,   s->strings,   s->hosts,   s->sites,  s->buckets, s->routes,
                            s->variants, s->responses, s->patches, s->errors, s->frames,  s->slots};
    int error = check_header(image->header);
    if (error == 0)
        error = check_sizes(image->header, s);
    if (error == 0)
        error = check_frames(image);
    if (error == 0)
        error = check_responses(image, work);
    if (error == 0)
        error = check_variants(image);
    if (error == 0)
        error = check_hosts(image);
    if (error == 0)
        error = check_sites(image);
    if (error == 0)
        error = check_routes(image);
    return error;
}

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

static const struct ssi_host *find_host(const struct image *image, const uint8_t *name, uint32_t name_bytes)
{
    uint32_t low = 0, high = image->header->host_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct ssi_host *host = &image->hosts[middle];
        int order = name_compare(image->strings + host->name_offset, host->name_bytes, name, name_bytes);
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
