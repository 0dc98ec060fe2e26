#include "access_head.h"

#include <string.h>

#define LINE_BYTES_KEPT (ACCESS_HEAD_BYTES / 2) /* of the first, where a head is picked from */

/* The next line, without its end; *at goes behind it. False: there is none, or it is empty. */
static bool next_line(const uint8_t **at, const uint8_t *end, struct http_text *line)
{
    const uint8_t *from = *at;
    if (from == end)
        return false;
    const uint8_t *stop = memchr(from, '\n', (size_t)(end - from));
    *at = stop != NULL ? stop + 1 : end;
    stop = stop != NULL ? stop : end;
    if (stop > from && stop[-1] == '\r')
        stop--;
    *line = (struct http_text){from, (uint32_t)(stop - from)};
    return stop > from;
}

/* The same but for the case of its letters. name is in lower case. */
static bool is_named(const struct http_text *line, const char *name)
{
    size_t length = strlen(name);
    if (line->len_bytes <= length || line->data[length] != ':')
        return false;
    for (size_t i = 0; i < length; i++)
        if ((line->data[i] | 0x20) != name[i])
            return false;
    return true;
}

static struct http_text value_of(const struct http_text *line)
{
    const uint8_t *from = memchr(line->data, ':', line->len_bytes), *end = line->data + line->len_bytes;
    for (from++; from < end && (*from == ' ' || *from == '\t'); from++) {
    }
    while (end > from && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    return (struct http_text){from, (uint32_t)(end - from)};
}

/* Where the value of a field that is logged goes, by the first of its lines; NULL: it is not logged. */
static struct http_text *place_of(struct access_head *head, const struct http_text *line)
{
    if (is_named(line, "host"))
        return &head->host;
    if (is_named(line, "referer"))
        return &head->referer;
    return is_named(line, "user-agent") ? &head->user_agent : NULL;
}

static uint32_t keep_line(uint8_t *kept, uint32_t kept_bytes, const struct http_text *line, uint32_t bytes_max)
{
    uint32_t room = ACCESS_HEAD_BYTES - 1 - kept_bytes;
    uint32_t bytes = line->len_bytes < bytes_max ? line->len_bytes : bytes_max;
    bytes = bytes < room ? bytes : room;
    memcpy(kept + kept_bytes, line->data, bytes);
    kept[kept_bytes + bytes] = '\n';
    return kept_bytes + bytes + 1;
}

/* Never inline: few heads are that long. */
__attribute__((noinline, cold)) static uint32_t keep_picked(uint8_t *kept, const uint8_t *head, uint32_t head_bytes)
{
    const uint8_t *at = head, *end = head + head_bytes;
    struct access_head ignored;
    struct http_text line;
    uint32_t bytes = 0;
    if (next_line(&at, end, &line))
        bytes = keep_line(kept, 0, &line, LINE_BYTES_KEPT);
    while (bytes < ACCESS_HEAD_BYTES - 1 && next_line(&at, end, &line))
        if (place_of(&ignored, &line) != NULL)
            bytes = keep_line(kept, bytes, &line, UINT32_MAX);
    return bytes;
}

uint32_t access_head_keep(uint8_t *kept, const uint8_t *head, uint32_t head_bytes)
{
    if (head_bytes > ACCESS_HEAD_BYTES)
        return keep_picked(kept, head, head_bytes);
    if (head_bytes > 0)
        memcpy(kept, head, head_bytes);
    return head_bytes;
}

/* Method, target and protocol, as far as there are any. */
static void read_first_line(struct access_head *head)
{
    const uint8_t *at = head->line.data, *end = at + head->line.len_bytes;
    const uint8_t *blank = memchr(at, ' ', (size_t)(end - at));
    head->method = (struct http_text){at, (uint32_t)((blank != NULL ? blank : end) - at)};
    if (blank == NULL)
        return;
    at = blank + 1;
    blank = memchr(at, ' ', (size_t)(end - at));
    head->target = (struct http_text){at, (uint32_t)((blank != NULL ? blank : end) - at)};
    if (blank != NULL)
        head->protocol = (struct http_text){blank + 1, (uint32_t)(end - blank - 1)};
}

void access_head_read(const uint8_t *kept, uint32_t kept_bytes, struct access_head *head)
{
    const uint8_t *at = kept, *end = kept + kept_bytes;
    struct http_text line;
    *head = (struct access_head){0};
    if (!next_line(&at, end, &head->line)) {
        head->line = (struct http_text){0};
        return;
    }
    read_first_line(head);
    while (next_line(&at, end, &line)) {
        struct http_text *place = place_of(head, &line);
        if (place != NULL && place->data == NULL)
            *place = value_of(&line);
    }
}
