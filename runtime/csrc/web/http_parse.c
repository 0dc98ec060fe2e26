#include "http_parse.h"

#include <string.h>

#include "http_host.h"
#include "image/image_format.h"
#include "wire/wire.h"

_Static_assert(HTTP_RANGES_MAX == SSI_RANGES_MAX, "an answer to so many has a length that its field has room for");

/* What a byte may be a part of. */
#define CLASS_DIGIT 1
#define CLASS_TOKEN 2    /* tchar, RFC 9110 section 5.6.2 */
#define CLASS_REG_NAME 4 /* RFC 3986 section 3.2.2, but for the percent sign of its escapes */
#define CLASS_PATH 8     /* stands for itself in a path, wherever it is: no escape, query, fragment, dot or slash */
#define CLASS_ALL (CLASS_TOKEN | CLASS_REG_NAME | CLASS_PATH)

static const uint8_t classes[256] = {
    ['!'] = CLASS_ALL,
    ['"'] = CLASS_PATH,
    ['#'] = CLASS_TOKEN,
    ['$'] = CLASS_ALL,
    ['%'] = CLASS_TOKEN,
    ['&' ... '\''] = CLASS_ALL,
    ['(' ... ')'] = CLASS_REG_NAME | CLASS_PATH,
    ['*' ... '+'] = CLASS_ALL,
    [','] = CLASS_REG_NAME | CLASS_PATH,
    ['-'] = CLASS_ALL,
    ['.'] = CLASS_TOKEN | CLASS_REG_NAME,
    ['0' ... '9'] = CLASS_DIGIT | CLASS_ALL,
    [':'] = CLASS_PATH,
    [';'] = CLASS_REG_NAME | CLASS_PATH,
    ['<'] = CLASS_PATH,
    ['='] = CLASS_REG_NAME | CLASS_PATH,
    ['>'] = CLASS_PATH,
    ['@'] = CLASS_PATH,
    ['A' ... 'Z'] = CLASS_ALL,
    ['[' ... ']'] = CLASS_PATH,
    ['^'] = CLASS_TOKEN | CLASS_PATH,
    ['_'] = CLASS_ALL,
    ['`'] = CLASS_TOKEN | CLASS_PATH,
    ['a' ... 'z'] = CLASS_ALL,
    ['{'] = CLASS_PATH,
    ['|'] = CLASS_TOKEN | CLASS_PATH,
    ['}'] = CLASS_PATH,
    ['~'] = CLASS_ALL,
    [0x80 ... 0xff] = CLASS_PATH,
};

static bool is_digit(uint8_t c)
{
    return (classes[c] & CLASS_DIGIT) != 0;
}

/* How many bytes from the front on are of a class, of a text in a line: the line's CR is of none, so the end of the text
 * needs no look at each byte. */
static uint32_t count_of(struct http_text text, uint8_t wanted)
{
    uint32_t at = 0;
#pragma GCC unroll 4
    while ((classes[text.data[at]] & wanted) != 0)
        at++;
    return at < text.len_bytes ? at : text.len_bytes;
}

static uint8_t lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? c | 32 : c;
}

/* Case-insensitive; name in lower case. */
static bool text_is(struct http_text text, const char *name)
{
    if (text.len_bytes != strlen(name))
        return false;
    for (uint32_t i = 0; i < text.len_bytes; i++)
        if (lower(text.data[i]) != (uint8_t)name[i])
            return false;
    return true;
}

static bool is_space(uint8_t c)
{
    return c == ' ' || c == '\t';
}

static struct http_text trim(struct http_text text)
{
    while (text.len_bytes > 0 && is_space(text.data[0])) {
        text.data++;
        text.len_bytes--;
    }
    while (text.len_bytes > 0 && is_space(text.data[text.len_bytes - 1]))
        text.len_bytes--;
    return text;
}

/* Takes the next element of a comma-separated list off *list, RFC 9110 section 5.6.1; commas inside quotes are not
 * separators. False: the list is at its end. */
static bool next_element(struct http_text *list, struct http_text *element)
{
    while (list->len_bytes > 0) {
        uint32_t at = 0;
        bool quoted = false;
        while (at < list->len_bytes && (quoted || list->data[at] != ','))
            quoted ^= list->data[at++] == '"';
        *element = trim((struct http_text){list->data, at});
        uint32_t taken = at < list->len_bytes ? at + 1 : at;
        list->data += taken;
        list->len_bytes -= taken;
        if (element->len_bytes > 0)
            return true;
    }
    return false;
}

#define EACH_BYTE 0x0101010101010101ull

/* How many of eight bytes from the front on are printable, neither controls nor DEL. A borrow can only flag bytes behind
 * the first that is flagged rightly. */
static uint32_t plain_count(const uint8_t *data)
{
    uint64_t bytes = load64(data);
    uint64_t del = bytes ^ 0x7f * EACH_BYTE;
    uint64_t flags = ((bytes - ' ' * EACH_BYTE) & ~bytes) | ((del - EACH_BYTE) & ~del);
    flags &= 0x80 * EACH_BYTE;
    return flags == 0 ? 8 : (uint32_t)__builtin_ctzll(flags) / 8;
}

/* A line up to CRLF. 1: found, 0: more bytes are needed, -1: a byte that no line may hold (RFC 9112 section 2.2: a bare
 * CR, a bare LF, NUL, a control). Always inline: every request has it. */
__attribute__((always_inline)) static inline int read_line(const uint8_t *data, uint32_t len_bytes,
                                                           struct http_text *line)
{
    uint32_t i = 0;
    while (i < len_bytes) {
        uint32_t plain = len_bytes - i >= sizeof(uint64_t) ? plain_count(data + i) : 0;
        i += plain;
        if (plain == sizeof(uint64_t))
            continue;
        uint8_t c = data[i];
        if (c == '\r') {
            if (i + 1 == len_bytes)
                return 0;
            *line = (struct http_text){data, i};
            return data[i + 1] == '\n' ? 1 : -1;
        }
        if ((c < 32 && c != '\t') || c == 127)
            return -1;
        i++;
    }
    return 0;
}

/* What an escape stands for (RFC 3986 section 2.1) that a text begins with; -1: it is none. */
static int escaped(const uint8_t *text, uint32_t len_bytes)
{
    if (len_bytes < 3)
        return -1;
    int high = http_hex_digit(text[1]), low = http_hex_digit(text[2]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

/* A path that stands for itself, as most do, is used where it lies: nothing to decode, no dot behind a slash, and no slash
 * where they are merged, up to the end or a query. Returns its bytes, or 0: it has to be looked into. */
static uint32_t plain_path_bytes(struct http_text target, bool merge_slashes)
{
    uint32_t at = 1; /* behind the first slash */
    for (;;) {
        at += count_of((struct http_text){target.data + at, target.len_bytes - at}, CLASS_PATH);
        if (at == target.len_bytes || target.data[at] == '?')
            return at <= HTTP_PATH_BYTES_MAX ? at : 0;
        bool behind_slash = target.data[at - 1] == '/';
        if (target.data[at] == '/' ? behind_slash && merge_slashes : target.data[at] != '.' || behind_slash)
            return 0;
        at++;
    }
}

/* Percent-decoding up to the query, and of slashes in a row the first. */
static int decode_path(struct http_text target, bool merge_slashes, struct http_request *request)
{
    uint32_t len = 0;
    for (uint32_t i = 0; i < target.len_bytes && target.data[i] != '?'; i++) {
        uint8_t c = target.data[i];
        if (c == '%') {
            int byte = escaped(target.data + i, target.len_bytes - i);
            if (byte <= 0) /* no file's name has NUL */
                return -400;
            c = (uint8_t)byte;
            i += 2;
        }
        if (merge_slashes && c == '/' && len > 0 && request->decoded[len - 1] == '/')
            continue;
        if (len == sizeof(request->decoded))
            return -414;
        request->decoded[len++] = c;
    }
    request->path = (struct http_text){request->decoded, len};
    return 0;
}

/* Removes "." and ".." segments (RFC 3986 section 5.2.4) from an absolute path, in place; after decoding, so that an
 * encoded dot is one too. Above the root is refused. */
static int remove_dot_segments(struct http_request *request)
{
    uint8_t *path = request->decoded;
    uint32_t out = 0, len = request->path.len_bytes;
    for (uint32_t slash = 0; slash < len;) {
        uint32_t end = slash + 1;
        while (end < len && path[end] != '/')
            end++;
        uint32_t bytes = end - slash - 1;
        bool dot = bytes == 1 && path[slash + 1] == '.';
        bool dots = bytes == 2 && path[slash + 1] == '.' && path[slash + 2] == '.';
        if (dots) {
            if (out == 0)
                return -400;
            while (path[--out] != '/')
                continue;
        }
        if (!dot && !dots) {
            memmove(path + out, path + slash, end - slash);
            out += end - slash;
        } else if (end == len) {
            path[out++] = '/';
        }
        slash = end;
    }
    request->path.len_bytes = out;
    return 0;
}

/* Known, but not what they are for: https://www.iana.org/assignments/http-methods. */
static const char *const registered_methods[] = {
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "CONNECT",
    "COPY",
    "DELETE",
    "LABEL",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "ORDERPATCH",
    "PATCH",
    "POST",
    "PROPFIND",
    "PROPPATCH",
    "PUT",
    "REBIND",
    "REPORT",
    "SEARCH",
    "TRACE",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
};

__attribute__((noinline)) static bool is_registered(struct http_text method)
{
    for (size_t i = 0; i < sizeof(registered_methods) / sizeof(registered_methods[0]); i++) {
        const char *name = registered_methods[i];
        if (method.len_bytes == strlen(name) && memcmp(method.data, name, method.len_bytes) == 0)
            return true;
    }
    return false;
}

static enum http_method method_of(struct http_text method)
{
    if (method.len_bytes == 3 && memcmp(method.data, "GET", 3) == 0)
        return HTTP_GET;
    if (method.len_bytes == 4 && memcmp(method.data, "HEAD", 4) == 0)
        return HTTP_HEAD;
    if (method.len_bytes == 7 && memcmp(method.data, "OPTIONS", 7) == 0)
        return HTTP_OPTIONS;
    return is_registered(method) ? HTTP_OTHER : HTTP_UNKNOWN;
}

/* A name with escapes, up to a port or the end. Returns its bytes. */
static uint32_t escaped_name_bytes(struct http_text text)
{
    uint32_t at = count_of(text, CLASS_REG_NAME);
    while (at < text.len_bytes && text.data[at] == '%' && escaped(text.data + at, text.len_bytes - at) >= 0) {
        at += 3;
        at += count_of((struct http_text){text.data + at, text.len_bytes - at}, CLASS_REG_NAME);
    }
    return at;
}

/* What is more than a name: an address in brackets, escapes, a port. Never inline, like all that few requests have: what all
 * have would be the slower for it. */
__attribute__((noinline)) static int long_host_field(struct http_text value, struct http_text *host)
{
    bool bracket = value.data[0] == '[';
    uint32_t bytes = bracket ? http_ip_literal_bytes(value.data, value.len_bytes) : escaped_name_bytes(value);
    uint32_t at = bytes;
    if (at < value.len_bytes && value.data[at] == ':')
        do
            at++;
        while (at < value.len_bytes && is_digit(value.data[at]));
    *host = (struct http_text){value.data, bytes};
    return at == value.len_bytes && (bytes > 0 || !bracket) ? 0 : -400;
}

/* uri-host [ ":" port ], RFC 9110 section 7.2, which may be empty. Keeps the host: the port says nothing that the
 * connection does not. */
static int host_field(struct http_text value, struct http_text *host)
{
    *host = value;
    return count_of(value, CLASS_REG_NAME) == value.len_bytes ? 0 : long_host_field(value, host);
}

/* "http://" or "https://" at the front of a target. Returns its bytes, or 0. */
static uint32_t scheme_bytes(struct http_text target, bool *secure)
{
    static const char *const schemes[] = {"http://", "https://"};
    for (uint32_t i = 0; i < 2; i++) {
        uint32_t bytes = (uint32_t)strlen(schemes[i]);
        *secure = i > 0;
        if (target.len_bytes > bytes && text_is((struct http_text){target.data, bytes}, schemes[i]))
            return bytes;
    }
    return 0;
}

/* Takes the scheme and authority off an absolute-form target, RFC 9112 section 3.2.2. What is asked for as https was to come
 * over a secured connection, and this is none: such a request must be refused (RFC 9110 section 7.4). */
__attribute__((noinline)) static int origin_form(struct http_text *target, struct http_request *request)
{
    bool secure;
    request->asterisk = target->len_bytes == 1 && target->data[0] == '*';
    if (request->asterisk)
        return request->method == HTTP_OPTIONS ? 0 : -400; /* RFC 9112 section 3.2.4 */
    if (request->method == HTTP_OTHER && memchr(target->data, '/', target->len_bytes) == NULL)
        return 0; /* authority-form: CONNECT, refused by its method */
    uint32_t start = scheme_bytes(*target, &secure), at = start;
    if (start == 0)
        return -400;
    while (at < target->len_bytes && target->data[at] != '/' && target->data[at] != '?')
        at++;
    struct http_text authority = {target->data + start, at - start};
    target->data += at;
    target->len_bytes -= at;
    int status = host_field(authority, &request->host);
    if (status != 0 || request->host.len_bytes == 0)
        return -400;
    return secure ? -421 : 0;
}

/* The query, from at on or behind that. No target has a fragment, RFC 9112 section 3.2; a path is looked through anyway. */
static int take_query(struct http_text target, uint32_t at, struct http_request *request)
{
    const uint8_t *rest = target.data + at;
    if (at == target.len_bytes)
        return 0;
    if (memchr(rest, '#', target.len_bytes - at) != NULL)
        return -400;
    const uint8_t *mark = memchr(rest, '?', target.len_bytes - at);
    if (mark != NULL)
        request->query = (struct http_text){mark, target.len_bytes - (uint32_t)(mark - target.data)};
    return 0;
}

static int parse_target(struct http_text target, bool merge_slashes, struct http_request *request)
{
    if (memchr(target.data, '\t', target.len_bytes) != NULL) /* a line holds no other control */
        return -400;
    int status = target.data[0] == '/' ? 0 : origin_form(&target, request);
    if (status != 0)
        return status;
    bool rooted = target.len_bytes > 0 && target.data[0] == '/';
    if (!rooted) { /* "http://host", "http://host?query", "*" */
        request->decoded[0] = '/';
        request->path = (struct http_text){request->decoded, 1};
        request->undecoded = request->path;
        return take_query(target, 0, request);
    }
    request->path = (struct http_text){target.data, plain_path_bytes(target, merge_slashes)};
    if (request->path.len_bytes > 0)
        return take_query(target, request->path.len_bytes, request);
    request->undecoded = target;
    status = take_query(target, 0, request);
    if (status == 0)
        status = decode_path(target, merge_slashes, request);
    return status != 0 ? status : remove_dot_segments(request);
}

static int parse_version(struct http_text version, struct http_request *request)
{
    static const char prefix[] = "HTTP/";
    bool well_formed = version.len_bytes == 8 && memcmp(version.data, prefix, 5) == 0 && version.data[6] == '.' &&
                       is_digit(version.data[5]) && is_digit(version.data[7]);
    if (!well_formed)
        return -400;
    if (version.data[5] != '1')
        return -505;
    request->minor_version = version.data[7] == '0' ? 0 : 1;
    request->close = request->minor_version == 0;
    return 0;
}

static int parse_request_line(struct http_text line, bool merge_slashes, struct http_request *request)
{
    struct http_text method = {line.data, count_of(line, CLASS_TOKEN)};
    if (method.len_bytes == 0 || method.len_bytes == line.len_bytes || line.data[method.len_bytes] != ' ')
        return -400;
    const uint8_t *rest = line.data + method.len_bytes + 1;
    uint32_t rest_bytes = line.len_bytes - method.len_bytes - 1;
    const uint8_t *second = memchr(rest, ' ', rest_bytes);
    if (second == NULL || second == rest)
        return -400;
    struct http_text target = {rest, (uint32_t)(second - rest)};
    struct http_text version = {second + 1, rest_bytes - target.len_bytes - 1};
    request->method = method_of(method);
    int status = parse_version(version, request);
    return status != 0 ? status : parse_target(target, merge_slashes, request);
}

static int connection_field(struct http_text value, struct http_request *request)
{
    struct http_text element;
    bool close = false, keep_alive = false;
    while (next_element(&value, &element)) {
        close = close || text_is(element, "close");
        keep_alive = keep_alive || text_is(element, "keep-alive");
    }
    if (close)
        request->close = true;
    else if (keep_alive && request->minor_version == 0)
        request->close = false;
    return 0;
}

/* RFC 9110 section 10.1.1: of HTTP/1.0 it is not meant. */
static void expect_field(struct http_text value, struct http_request *request)
{
    struct http_text element;
    request->expect_continue = request->minor_version == 1;
    while (request->minor_version == 1 && next_element(&value, &element))
        request->expect_unknown = request->expect_unknown || !text_is(element, "100-continue");
}

#define CONTENT_LENGTH_MAX 999999999999999999

static int content_length_field(struct http_text value, struct http_request *request, bool again)
{
    uint64_t length = 0;
    if (value.len_bytes == 0 || again)
        return -400;
    for (uint32_t i = 0; i < value.len_bytes; i++) {
        if (!is_digit(value.data[i]) || length > CONTENT_LENGTH_MAX / 10)
            return -400;
        length = length * 10 + (value.data[i] - '0');
    }
    request->content_length = length;
    return 0;
}

/* What has been seen of the fields that may come only once or not together. */
struct seen {
    bool host, content_length, range, transfer_encoding;
    bool other_coding; /* a transfer coding that is not chunked */
};

/* A list, whose last element must be chunked, and no other: where the body ends would be anybody's guess (RFC 9112 sections
 * 6.1 and 6.3). */
static int transfer_encoding_field(struct http_text value, struct http_request *request, struct seen *seen)
{
    struct http_text element;
    seen->transfer_encoding = true;
    while (next_element(&value, &element)) {
        if (request->chunked)
            return -400;
        request->chunked = text_is(element, "chunked");
        seen->other_coding = seen->other_coding || !request->chunked;
    }
    return 0;
}

/* Fields that are kept as they are, by their names in lower case. */
static const struct {
    const char *name;
    size_t offset; /* of its http_text in struct http_request */
} kept_fields[] = {
    {"if-unmodified-since", offsetof(struct http_request, if_unmodified_since)},
    {"if-modified-since", offsetof(struct http_request, if_modified_since)},
    {"if-range", offsetof(struct http_request, if_range)},
};

static int keep_line(struct http_list *list, struct http_text value)
{
    if (list->count == HTTP_LIST_LINES_MAX)
        return -431;
    list->lines[list->count++] = value;
    return 0;
}

static int keep_field(struct http_text name, struct http_text value, struct http_request *request)
{
    if (text_is(name, "accept-encoding"))
        return keep_line(&request->accept_encoding, value);
    if (text_is(name, "if-none-match"))
        return keep_line(&request->if_none_match, value);
    if (text_is(name, "if-match"))
        return keep_line(&request->if_match, value);
    for (size_t i = 0; i < sizeof(kept_fields) / sizeof(kept_fields[0]); i++)
        if (text_is(name, kept_fields[i].name))
            memcpy((uint8_t *)request + kept_fields[i].offset, &value, sizeof(value));
    return 0;
}

/* Of how many bytes the names are that are looked for: most others are told by that. */
#define LENGTH_BIT(name) (UINT64_C(1) << (sizeof(name) - 1))
static const uint64_t known_lengths = LENGTH_BIT("host") | LENGTH_BIT("range") | LENGTH_BIT("expect") |
                                      LENGTH_BIT("if-match") | LENGTH_BIT("if-range") | LENGTH_BIT("connection") |
                                      LENGTH_BIT("if-none-match") | LENGTH_BIT("content-length") |
                                      LENGTH_BIT("accept-encoding") | LENGTH_BIT("transfer-encoding") |
                                      LENGTH_BIT("if-modified-since") | LENGTH_BIT("if-unmodified-since");

static int parse_field(struct http_text name, struct http_text value, struct http_request *request, struct seen *seen)
{
    int status = 0;
    if (name.len_bytes >= 64 || (known_lengths >> name.len_bytes & 1) == 0)
        return 0;
    if (text_is(name, "host")) {
        struct http_text other;
        bool absolute = request->host.data != NULL; /* the target's comes first, RFC 9112 section 3.2.2 */
        status = seen->host ? -400 : host_field(value, absolute ? &other : &request->host);
        seen->host = true;
    } else if (text_is(name, "connection")) {
        status = connection_field(value, request);
    } else if (text_is(name, "content-length")) {
        status = content_length_field(value, request, seen->content_length);
        seen->content_length = true;
    } else if (text_is(name, "transfer-encoding")) {
        status = transfer_encoding_field(value, request, seen);
    } else if (text_is(name, "expect")) {
        expect_field(value, request);
    } else if (text_is(name, "range")) {
        /* It is no list: two of them are malformed, which is ignored. */
        request->range = seen->range ? (struct http_text){NULL, 0} : value;
        seen->range = true;
    } else {
        status = keep_field(name, value, request);
    }
    return status;
}

/* The bytes of a field's name, or 0: the line is no field. Obs-fold and a space before the colon are none, RFC 9112 section
 * 5. */
__attribute__((always_inline)) static inline uint32_t field_name_bytes(struct http_text line)
{
    uint32_t colon = count_of(line, CLASS_TOKEN);
    return colon < line.len_bytes && line.data[colon] == ':' ? colon : 0;
}

static int parse_field_line(struct http_text line, struct http_request *request, struct seen *seen)
{
    uint32_t colon = field_name_bytes(line);
    if (colon == 0)
        return -400;
    struct http_text name = {line.data, colon};
    struct http_text value = trim((struct http_text){line.data + colon + 1, line.len_bytes - colon - 1});
    return parse_field(name, value, request, seen);
}

/* What only the whole head shows, RFC 9112 sections 3.2 and 6.1. */
static int check_head(const struct http_request *request, const struct seen *seen)
{
    if (request->minor_version == 1 && !seen->host)
        return -400;
    if (!seen->transfer_encoding)
        return 0;
    if (!request->chunked || seen->content_length || request->minor_version == 0)
        return -400;
    return seen->other_coding ? -501 : 0;
}

int http_parse(const uint8_t *data, uint32_t len_bytes, uint32_t max_bytes, bool merge_slashes,
               struct http_request *request)
{
    /* All but what is large: the lists' lines and a decoded path. */
    memset(request, 0, offsetof(struct http_request, if_match));
    request->if_match.count = request->if_none_match.count = request->accept_encoding.count = 0;
    struct seen seen = {0};
    struct http_text line;
    bool request_line = true;
    uint32_t at = 0;
    for (;;) {
        int found = read_line(data + at, len_bytes - at, &line);
        if (found < 0)
            return -400;
        if (found == 0 && len_bytes >= max_bytes)
            return request_line ? -414 : -431;
        if (found == 0)
            return HTTP_PARTIAL;
        at += line.len_bytes + 2;
        int status = 0;
        if (line.len_bytes > 0)
            status = request_line ? parse_request_line(line, merge_slashes, request)
                                  : parse_field_line(line, request, &seen);
        else if (!request_line)
            break;
        if (status != 0)
            return status;
        /* Empty lines in front of a request are ignored, RFC 9112 section 2.2. */
        request_line = request_line && line.len_bytes == 0;
    }
    int status = check_head(request, &seen);
    return status != 0 ? status : (int)at;
}

__attribute__((noinline)) bool http_worth_parsing(const uint8_t *data, uint32_t len_bytes, uint32_t max_bytes,
                                                  uint32_t seen_bytes)
{
    /* A CR at the end of what there was is no bare one before the next byte is known. */
    uint32_t at = data[seen_bytes - 1] == '\r' ? seen_bytes - 1 : seen_bytes;
    struct http_text line;
    if (len_bytes >= max_bytes)
        return true;
    for (;;) {
        int found = read_line(data + at, len_bytes - at, &line);
        if (found <= 0)
            return found < 0;
        uint32_t end = at + line.len_bytes, start = end;
        while (start > 0 && data[start - 1] != '\n')
            start--;
        if (start == 0 || start == end || field_name_bytes((struct http_text){data + start, end - start}) == 0)
            return true;
        at = end + 2;
    }
}

/* A qvalue in thousandths, RFC 9110 section 12.4.2; -1: malformed. */
static int parse_weight(struct http_text text)
{
    if (text.len_bytes == 0 || text.len_bytes > 5 || text.data[0] > '1' || text.data[0] < '0')
        return -1;
    int weight = (text.data[0] - '0') * 1000;
    int unit = 100;
    for (uint32_t i = 1; i < text.len_bytes; i++) {
        uint8_t c = text.data[i];
        if (i == 1 ? c != '.' : (c < '0' || c > '9'))
            return -1;
        if (i > 1) {
            weight += (c - '0') * unit;
            unit /= 10;
        }
    }
    return weight <= 1000 ? weight : -1;
}

/* Splits "gzip;q=0.5". The weight is 1000 if none is given. */
static struct http_text split_weight(struct http_text element, int *weight)
{
    const uint8_t *semicolon = memchr(element.data, ';', element.len_bytes);
    *weight = 1000;
    if (semicolon == NULL)
        return element;
    struct http_text name = trim((struct http_text){element.data, (uint32_t)(semicolon - element.data)});
    struct http_text parameter =
        trim((struct http_text){semicolon + 1, element.len_bytes - (uint32_t)(semicolon - element.data) - 1});
    bool is_weight = parameter.len_bytes > 2 && lower(parameter.data[0]) == 'q' && parameter.data[1] == '=';
    *weight = is_weight ? parse_weight((struct http_text){parameter.data + 2, parameter.len_bytes - 2}) : -1;
    return name;
}

/* Where in a list one is. */
struct list_place {
    uint32_t line;
    struct http_text rest; /* of the line */
};

/* As next_element, over all lines. */
static bool next_of_list(const struct http_list *list, struct list_place *place, struct http_text *element)
{
    for (;;) {
        if (place->rest.len_bytes > 0 && next_element(&place->rest, element))
            return true;
        if (place->line == list->count)
            return false;
        place->rest = list->lines[place->line++];
    }
}

void http_accept_encoding(const struct http_list *field, uint16_t *weights)
{
    static const char *const names[SSI_ENCODING_COUNT] = {"identity", "gzip", "br", "zstd"};
    int named[SSI_ENCODING_COUNT] = {-1, -1, -1, -1};
    int star = -1;
    struct list_place place = {0};
    struct http_text element;
    while (next_of_list(field, &place, &element)) {
        int weight;
        struct http_text name = split_weight(element, &weight);
        if (weight < 0)
            continue;
        if (text_is(name, "*"))
            star = weight;
        for (int e = 0; e < SSI_ENCODING_COUNT; e++)
            if (text_is(name, names[e]) || (e == SSI_ENCODING_GZIP && text_is(name, "x-gzip")))
                named[e] = weight;
    }
    for (int e = 0; e < SSI_ENCODING_COUNT; e++) {
        int weight = named[e] >= 0 ? named[e] : star;
        /* Identity is acceptable unless refused, but whatever was asked for, if by the least weight, comes first. */
        if (weight < 0)
            weights[e] = e == SSI_ENCODING_IDENTITY ? 1 : 0;
        else
            weights[e] = (uint16_t)(weight > 0 ? weight + 1 : 0);
    }
}

bool http_etag_listed(const struct http_list *field, const uint8_t *etag, uint32_t etag_bytes, bool strong)
{
    struct list_place place = {0};
    struct http_text element;
    if (field->count == 1 && field->lines[0].len_bytes == 1 && field->lines[0].data[0] == '*')
        return true;
    while (next_of_list(field, &place, &element)) {
        if (!strong && element.len_bytes > 2 && element.data[0] == 'W' && element.data[1] == '/') {
            element.data += 2;
            element.len_bytes -= 2;
        }
        if (element.len_bytes == etag_bytes && memcmp(element.data, etag, etag_bytes) == 0)
            return true;
    }
    return false;
}

/* Takes digits off the front; what is too large for 64 bits is the largest. False: there are none. */
static bool take_number(struct http_text *text, uint64_t *number)
{
    uint32_t at = 0;
    uint64_t value = 0;
    for (; at < text->len_bytes && is_digit(text->data[at]); at++)
        value = value > (UINT64_MAX - 9) / 10 ? UINT64_MAX : value * 10 + (text->data[at] - '0');
    text->data += at;
    text->len_bytes -= at;
    *number = value;
    return at > 0;
}

/* The bytes of a range that says them; an end that it leaves out is the largest number. False: it has none of the content. */
static bool range_of(uint64_t first, uint64_t last, uint64_t content_bytes, struct http_range *range)
{
    if (first >= content_bytes)
        return false;
    *range = (struct http_range){first, last < content_bytes ? last : content_bytes - 1};
    return true;
}

/* "0-99", "100-" or "-100", RFC 9110 section 14.1.2. 1: satisfiable, 0: not, -1: malformed. */
static int parse_range(struct http_text spec, uint64_t content_bytes, struct http_range *range)
{
    uint64_t first, last;
    bool from = take_number(&spec, &first);
    if (spec.len_bytes == 0 || spec.data[0] != '-')
        return -1;
    spec.data++;
    spec.len_bytes--;
    bool to = take_number(&spec, &last);
    if (spec.len_bytes != 0 || (!from && !to) || (from && to && last < first))
        return -1;
    if (!from) /* the last 0 bytes begin behind the content: never satisfiable */
        return range_of(last < content_bytes ? content_bytes - last : 0, UINT64_MAX, content_bytes, range);
    return range_of(first, to ? last : UINT64_MAX, content_bytes, range);
}

/* What is kept of a Range field. */
struct range_set {
    struct http_range *ranges;
    uint32_t count;
    uint64_t end; /* behind the last byte of all of them */
};

/* Two that overlap or adjoin leave no gap. */
static bool ranges_touch(struct http_range a, struct http_range b)
{
    return a.first <= b.last + 1 && b.first <= a.last + 1;
}

/* Adds a range, which all that it touches become one with: RFC 9110 section 15.3.7.2. No two in the set touch, so the order
 * in which they are looked at does not matter. */
static void add_range(struct range_set *set, struct http_range range)
{
    bool beyond = set->count == 0 || range.first > set->end;
    uint32_t kept = 0, place = set->count;
    if (range.last + 1 > set->end)
        set->end = range.last + 1;
    if (beyond) { /* of ranges in ascending order, as most come, none is looked at again */
        set->ranges[set->count++] = range;
        return;
    }
    for (uint32_t i = 0; i < set->count; i++) {
        struct http_range other = set->ranges[i];
        if (!ranges_touch(other, range)) {
            set->ranges[kept++] = other;
            continue;
        }
        range.first = other.first < range.first ? other.first : range.first;
        range.last = other.last > range.last ? other.last : range.last;
        if (place == set->count)
            place = kept++;
    }
    set->count = place == set->count ? kept + 1 : kept;
    set->ranges[place] = range;
}

int http_ranges(struct http_text field, uint64_t content_bytes, struct http_range *ranges)
{
    const uint8_t *equals = memchr(field.data, '=', field.len_bytes);
    if (equals == NULL || content_bytes == 0)
        return HTTP_RANGES_IGNORED;
    struct http_text unit = {field.data, (uint32_t)(equals - field.data)};
    if (!text_is(unit, "bytes"))
        return HTTP_RANGES_IGNORED;
    struct http_text list = {equals + 1, field.len_bytes - unit.len_bytes - 1}, spec;
    uint64_t left_bytes = content_bytes;
    uint32_t asked = 0;
    bool any = false;
    struct range_set set = {.ranges = ranges};
    while (next_element(&list, &spec)) {
        struct http_range range;
        int verdict = parse_range(spec, content_bytes, &range);
        if (verdict < 0)
            return HTTP_RANGES_IGNORED;
        any = true;
        if (verdict == 0)
            continue;
        uint64_t bytes = range.last - range.first + 1;
        if (asked++ == HTTP_RANGES_MAX || bytes > left_bytes)
            return HTTP_RANGES_IGNORED;
        left_bytes -= bytes;
        add_range(&set, range);
    }
    return any ? (int)set.count : HTTP_RANGES_IGNORED;
}
