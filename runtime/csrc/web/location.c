#include "location.h"

#include <string.h>

#define ESCAPE_BYTES 3 /* "%2F", RFC 3986 section 2.1 */

uint8_t *location_take(struct location_text *text, uint32_t bytes)
{
    if (bytes > text->room_bytes - text->len_bytes) {
        text->full = true;
        return NULL;
    }
    text->len_bytes += bytes;
    return text->data + text->len_bytes - bytes;
}

static void put(struct location_text *text, const uint8_t *data, uint32_t len_bytes)
{
    uint8_t *at = location_take(text, len_bytes);
    if (at != NULL)
        memcpy(at, data, len_bytes);
}

static void put_escape(struct location_text *text, uint8_t byte)
{
    static const char digits[] = "0123456789ABCDEF";
    put(text, (const uint8_t[]){'%', (uint8_t)digits[byte >> 4], (uint8_t)digits[byte & 15]}, ESCAPE_BYTES);
}

/* Is it pchar or a slash, RFC 3986 section 3.3? A backslash is none: to browsers it is a slash. */
static bool stands_for_itself(uint8_t byte)
{
    static const char marks[] = "-._~!$&'()*+,;=:@/";
    bool letter = (byte | 32) >= 'a' && (byte | 32) <= 'z';
    bool digit = byte >= '0' && byte <= '9';
    return letter || digit || memchr(marks, byte, sizeof(marks) - 1) != NULL;
}

/* How many bytes a path of well-formed escapes is decoded, up to a query. */
static uint32_t decoded_bytes(struct http_text path)
{
    uint32_t count = 0;
    for (uint32_t at = 0; at < path.len_bytes && path.data[at] != '?'; count++)
        at += path.data[at] == '%' ? ESCAPE_BYTES : 1;
    return count;
}

void location_put_path(struct location_text *text, const struct http_request *request, uint32_t skip_bytes)
{
    struct http_text path = request->path;
    /* If nothing but escapes has been resolved, each byte of the path has its own as it came. */
    bool alike = path.data == request->decoded && decoded_bytes(request->undecoded) == path.len_bytes;
    const uint8_t *came = alike ? request->undecoded.data : path.data;
    while (skip_bytes < path.len_bytes && path.data[skip_bytes] == '/')
        skip_bytes++;
    for (uint32_t i = 0; i < path.len_bytes && !text->full; i++) {
        bool escaped = alike && *came == '%';
        if (i >= skip_bytes && escaped)
            put(text, came, ESCAPE_BYTES);
        else if (i >= skip_bytes && stands_for_itself(path.data[i]))
            put(text, path.data + i, 1);
        else if (i >= skip_bytes)
            put_escape(text, path.data[i]);
        came += escaped ? ESCAPE_BYTES : 1;
    }
}

void location_put_query(struct location_text *text, struct http_text query)
{
    for (uint32_t i = 0; i < query.len_bytes && !text->full; i++) {
        bool visible = query.data[i] > ' ' && query.data[i] < 0x7f;
        if (visible)
            put(text, query.data + i, 1);
        else
            put_escape(text, query.data[i]);
    }
}
