#define _GNU_SOURCE
#include "response.h"

#include <string.h>
#include <strings.h>

#define STATUS_LINE_BYTES 12 /* "HTTP/1.1 200" */

void response_begin(struct response *response, const uint8_t *wanted, uint64_t wanted_bytes)
{
    *response = (struct response){.wanted = wanted, .wanted_bytes = wanted_bytes};
}

/* The value of a field, if the line has that name, which ends with the colon. */
static const char *field(const char *line, uint32_t bytes, const char *name)
{
    size_t name_bytes = strlen(name);
    if (bytes < name_bytes || strncasecmp(line, name, name_bytes) != 0)
        return NULL;
    const char *value = line + name_bytes, *end = line + bytes;
    while (value < end && *value == ' ')
        value++;
    return value;
}

static bool take_length(struct response *response, const char *value, const char *end)
{
    uint64_t length_bytes = 0;
    if (value == end || response->has_length)
        return false;
    for (; value < end; value++) {
        if (*value < '0' || *value > '9' || length_bytes > UINT64_MAX / 100)
            return false;
        length_bytes = length_bytes * 10 + (uint64_t)(*value - '0');
    }
    response->body_bytes = length_bytes;
    response->has_length = true;
    return true;
}

static bool take_status(struct response *response, const char *line, uint32_t bytes)
{
    if (bytes < STATUS_LINE_BYTES || memcmp(line, "HTTP/1.1 ", 9) != 0)
        return false;
    response->status = (uint16_t)(100 * (line[9] - '0') + 10 * (line[10] - '0') + line[11] - '0');
    response->phase = RESPONSE_FIELDS;
    return response->status >= 200 && response->status < 600;
}

static bool take_field(struct response *response, const char *line, uint32_t bytes)
{
    const char *value, *end = line + bytes;
    switch (line[0]) {
    case 'C':
    case 'c':
        if ((value = field(line, bytes, "Content-Length:")) != NULL)
            return take_length(response, value, end);
        if ((value = field(line, bytes, "Connection:")) != NULL && end - value == 5 &&
            strncasecmp(value, "close", 5) == 0)
            response->closes = true;
        return true;
    case 'T':
    case 't': /* a chunked body has no length, and we read none */
        return field(line, bytes, "Transfer-Encoding:") == NULL;
    default:
        return true;
    }
}

/* The head has ended. */
static bool begin_body(struct response *response)
{
    bool has_body = response->status != 204 && response->status != 304;
    if (has_body && !response->has_length)
        return false;
    if (!has_body)
        response->body_bytes = 0;
    if (response->wanted != NULL && response->body_bytes != response->wanted_bytes) {
        response->differs = true;
        response->wanted = NULL;
    }
    response->phase = RESPONSE_BODY;
    return true;
}

/* A line without its end, which is LF or CR LF. */
static bool take_line(struct response *response, const char *line, uint32_t bytes)
{
    if (bytes > 0 && line[bytes - 1] == '\r')
        bytes--;
    if (response->phase == RESPONSE_STATUS_LINE)
        return take_status(response, line, bytes);
    return bytes == 0 ? begin_body(response) : take_field(response, line, bytes);
}

/* A part of a line whose end has not come, or what is missing of one that began before. */
static void keep(struct response *response, const uint8_t *data, uint32_t bytes)
{
    uint32_t room = RESPONSE_LINE_BYTES - response->line_bytes, part = bytes < room ? bytes : room;
    memcpy(response->line + response->line_bytes, data, part);
    response->line_bytes = (uint8_t)(response->line_bytes + part);
}

/* Takes lines until the head or the data ends. Returns the bytes taken, or -1. */
static int64_t take_head(struct response *response, const uint8_t *data, uint32_t bytes)
{
    uint32_t at = 0;
    while (at < bytes && response->phase != RESPONSE_BODY) {
        const uint8_t *line = data + at, *end = memchr(line, '\n', bytes - at);
        uint32_t line_bytes = end != NULL ? (uint32_t)(end - line) : bytes - at;
        at += line_bytes + (end != NULL);
        if (end == NULL || response->line_bytes > 0)
            keep(response, line, line_bytes);
        if (end == NULL)
            break;
        bool whole = response->line_bytes == 0;
        bool good = whole ? take_line(response, (const char *)line, line_bytes)
                          : take_line(response, response->line, response->line_bytes);
        if (!good)
            return -1;
        response->line_bytes = 0;
    }
    return at;
}

enum response_progress response_take(struct response *response, const uint8_t *data, uint32_t bytes)
{
    if (response->phase != RESPONSE_BODY) {
        int64_t taken = take_head(response, data, bytes);
        if (taken < 0)
            return RESPONSE_BAD;
        data += taken;
        bytes -= (uint32_t)taken;
    }
    if (response->phase != RESPONSE_BODY)
        return RESPONSE_MORE;
    if (bytes > response->body_bytes - response->body_at)
        return RESPONSE_BAD;
    if (response->wanted != NULL && memcmp(response->wanted + response->body_at, data, bytes) != 0) {
        response->differs = true;
        response->wanted = NULL;
    }
    response->body_at += bytes;
    return response->body_at == response->body_bytes ? RESPONSE_DONE : RESPONSE_MORE;
}
