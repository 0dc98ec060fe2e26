/* HTTP/1.1 and 1.0 requests, RFC 9112. Parses where the bytes lie; nothing is copied but a path that has to be decoded. */
#ifndef SANDSTORM_HTTP_PARSE_H
#define SANDSTORM_HTTP_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HTTP_PATH_BYTES_MAX 8000 /* at least, RFC 9112 section 3 */
#define HTTP_PARTIAL 0 /* http_parse: more bytes are needed */

enum http_method {
    HTTP_GET = 1,
    HTTP_HEAD,
    HTTP_OPTIONS,
    HTTP_OTHER, /* known, but for nothing that we serve */
    HTTP_UNKNOWN, /* not a method that anybody registered */
};

struct http_text {
    const uint8_t *data; /* NULL: the field is absent */
    uint32_t len_bytes;
};

/* A field whose lines make one list, RFC 9110 section 5.3. */
#define HTTP_LIST_LINES_MAX 4
struct http_list {
    uint32_t count; /* 0: the field is absent */
    struct http_text lines[HTTP_LIST_LINES_MAX];
};

struct http_request {
    enum http_method method;
    uint8_t minor_version; /* 0 or 1 */
    bool close; /* the connection ends with the answer */
    bool expect_continue; /* whoever sends it waits for an answer before the body */
    bool expect_unknown; /* something else than 100-continue */
    bool chunked; /* a body in a transfer coding: its end can't be skipped to */
    bool asterisk; /* OPTIONS of the server as a whole, RFC 9112 section 3.2.4 */
    uint64_t content_length;
    struct http_text host; /* without its port */
    struct http_text if_unmodified_since, if_modified_since, if_range, range;
    struct http_text query; /* with its question mark */
    struct http_text path; /* decoded, dots resolved, no query; where it lies, or in decoded */
    struct http_list if_match, if_none_match, accept_encoding;
    struct http_text undecoded; /* if the path lies in decoded: as it came, with the query; else of no meaning */
    uint8_t decoded[HTTP_PATH_BYTES_MAX];
};

/* Parses a request's head. merge_slashes: in its path, slashes in a row are one. Returns the bytes it took, HTTP_PARTIAL, or the negative status that refuses it: -400, -414,
 * -421 (https), -431 (a head of max_bytes is not whole, or more than HTTP_LIST_LINES_MAX lines of a list), -501 (a transfer
 * coding), -505. After a refusal request->method is set if it was read. */
int http_parse(const uint8_t *data, uint32_t len_bytes, uint32_t max_bytes, bool merge_slashes,
               struct http_request *request);

/* Of a head that http_parse said HTTP_PARTIAL of, when there is more of it: is it worth another look? That is when it may be
 * whole, when its first line is, and when it will be refused for a byte or a line that no head has. Only what is new is looked
 * at, so that the work does not grow with what was there before; what refuses a head but for how its lines are formed is found
 * when it is whole. seen_bytes: how much of it there was at the last look; not 0. */
bool http_worth_parsing(const uint8_t *data, uint32_t len_bytes, uint32_t max_bytes, uint32_t seen_bytes);

/* The weight of each encoding, SSI_ENCODING_*, in thousandths and one more; 1: of identity, if nothing is said of it; 0: not
 * acceptable. RFC 9110 section 12.5.3. */
void http_accept_encoding(const struct http_list *field, uint16_t *weights);

/* Does an If-None-Match field (weak comparison, RFC 9110 section 13.1.2) or an If-Match field (strong, section 13.1.1)
 * hold this entity tag? */
bool http_etag_listed(const struct http_list *field, const uint8_t *etag, uint32_t etag_bytes, bool strong);

/* Bytes of a body, both ends included. */
struct http_range {
    uint64_t first, last;
};
#define HTTP_RANGES_MAX 200
#define HTTP_RANGES_IGNORED (-1)

/* Reads a Range field (RFC 9110 section 14.2) for a body of content_bytes into ranges[HTTP_RANGES_MAX], those that can
 * be satisfied, in their order; what overlaps or adjoins is one, where the first of it stood. Returns their number, 0: none can
 * be, or HTTP_RANGES_IGNORED: the whole body is the answer. That is so for another unit, a malformed field and an empty body,
 * and for requests that cost more than they save: more than HTTP_RANGES_MAX ranges, or more bytes in them than the body has. */
int http_ranges(struct http_text field, uint64_t content_bytes, struct http_range *ranges);

#endif
