#include <string.h>

#include "image.h"

/* One for each rule of image_format.h. The text is what an operator reads, # being which row, or the value that is wrong. */
#define IMAGE_ERRORS(X)                                                                                              \
    X(ALIGNMENT, "a section is missing or not 8-byte aligned")                                                       \
    X(HEADER_BYTES, "the header is # bytes long, which is not its size")                                             \
    X(VERSION, "its format is another version, #")                                                                   \
    X(SLOT_BYTES, "slot_bytes is #, no power of two within bounds")                                                  \
    X(SEGMENT_BYTES, "segment_bytes is #, too few, or more than a slot holds")                                       \
    X(MTU_BYTES, "mtu_bytes is #, less than a segment with its headers, or no packet's size")                        \
    X(FAMILIES, "families is #, which names no address family or an unknown one")                                    \
    X(FLAGS, "flags is #, which has a bit that is not known")                                                        \
    X(ROUTE_TABLE_LEN, "route_table_len is #, no power of two")                                                      \
    X(BUCKET_COUNT, "bucket_count is #, no power of two")                                                            \
    X(STRINGS, "the strings are not as long as the header says")                                                     \
    X(HOSTS, "the table of hosts is not as long as the header says")                                                 \
    X(SITES, "the table of sites is not as long as the header says")                                                 \
    X(BUCKETS, "the table of buckets is not as long as the header says")                                             \
    X(ROUTES, "the table of routes is not as long as the header says")                                               \
    X(VARIANTS, "the table of variants is not as long as the header says")                                           \
    X(RESPONSES, "the table of responses is not as long as the header says")                                         \
    X(PATCHES, "the table of patches is not as long as the header says")                                             \
    X(ERRORS, "the table of error answers is not as long as the header says")                                        \
    X(FRAMES, "the table of frames is not as long as the header says")                                               \
    X(SLOTS, "the slots are not as many as the header says")                                                         \
    X(FRAME_COPIES, "frame # has no slot")                                                                           \
    X(FRAME_SLOT, "frame #: its slots are outside of the file")                                                      \
    X(FRAME_BYTES, "frame # is empty, or holds more than a segment")                                                 \
    X(RESPONSE_STATUS, "response #: its status is none of an answer")                                                \
    X(RESPONSE_HEAD, "response # has no head, or one that is longer than itself")                                    \
    X(RESPONSE_FRAMES, "response #: its frames are outside of their table")                                          \
    X(RESPONSE_STREAM, "response # is not as long as its frames")                                                    \
    X(RESPONSE_PATCHES, "response #: its patches are outside of their table, or more than there are kinds")          \
    X(PATCH_FRAME, "response # has patches, but its first frame says that there are none")                           \
    X(PATCH_KIND, "response # has a patch of an unknown kind")                                                       \
    X(PATCH_BYTES, "response # has a patch that is too short or too long for its kind")                              \
    X(PATCH_ORDER, "response # has patches that overlap, or are not in order")                                       \
    X(PATCH_TWICE, "response # has two patches of one kind")                                                         \
    X(PATCH_HEAD, "response # has a patch that is not inside its head and its first frame")                          \
    X(VARIANT_COUNT, "variant_count is #, more than can be numbered")                                                \
    X(MULTIPART_TYPE, "multipart_type_response is #: no response, or one with an ETag or time of a variant")         \
    X(MULTIPART_END, "multipart_end_response is #: no response, or one with an ETag or time of a variant")           \
    X(VARIANT_GET, "variant #: what GET is answered with is no response, or has a variant's ETag or time patched")   \
    X(VARIANT_NOT_MODIFIED, "variant #: its 304 is no response, or patches an ETag or time that it has not")         \
    X(VARIANT_PARTIAL, "variant #: its 206 is no response, or patches an ETag or time that it has not")              \
    X(VARIANT_PART, "variant #: its part header is no response, or has a variant's ETag or time patched")            \
    X(VARIANT_ENCODING, "variant #: its encoding is not known")                                                      \
    X(VARIANT_ETAG, "variant #: its ETag is outside of the strings")                                                 \
    X(VARIANT_BODY, "variant #: its content is not as long as its body")                                             \
    X(VARIANT_PLACES, "variant #: a redirect's places for path and query are not in its head, or not in order")      \
    X(VARIANT_NO_PARTIAL, "variant # has a part header, but no 206")                                                 \
    X(VARIANT_MULTIPART, "variant # has a part header, but the image has no multipart type or end")                  \
    X(VARIANT_SWAP, "variant #: what several ranges swap is not inside the head of its 206")                         \
    X(ERROR_RESPONSE, "error answer #: it is no response, or has a variant's ETag or time patched")                  \
    X(HOST_NAME, "host #: its name is outside of the strings")                                                       \
    X(HOST_BYTES, "host #: its name is longer than names are")                                                       \
    X(HOST_SITE, "host #: there is no such site")                                                                    \
    X(HOST_ORDER, "host #: its name is not behind the one before it")                                                \
    X(SITE_COUNT, "site_count is #: none, or more than can be numbered")                                             \
    X(SITE_ERRORS, "site #: its error answers are outside of their table")                                           \
    X(SITE_PREFIX, "site #: its longest prefix is longer than prefixes may be")                                      \
    X(ROUTE_VARIANTS, "route #: its variants are outside of their table")                                            \
    X(ROUTE_PATH, "route #: its path is outside of the strings")                                                     \
    X(ROUTE_PATH_BYTES, "route #: its path is longer than any request")                                              \
    X(ROUTE_OPTIONS, "route #: what OPTIONS is answered with is no response, or has a variant's ETag or time")       \
    X(ROUTE_SITE, "route #: there is no such site")                                                                  \
    X(ROUTE_FLAGS, "route #: a flag is not known")                                                                   \
    X(ROUTE_PREFIX, "route # is a prefix, and longer than its site's longest")                                       \
    X(ROUTE_HASH, "route # is not where its hash says")                                                              \
    X(ROUTE_COUNT, "# routes are in use, and the header says another number")

enum image_error {
    IMAGE_GOOD,
#define IMAGE_ERROR_CODE(name, text) IMAGE_ERROR_##name,
    IMAGE_ERRORS(IMAGE_ERROR_CODE)
#undef IMAGE_ERROR_CODE
        IMAGE_ERROR_END
};

static const char *const error_texts[IMAGE_ERROR_END] = {[IMAGE_GOOD] = "no error",
#define IMAGE_ERROR_TEXT(name, text) [IMAGE_ERROR_##name] = (text),
                                                         IMAGE_ERRORS(IMAGE_ERROR_TEXT)
#undef IMAGE_ERROR_TEXT
};

/* An error and a row or value in one negative int. */
#define ROW_BITS 24
#define ROW_MAX ((1u << ROW_BITS) - 1)
#define ERRORS_MAX (1 << (31 - ROW_BITS))
_Static_assert(IMAGE_ERROR_END <= ERRORS_MAX, "there is room for as many");

static int fail(enum image_error error, uint64_t row)
{
    return -(int)((uint32_t)error << ROW_BITS | (row > ROW_MAX ? ROW_MAX : (uint32_t)row));
}

/* The same of what may be none. */
static int result_of(enum image_error error, uint64_t row)
{
    return error == IMAGE_GOOD ? 0 : fail(error, row);
}

static size_t append(char *text, size_t size, size_t at, const char *more, size_t more_bytes)
{
    for (size_t i = 0; i < more_bytes && at + 1 < size; i++)
        text[at++] = more[i];
    if (size > 0)
        text[at] = '\0';
    return at;
}

static size_t append_row(char *text, size_t size, size_t at, uint32_t row)
{
    char digits[12];
    size_t first = sizeof(digits);
    do {
        digits[--first] = (char)('0' + row % 10);
        row /= 10;
    } while (row != 0);
    return append(text, size, at, &digits[first], sizeof(digits) - first);
}

void image_error_text(int error, char *text, size_t size)
{
    static const char more[] = " or more";
    uint32_t code = (uint32_t)-error >> ROW_BITS, row = (uint32_t)-error & ROW_MAX;
    const char *rule = error_texts[error < 0 && code < IMAGE_ERROR_END ? code : IMAGE_GOOD];
    const char *place = memchr(rule, '#', strlen(rule));
    size_t front = place != NULL ? (size_t)(place - rule) : strlen(rule);
    size_t at = append(text, size, 0, rule, front);
    if (place == NULL)
        return;
    at = append_row(text, size, at, row);
    if (row == ROW_MAX)
        at = append(text, size, at, more, sizeof(more) - 1);
    append(text, size, at, place + 1, strlen(place + 1));
}

static bool is_power_of_two(uint64_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

/* Are rows [first, first + count) of a table? */
static bool rows_fit(uint32_t first, uint32_t count, uint32_t table_count)
{
    return first <= table_count && count <= table_count - first;
}

static int check_version(const struct image_sections *s)
{
    const struct ssi_header *h = s->header;
    if (s->header_bytes >= sizeof(h->version) && h->version != SSI_VERSION)
        return fail(IMAGE_ERROR_VERSION, h->version);
    if (s->header_bytes != sizeof(*h))
        return fail(IMAGE_ERROR_HEADER_BYTES, s->header_bytes);
    return h->header_bytes == sizeof(*h) ? 0 : fail(IMAGE_ERROR_HEADER_BYTES, h->header_bytes);
}

static int check_header(const struct ssi_header *h)
{
    if (!is_power_of_two(h->slot_bytes) || h->slot_bytes < SSI_SLOT_BYTES_MIN || h->slot_bytes > SSI_SLOT_BYTES_MAX)
        return fail(IMAGE_ERROR_SLOT_BYTES, h->slot_bytes);
    if (h->segment_bytes < SSI_SEGMENT_BYTES_MIN || h->segment_bytes > h->slot_bytes - SSI_PAYLOAD_OFFSET)
        return fail(IMAGE_ERROR_SEGMENT_BYTES, h->segment_bytes);
    if (h->mtu_bytes > 65535 || h->mtu_bytes < h->segment_bytes + 52)
        return fail(IMAGE_ERROR_MTU_BYTES, h->mtu_bytes);
    if (h->families == 0 || (h->families & ~(uint32_t)(SSI_FAMILY_IPV4 | SSI_FAMILY_IPV6)) != 0)
        return fail(IMAGE_ERROR_FAMILIES, h->families);
    if ((h->flags & ~(uint32_t)SSI_IMAGE_MERGE_SLASHES) != 0)
        return fail(IMAGE_ERROR_FLAGS, h->flags);
    if (!is_power_of_two(h->route_table_len))
        return fail(IMAGE_ERROR_ROUTE_TABLE_LEN, h->route_table_len);
    return is_power_of_two(h->bucket_count) ? 0 : fail(IMAGE_ERROR_BUCKET_COUNT, h->bucket_count);
}

/* The lengths that the ELF file states against the counts that the header states. */
static int check_sizes(const struct ssi_header *h, const struct image_sections *s)
{
    const struct {
        uint64_t bytes, count;
        size_t row_bytes;
        enum image_error error;
    } sections[] = {
        {s->strings_bytes, h->string_bytes, 1, IMAGE_ERROR_STRINGS},
        {s->hosts_bytes, h->host_count, sizeof(struct ssi_host), IMAGE_ERROR_HOSTS},
        {s->sites_bytes, h->site_count, sizeof(struct ssi_site), IMAGE_ERROR_SITES},
        {s->buckets_bytes, h->bucket_count, sizeof(uint32_t), IMAGE_ERROR_BUCKETS},
        {s->routes_bytes, h->route_table_len, sizeof(struct ssi_route), IMAGE_ERROR_ROUTES},
        {s->variants_bytes, h->variant_count, sizeof(struct ssi_variant), IMAGE_ERROR_VARIANTS},
        {s->responses_bytes, h->response_count, sizeof(struct ssi_response), IMAGE_ERROR_RESPONSES},
        {s->patches_bytes, h->patch_count, sizeof(struct ssi_patch), IMAGE_ERROR_PATCHES},
        {s->errors_bytes, h->error_count, sizeof(struct ssi_error), IMAGE_ERROR_ERRORS},
        {s->frames_bytes, h->frame_count, sizeof(struct ssi_frame), IMAGE_ERROR_FRAMES},
        {s->slots_bytes, h->slot_count, h->slot_bytes, IMAGE_ERROR_SLOTS},
    };
    for (size_t i = 0; i < sizeof(sections) / sizeof(sections[0]); i++)
        if (sections[i].bytes != sections[i].count * sections[i].row_bytes)
            return fail(sections[i].error, 0);
    return 0;
}

static enum image_error frame_error(const struct ssi_header *h, const struct ssi_frame *frame)
{
    if (frame->copies == 0)
        return IMAGE_ERROR_FRAME_COPIES;
    if (!rows_fit(frame->slot, frame->copies, h->slot_count))
        return IMAGE_ERROR_FRAME_SLOT;
    if (frame->payload_bytes == 0 || frame->payload_bytes > h->segment_bytes)
        return IMAGE_ERROR_FRAME_BYTES;
    return IMAGE_GOOD;
}

static int check_frames(const struct image *image)
{
    enum image_error error = IMAGE_GOOD;
    uint32_t i = 0;
    for (; i < image->header->frame_count && error == IMAGE_GOOD; i++)
        error = frame_error(image->header, &image->frames[i]);
    return result_of(error, i - 1);
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

/* Of a patch, those in front of which end at a byte of the stream and are of these kinds (bits). */
static enum image_error patch_error(const struct ssi_patch *patch, uint32_t end_before, uint32_t kinds_before)
{
    if (patch->kind >= SSI_PATCH_KINDS)
        return IMAGE_ERROR_PATCH_KIND;
    if (patch->bytes < patch_widths[patch->kind].least || patch->bytes > patch_widths[patch->kind].most)
        return IMAGE_ERROR_PATCH_BYTES;
    if (patch->offset < end_before)
        return IMAGE_ERROR_PATCH_ORDER;
    if ((kinds_before >> patch->kind & 1) != 0)
        return IMAGE_ERROR_PATCH_TWICE;
    return IMAGE_GOOD;
}

/* Of all patches of a response, whose frames fit. */
static enum image_error patches_error(const struct image *image, const struct ssi_response *r)
{
    const struct ssi_frame *first = &image->frames[r->first_frame];
    uint32_t end = 0, kinds = 0;
    if (r->patch_count > SSI_PATCH_KINDS || !rows_fit(r->first_patch, r->patch_count, image->header->patch_count))
        return IMAGE_ERROR_RESPONSE_PATCHES;
    if (r->patch_count > 0 && (first->flags & SSI_FRAME_PATCHED) == 0)
        return IMAGE_ERROR_PATCH_FRAME;
    for (uint32_t i = 0; i < r->patch_count; i++) {
        const struct ssi_patch *patch = &image->patches[r->first_patch + i];
        enum image_error error = patch_error(patch, end, kinds);
        if (error != IMAGE_GOOD)
            return error;
        end = (uint32_t)patch->offset + patch->bytes;
        kinds |= 1u << patch->kind;
    }
    if (end > r->head_bytes || end > first->payload_bytes)
        return IMAGE_ERROR_PATCH_HEAD;
    return IMAGE_GOOD;
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
static enum image_error stream_error(const struct image *image, const struct ssi_response *r,
                                     const uint32_t *short_before)
{
    const struct ssi_header *h = image->header;
    uint64_t count = (r->stream_bytes - 1) / h->segment_bytes + 1;
    if (r->first_frame >= h->frame_count || count > h->frame_count - r->first_frame)
        return IMAGE_ERROR_RESPONSE_FRAMES;
    uint64_t last = r->first_frame + count - 1;
    if (short_before[last] != short_before[r->first_frame] ||
        image->frames[last].payload_bytes != r->stream_bytes - (count - 1) * h->segment_bytes)
        return IMAGE_ERROR_RESPONSE_STREAM;
    return IMAGE_GOOD;
}

static enum image_error response_error(const struct image *image, const struct ssi_response *r,
                                       const uint32_t *short_before)
{
    if (r->status < 200 || r->status > 599)
        return IMAGE_ERROR_RESPONSE_STATUS;
    if (r->head_bytes == 0 || r->stream_bytes < r->head_bytes)
        return IMAGE_ERROR_RESPONSE_HEAD;
    enum image_error error = stream_error(image, r, short_before);
    return error == IMAGE_GOOD ? patches_error(image, r) : error;
}

static int check_responses(const struct image *image, uint32_t *short_before)
{
    enum image_error error = IMAGE_GOOD;
    uint32_t i = 0;
    count_short_frames(image, short_before);
    for (; i < image->header->response_count && error == IMAGE_GOOD; i++)
        error = response_error(image, &image->responses[i], short_before);
    return result_of(error, i - 1);
}

static bool string_fits(const struct ssi_header *h, uint32_t offset, uint32_t bytes)
{
    return rows_fit(offset, bytes, h->string_bytes);
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
    return index < image->header->response_count && !is_patched(image, index, SSI_PATCH_ETAG) &&
           !is_patched(image, index, SSI_PATCH_LAST_MODIFIED);
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
static enum image_error ranges_error(const struct image *image, const struct ssi_variant *v)
{
    const struct ssi_header *h = image->header;
    const struct ssi_response *get = &image->responses[v->get_response];
    if (v->partial_response == SSI_NONE) {
        if (v->part_response != SSI_NONE)
            return IMAGE_ERROR_VARIANT_NO_PARTIAL;
        return places_fit(v, get) ? IMAGE_GOOD : IMAGE_ERROR_VARIANT_PLACES;
    }
    if (get->stream_bytes - get->head_bytes != v->content_bytes)
        return IMAGE_ERROR_VARIANT_BODY;
    if (v->part_response == SSI_NONE)
        return IMAGE_GOOD;
    if (h->multipart_type_response == SSI_NONE || h->multipart_end_response == SSI_NONE)
        return IMAGE_ERROR_VARIANT_MULTIPART;
    if (v->swap_offset == 0 ||
        (uint64_t)v->swap_offset + v->swap_bytes >= image->responses[v->partial_response].head_bytes)
        return IMAGE_ERROR_VARIANT_SWAP;
    return IMAGE_GOOD;
}

static enum image_error variant_error(const struct image *image, const struct ssi_variant *v)
{
    if (!plain_fits(image, v->get_response))
        return IMAGE_ERROR_VARIANT_GET;
    if (!shared_fits(image, v->not_modified_response, v))
        return IMAGE_ERROR_VARIANT_NOT_MODIFIED;
    if (!shared_fits(image, v->partial_response, v))
        return IMAGE_ERROR_VARIANT_PARTIAL;
    if (!plain_or_none_fits(image, v->part_response))
        return IMAGE_ERROR_VARIANT_PART;
    if (v->encoding >= SSI_ENCODING_COUNT)
        return IMAGE_ERROR_VARIANT_ENCODING;
    if (!string_fits(image->header, v->etag_offset, v->etag_bytes))
        return IMAGE_ERROR_VARIANT_ETAG;
    return ranges_error(image, v);
}

static int check_variants(const struct image *image)
{
    const struct ssi_header *h = image->header;
    if (h->variant_count > SSI_VARIANTS_MAX)
        return fail(IMAGE_ERROR_VARIANT_COUNT, h->variant_count);
    if (!plain_or_none_fits(image, h->multipart_type_response))
        return fail(IMAGE_ERROR_MULTIPART_TYPE, h->multipart_type_response);
    if (!plain_or_none_fits(image, h->multipart_end_response))
        return fail(IMAGE_ERROR_MULTIPART_END, h->multipart_end_response);
    enum image_error error = IMAGE_GOOD;
    uint32_t i = 0;
    for (; i < h->variant_count && error == IMAGE_GOOD; i++)
        error = variant_error(image, &image->variants[i]);
    return result_of(error, i - 1);
}

static int check_errors(const struct image *image)
{
    for (uint32_t i = 0; i < image->header->error_count; i++)
        if (!plain_fits(image, image->errors[i].get_response))
            return fail(IMAGE_ERROR_ERROR_RESPONSE, i);
    return 0;
}

/* before: the host before it, or NULL. */
static enum image_error host_error(const struct image *image, const struct ssi_host *host,
                                   const struct ssi_host *before)
{
    if (!string_fits(image->header, host->name_offset, host->name_bytes))
        return IMAGE_ERROR_HOST_NAME;
    if (host->name_bytes > SSI_HOST_BYTES_MAX)
        return IMAGE_ERROR_HOST_BYTES;
    if (host->site >= image->header->site_count)
        return IMAGE_ERROR_HOST_SITE;
    if (before != NULL && image_name_compare(image->strings + before->name_offset, before->name_bytes,
                                             image->strings + host->name_offset, host->name_bytes) >= 0)
        return IMAGE_ERROR_HOST_ORDER;
    return IMAGE_GOOD;
}

static int check_hosts(const struct image *image)
{
    enum image_error error = IMAGE_GOOD;
    uint32_t i = 0;
    for (; i < image->header->host_count && error == IMAGE_GOOD; i++)
        error = host_error(image, &image->hosts[i], i > 0 ? &image->hosts[i - 1] : NULL);
    return result_of(error, i - 1);
}

static int check_sites(const struct image *image)
{
    const struct ssi_header *h = image->header;
    if (h->site_count == 0 || h->site_count > SSI_SITES_MAX)
        return fail(IMAGE_ERROR_SITE_COUNT, h->site_count);
    for (uint32_t i = 0; i < h->site_count; i++) {
        const struct ssi_site *site = &image->sites[i];
        if (!rows_fit(site->first_error, site->error_count, h->error_count))
            return fail(IMAGE_ERROR_SITE_ERRORS, i);
        if (site->prefix_bytes_max > SSI_PREFIX_BYTES_MAX)
            return fail(IMAGE_ERROR_SITE_PREFIX, i);
    }
    return 0;
}

static enum image_error route_error(const struct image *image, const struct ssi_route *r)
{
    const struct ssi_header *h = image->header;
    if (!rows_fit(r->first_variant, r->variant_count, h->variant_count))
        return IMAGE_ERROR_ROUTE_VARIANTS;
    if (!string_fits(h, r->path_offset, r->path_bytes))
        return IMAGE_ERROR_ROUTE_PATH;
    if (r->path_bytes > SSI_PATH_BYTES_MAX)
        return IMAGE_ERROR_ROUTE_PATH_BYTES;
    if (!plain_or_none_fits(image, r->options_response))
        return IMAGE_ERROR_ROUTE_OPTIONS;
    if (r->site >= h->site_count)
        return IMAGE_ERROR_ROUTE_SITE;
    if ((r->flags & ~(SSI_ROUTE_PREFIX | SSI_ROUTE_ALIAS)) != 0)
        return IMAGE_ERROR_ROUTE_FLAGS;
    if ((r->flags & SSI_ROUTE_PREFIX) != 0 && r->path_bytes > image->sites[r->site].prefix_bytes_max)
        return IMAGE_ERROR_ROUTE_PREFIX;
    return IMAGE_GOOD;
}

/* Of a route that fits, at its place in the table. */
static bool route_is_in_place(const struct image *image, const struct ssi_route *r)
{
    const struct ssi_header *h = image->header;
    uint64_t hash = image_route_hash(image->strings + r->path_offset, r->path_bytes, r->site,
                                     r->flags & SSI_ROUTE_PREFIX, h->route_hash_seed);
    uint32_t entry = image_route_entry(hash, *image_route_bucket(image, hash), h->route_table_len);
    return hash == r->hash && r == &image->routes[entry];
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
        enum image_error error = route_error(image, r);
        if (error != IMAGE_GOOD)
            return fail(error, i);
        if (!route_is_in_place(image, r))
            return fail(IMAGE_ERROR_ROUTE_HASH, i);
    }
    return used == h->route_count ? 0 : fail(IMAGE_ERROR_ROUTE_COUNT, used);
}

static int check_alignment(const struct image_sections *s)
{
    const void *all[] = {s->header,   s->strings,   s->hosts,   s->sites,  s->buckets, s->routes,
                         s->variants, s->responses, s->patches, s->errors, s->frames,  s->slots};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        if (((uintptr_t)all[i] & 7) != 0)
            return fail(IMAGE_ERROR_ALIGNMENT, i);
    return 0;
}

/* What needs the header alone. */
static int check_sections(const struct image_sections *s)
{
    int error = check_alignment(s);
    if (error == 0)
        error = check_version(s);
    if (error == 0)
        error = check_header(s->header);
    return error == 0 ? check_sizes(s->header, s) : error;
}

int image_open(struct image *image, const struct image_sections *s, uint32_t *work)
{
    static int (*const tables[])(const struct image *) = {check_variants, check_errors, check_hosts, check_sites,
                                                          check_routes};
    int error = check_sections(s);
    if (error != 0)
        return error;
    *image = (struct image){s->header,   s->strings,   s->hosts,   s->sites,  s->buckets, s->routes,
                            s->variants, s->responses, s->patches, s->errors, s->frames,  s->slots};
    error = check_frames(image);
    if (error == 0)
        error = check_responses(image, work);
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]) && error == 0; i++)
        error = tables[i](image);
    return error;
}
