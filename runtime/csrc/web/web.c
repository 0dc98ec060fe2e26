#include "web.h"

#include <string.h>

#include "access_log.h"
#include "head_patch.h"
#include "http_parse.h"
#include "image/date.h"
#include "location.h"
#include "route_prefetch.h"
#include "state.h"
#include "wire/checksum.h"
#include "wire/probe.h"

#define DRAIN_BYTES_MAX                                                                                              \
    65536 /* a request's body is read and forgotten up to this; a longer one ends the connection */

#define QUERY_BYTES_MAX 512 /* that a redirect hands on which can do without */

static void count_status(struct web *web, uint32_t status)
{
    uint64_t *const counters = (uint64_t *)&web->counters; /* those of the four classes follow each other */
    counters[offsetof(struct web_counters, http_status_2xx) / sizeof(*counters) + status / 100 - 2]++;
}

/* How far a request has come: a head that is not whole yet, or an answer longer than the connection's slices, during which the
 * head stays unread; and then its body. It is tcb->app. */
struct progress {
    uint32_t body_bytes; /* to read and forget */
    uint16_t step : 12; /* slices of the answer that have been written */
    uint16_t generation : GENERATION_PLACE_BITS; /* whose answer it is, where some have been */
    uint16_t seen_bytes; /* of a head that was looked at and is not whole */
};
#define STEP_MAX (4 + 2 * HTTP_RANGES_MAX) /* of an answer to several ranges, multipart_slice */
_Static_assert(STEP_MAX < 1 << 12, "step counts them");
_Static_assert(TCB_RECEIVE_BYTES <= UINT16_MAX, "seen_bytes counts them");
_Static_assert(sizeof(struct progress) == sizeof(((struct tcb *)0)->app), "tcb->app is all there is");

static struct progress progress_of(const struct tcb *tcb)
{
    struct progress progress;
    memcpy(&progress, &tcb->app, sizeof(progress));
    return progress;
}

static void progress_set(struct tcb *tcb, uint32_t body_bytes)
{
    struct progress progress = {.body_bytes = body_bytes};
    memcpy(&tcb->app, &progress, sizeof(progress));
}

/* So many slices of an answer have been written, and more are to be. */
static void step_set(const struct web *web, struct tcb *tcb, uint32_t step)
{
    struct progress progress = {.step = step & 0xfff, .generation = web->generation & (GENERATIONS_MAX - 1)};
    memcpy(&tcb->app, &progress, sizeof(progress));
}

/* A head is not whole. */
static void seen_set(struct tcb *tcb, uint32_t seen_bytes)
{
    struct progress progress = {.seen_bytes = (uint16_t)seen_bytes};
    memcpy(&tcb->app, &progress, sizeof(progress));
}

/* A slice of a response from its byte skip on. variant: whose 206 or 304 it may be, by its index. */
static struct response_slice slice_of(const struct web *web, uint32_t response_index, uint64_t skip, uint32_t variant,
                                      bool close)
{
    struct response_slice slice = {.skip = skip,
                                   .first_frame = web->image->responses[response_index].first_frame,
                                   .generation = (uint8_t)web->generation};
    head_values_set(&slice, response_index, (uint32_t)web->wall_s, variant & SSI_VARIANTS_MAX, close);
    return slice;
}

/* Queues a response, or its head alone: all that HEAD is answered with, RFC 9110 section 9.3.2. close: the connection
 * ends with it. variant: what a 304 is of, by its index. Always inline: in all that is no 304 it is a constant, and the
 * slice is made where it stays. */
__attribute__((always_inline)) static inline void write_of(struct web *web, struct tcb *tcb, uint32_t response_index,
                                                           uint32_t variant, bool head, bool close)
{
    const struct ssi_response *response = &web->image->responses[response_index];
    struct response_slice slice = slice_of(web, response_index, 0, variant, close);
    PROBE(web_write, tcb, response->status);
    count_status(web, response->status);
    web->response_uses[response_index]++;
    if (web->lasts)
        web->answer =
            (struct head_answer){.response = response_index, .variant = variant, .head = head, .close = close};
    tcpip_write(web->tcpip, tcb, &slice, head ? response->head_bytes : response->stream_bytes);
    if (close)
        tcpip_finish(web->tcpip, tcb);
}

/* The same for what says nothing of a variant. */
static void web_write(struct web *web, struct tcb *tcb, uint32_t response_index, bool head, bool close)
{
    write_of(web, tcb, response_index, 0, head, close);
}

/* The site's answer for a status; a site without one gets a bare close. */
static void write_error(struct web *web, struct tcb *tcb, uint32_t site, uint32_t status, bool head, bool close)
{
    const struct ssi_error *error = image_error_find(web->image, site, status);
    if (error != NULL)
        web_write(web, tcb, error->get_response, head, close);
    else
        tcpip_finish(web->tcpip, tcb);
}

/* Where a redirect's head has room for what is asked for; 0: nowhere. */
struct places {
    uint32_t path, query;
};

/* Copies bytes [from, to) of a response to where the text ends. */
static void put_response(struct web *web, const struct response_slice *slice, uint32_t from, uint32_t to,
                         struct location_text *text)
{
    uint8_t *at = location_take(text, to - from);
    if (at != NULL)
        tcpip_copy(web->tcpip, slice, from, at, to - from);
}

/* A redirect with what of the request goes into its Location. prefix_bytes: of the path, which are not handed on. */
static void put_redirect(struct web *web, const struct response_slice *slice, const struct places *places,
                         const struct http_request *request, uint32_t prefix_bytes, struct location_text *text)
{
    const struct ssi_response *response = &web->image->responses[head_values_of(slice)->response];
    uint64_t bytes = request->method == HTTP_HEAD ? response->head_bytes : response->stream_bytes;
    uint32_t done = 0;
    text->full = bytes > text->room_bytes;
    if (places->path != 0 && !text->full) {
        put_response(web, slice, 0, places->path, text);
        location_put_path(text, request, prefix_bytes);
        done = places->path;
    }
    if (places->query != 0 && !text->full) {
        put_response(web, slice, done, places->query, text);
        location_put_query(text, request->query);
        done = places->query;
    }
    if (!text->full)
        put_response(web, slice, done, (uint32_t)bytes, text);
}

/* Writes it. Returns 0, or the status that says why not. */
static uint32_t write_redirect(struct web *web, struct tcb *tcb, const struct ssi_variant *variant,
                               const struct places *places, const struct http_request *request, uint32_t prefix_bytes)
{
    struct response_slice slice = slice_of(web, variant->get_response, 0, 0, request->close);
    uint32_t buffer = tcpip_compose(web->tcpip, tcb), status = web->image->responses[variant->get_response].status;
    if (buffer == NMIO_NONE)
        return 503;
    struct location_text text = {.data = composed_bytes(&web->tcpip->composed, buffer), .room_bytes = COMPOSED_BYTES};
    put_redirect(web, &slice, places, request, prefix_bytes, &text);
    slice = composed_slice(buffer);
    head_values_set(&slice, variant->get_response, (uint32_t)web->wall_s, 0,
                    request->close); /* whoever follows it reads that */
    if (text.full) {
        composed_slice_release(&web->tcpip->composed, &slice);
        return 414;
    }
    PROBE(web_write, tcb, status);
    count_status(web, status);
    web->response_uses[variant->get_response]++;
    tcpip_write(web->tcpip, tcb, &slice, text.len_bytes);
    if (request->close)
        tcpip_finish(web->tcpip, tcb);
    return 0;
}

/* A redirect whose Location has the request's query, or what of its path is behind the route's prefix: as there is no such
 * response in the image, it is made. Where that can't be, it does without the query; to do without the path would be to redirect
 * elsewhere, which is refused. False: the image's is the answer. */
__attribute__((noinline)) static bool write_handing_on(struct web *web, struct tcb *tcb, uint32_t site,
                                                       const struct ssi_route *route,
                                                       const struct ssi_variant *variant,
                                                       const struct http_request *request)
{
    bool queried = request->query.len_bytes >= 2; /* a lone question mark is none */
    struct places places = {.path = variant->swap_bytes, .query = queried ? variant->swap_offset : 0};
    if (places.path == 0 && places.query == 0)
        return false;
    web->lasts = false; /* it may fail another time */
    bool fits = places.path != 0 || request->query.len_bytes <= QUERY_BYTES_MAX;
    uint32_t status = fits ? write_redirect(web, tcb, variant, &places, request, route->path_bytes) : 414;
    if (status != 0 && places.path == 0) {
        COUNT(web, http_queries_left_out);
        return false;
    }
    if (status != 0) {
        COUNT(web, http_redirects_refused);
        write_error(web, tcb, site, status, request->method == HTTP_HEAD, request->close);
    }
    return true;
}

/* The acceptable variant of the greatest weight; among equals the first, as the image has them in order of
 * preference. If none is acceptable the unencoded one is sent, as RFC 9110 section 12.5.3 allows, unless that is refused
 * by name: then NULL. */
static const struct ssi_variant *choose_variant(const struct web *web, const struct ssi_route *route,
                                                const struct http_list *accept_encoding)
{
    const struct ssi_variant *variants = &web->image->variants[route->first_variant];
    uint16_t weights[SSI_ENCODING_COUNT];
    if (route->variant_count == 1 && (accept_encoding->count == 0 || variants->not_modified_response == SSI_NONE))
        return variants;
    http_accept_encoding(accept_encoding, weights);
    const struct ssi_variant *best = NULL;
    for (uint32_t i = 0; i < route->variant_count; i++) {
        uint16_t weight = weights[variants[i].encoding];
        if (weight > 0 && (best == NULL || weight > weights[best->encoding]))
            best = &variants[i];
    }
    if (best == NULL && weights[SSI_ENCODING_IDENTITY] > 0)
        return variants; /* a route without an unencoded variant */
    return best;
}

static bool etag_listed(const struct web *web, const struct ssi_variant *variant, const struct http_list *field,
                        bool strong)
{
    return http_etag_listed(field, web->image->strings + variant->etag_offset, variant->etag_bytes, strong);
}

/* Has the file changed after a date? otherwise: what to say when the field is to be ignored, being no date (RFC 9110
 * section 13.1.3) or there being nothing to compare with. */
static bool modified_after(struct web *web, const struct ssi_variant *variant, struct http_text field, bool otherwise)
{
    int64_t since;
    web->lasts = false; /* a date may lie in the future, and then be past */
    if (variant->last_modified_s < 0 || !date_parse(field.data, field.len_bytes, web->wall_s, &since))
        return otherwise;
    return variant->last_modified_s > since;
}

/* RFC 9110 section 13.2.2 up to its step 4. Returns 304 or 412, or 0: the conditions hold. A redirect has none, section
 * 13.2.1. */
static uint32_t failed_condition(struct web *web, const struct ssi_variant *variant,
                                 const struct http_request *request)
{
    if (variant->not_modified_response == SSI_NONE)
        return 0;
    if (request->if_match.count > 0) {
        if (!etag_listed(web, variant, &request->if_match, true))
            return 412;
    } else if (request->if_unmodified_since.data != NULL) {
        if (modified_after(web, variant, request->if_unmodified_since, false))
            return 412;
    }
    if (request->if_none_match.count > 0)
        return etag_listed(web, variant, &request->if_none_match, false) ? 304 : 0;
    if (request->if_modified_since.data != NULL && !modified_after(web, variant, request->if_modified_since, true))
        return 304;
    return 0;
}

/* A date that must be exact: If-Range's. */
static bool date_is(struct web *web, struct http_text text, int64_t seconds)
{
    int64_t date;
    web->lasts = false;
    return date_parse(text.data, text.len_bytes, web->wall_s, &date) && date == seconds;
}

/* RFC 9110 section 13.1.5: a strong entity tag, the same byte for byte, or exactly what Last-Modified says. */
static bool if_range_holds(struct web *web, const struct ssi_variant *variant, struct http_text field)
{
    if (field.data == NULL)
        return true;
    if (field.len_bytes == variant->etag_bytes &&
        memcmp(field.data, web->image->strings + variant->etag_offset, field.len_bytes) == 0)
        return true;
    return variant->last_modified_s >= 0 && date_is(web, field, variant->last_modified_s);
}

/* The answer to a Range field. */
struct partial {
    const struct ssi_variant *variant;
    uint32_t count;
    bool close;
    struct http_range ranges[HTTP_RANGES_MAX];
};

static uint64_t stream_bytes(const struct web *web, uint32_t response_index)
{
    return web->image->responses[response_index].stream_bytes;
}

static uint32_t variant_index(const struct web *web, const struct ssi_variant *variant)
{
    return (uint32_t)(variant - web->image->variants);
}

/* A slice of a 206: of a response from its byte skip on. */
static struct response_slice partial_slice(const struct web *web, const struct partial *p, uint32_t response_index,
                                           uint64_t skip)
{
    return slice_of(web, response_index, skip, variant_index(web, p->variant), p->close);
}

/* Head or part header: what is patched into it. */
static void say_range(struct response_slice *slice, struct http_range range)
{
    struct head_values *values = (struct head_values *)slice->app;
    values->range_first = range.first;
    values->range_last = range.last;
}

/* The slice of the body that a range is. */
static uint64_t body_slice(const struct web *web, const struct partial *p, struct http_range range,
                           struct response_slice *slice)
{
    uint32_t head_bytes = web->image->responses[p->variant->get_response].head_bytes;
    *slice = partial_slice(web, p, p->variant->get_response, head_bytes + range.first);
    return range.last - range.first + 1;
}

/* One range: head, slice. Returns the slice's bytes; 0: there is no such step. */
static uint64_t single_slice(const struct web *web, const struct partial *p, uint32_t step,
                             struct response_slice *slice)
{
    if (step == 1)
        return body_slice(web, p, p->ranges[0], slice);
    if (step > 1)
        return 0;
    *slice = partial_slice(web, p, p->variant->partial_response, 0);
    say_range(slice, p->ranges[0]);
    return stream_bytes(web, p->variant->partial_response);
}

static uint64_t multipart_bytes(const struct web *web, const struct partial *p)
{
    uint64_t bytes = stream_bytes(web, web->image->header->multipart_end_response);
    for (uint32_t i = 0; i < p->count; i++)
        bytes += stream_bytes(web, p->variant->part_response) + p->ranges[i].last - p->ranges[i].first + 1;
    return bytes;
}

/* Several, RFC 9110 section 14.6: the head up to what is swapped, its Content-Type, the rest of the head, then for each
 * range its header and slice, and the closing delimiter. */
static uint64_t multipart_slice(const struct web *web, const struct partial *p, uint32_t step,
                                struct response_slice *slice)
{
    const struct ssi_header *header = web->image->header;
    const struct ssi_variant *variant = p->variant;
    uint32_t behind_swap = variant->swap_offset + variant->swap_bytes;
    uint32_t part = (step - 3) / 2;
    if (step == 0) {
        *slice = partial_slice(web, p, variant->partial_response, 0);
        say_range(slice, (struct http_range){0, multipart_bytes(web, p) - 1});
        return variant->swap_offset;
    }
    if (step == 1) {
        *slice = partial_slice(web, p, header->multipart_type_response, 0);
        return stream_bytes(web, header->multipart_type_response);
    }
    if (step == 2) {
        *slice = partial_slice(web, p, variant->partial_response, behind_swap);
        return stream_bytes(web, variant->partial_response) - behind_swap;
    }
    if (part < p->count && (step - 3) % 2 == 0) {
        *slice = partial_slice(web, p, variant->part_response, 0);
        say_range(slice, p->ranges[part]);
        return stream_bytes(web, variant->part_response);
    }
    if (part < p->count)
        return body_slice(web, p, p->ranges[part], slice);
    *slice = partial_slice(web, p, header->multipart_end_response, 0);
    return step == 3 + 2 * p->count ? stream_bytes(web, header->multipart_end_response) : 0;
}

/* Writes as many slices of a 206 as there is room for. False: more is to be written. */
static bool write_partial(struct web *web, struct tcb *tcb, const struct partial *p)
{
    uint32_t step = progress_of(tcb).step;
    if (p->count > 1)
        tcpip_expect_many(web->tcpip, tcb);
    if (step == 0) {
        PROBE(web_write, tcb, 206);
        count_status(web, 206);
        web->response_uses[p->variant->get_response]++;
    }
    for (;;) {
        struct response_slice slice;
        uint64_t bytes = p->count == 1 ? single_slice(web, p, step, &slice) : multipart_slice(web, p, step, &slice);
        if (bytes == 0)
            break;
        if (!tcpip_can_write(tcb)) {
            step_set(web, tcb, step);
            return false;
        }
        tcpip_write(web->tcpip, tcb, &slice, bytes);
        step++;
    }
    progress_set(tcb, 0);
    if (p->close || web->tcpip->draining)
        tcpip_finish(web->tcpip, tcb);
    return true;
}

/* RFC 9110 section 15.5.17: the site's 416 says how long the body is. */
static void write_unsatisfiable(struct web *web, struct tcb *tcb, uint32_t site, const struct ssi_variant *variant,
                                bool close)
{
    const struct ssi_error *error = image_error_find(web->image, site, 416);
    if (error == NULL) {
        tcpip_finish(web->tcpip, tcb);
        return;
    }
    struct response_slice slice = slice_of(web, error->get_response, 0, variant_index(web, variant), close);
    say_range(&slice, (struct http_range){1, 0});
    PROBE(web_write, tcb, 416);
    count_status(web, 416);
    tcpip_write(web->tcpip, tcb, &slice, stream_bytes(web, error->get_response));
    if (close)
        tcpip_finish(web->tcpip, tcb);
}

enum outcome {
    OUTCOME_WHOLE, /* written */
    OUTCOME_BEGUN, /* more is to be written when a slice is free */
    OUTCOME_NONE, /* nothing is written */
};

/* RFC 9110 section 14.2. The conditions have been looked at when the answer was begun: a second later they might come
 * out differently. */
__attribute__((noinline)) static enum outcome answer_ranges(struct web *web, struct tcb *tcb,
                                                            const struct http_request *request, uint32_t site,
                                                            const struct ssi_variant *variant)
{
    struct partial p;
    bool begun = progress_of(tcb).step > 0;
    p.variant = variant;
    p.close = request->close;
    if (!begun && !if_range_holds(web, variant, request->if_range))
        return OUTCOME_NONE;
    int count = http_ranges(request->range, variant->content_bytes, p.ranges);
    if (count == HTTP_RANGES_IGNORED || (count > 1 && variant->part_response == SSI_NONE))
        return OUTCOME_NONE;
    if (count == 0) {
        write_unsatisfiable(web, tcb, site, variant, request->close);
        return OUTCOME_WHOLE;
    }
    p.count = (uint32_t)count;
    return write_partial(web, tcb, &p) ? OUTCOME_WHOLE : OUTCOME_BEGUN;
}

/* The status that refuses a request whatever it is for; 0: there is none. */
static uint32_t status_of_method(const struct http_request *request)
{
    if (request->expect_unknown)
        return 417; /* RFC 9110 section 10.1.1 */
    switch (request->method) {
    case HTTP_OTHER:
        return 405;
    case HTTP_UNKNOWN:
        return 501;
    default:
        return 0;
    }
}

/* Of a file: the whole, a part, or why not. False: more of the answer is to be written when a slice is free. */
static bool answer_variant(struct web *web, struct tcb *tcb, const struct http_request *request, uint32_t site,
                           const struct ssi_route *route, const struct ssi_variant *variant)
{
    bool head = request->method == HTTP_HEAD;
    bool hands_on = variant->partial_response == SSI_NONE && (variant->swap_offset | variant->swap_bytes) != 0;
    if (hands_on && write_handing_on(web, tcb, site, route, variant, request))
        return true;
    uint32_t failed = progress_of(tcb).step == 0 ? failed_condition(web, variant, request) : 0;
    if (failed == 412) {
        write_error(web, tcb, site, 412, head, request->close);
        return true;
    }
    if (failed == 304) {
        write_of(web, tcb, variant->not_modified_response, variant_index(web, variant), false, request->close);
        return true;
    }
    bool ranged = request->method == HTTP_GET && request->range.data != NULL && variant->partial_response != SSI_NONE;
    enum outcome outcome = ranged ? answer_ranges(web, tcb, request, site, variant) : OUTCOME_NONE;
    if (outcome == OUTCOME_NONE)
        web_write(web, tcb, variant->get_response, head, request->close);
    return outcome != OUTCOME_BEGUN;
}

/* RFC 9110 section 9.3.7: the route's own answer (CORS), or the site's. */
static void answer_options(struct web *web, struct tcb *tcb, const struct http_request *request, uint32_t site,
                           const struct ssi_route *route)
{
    if (route != NULL && route->options_response != SSI_NONE)
        web_write(web, tcb, route->options_response, false, request->close);
    else
        write_error(web, tcb, site, 204, false, request->close);
}

/* False: more of the answer is to be written when a slice is free. */
static bool answer(struct web *web, struct tcb *tcb, const struct http_request *request)
{
    bool head = request->method == HTTP_HEAD;
    uint32_t site = image_site_find(web->image, request->host.data, request->host.len_bytes);
    uint32_t status = site == SSI_NONE ? 421 : status_of_method(request);
    web->site = site;
    if (status != 0) {
        write_error(web, tcb, site == SSI_NONE ? 0 : site, status, head, request->close);
        return true;
    }
    const struct ssi_route *route = image_route_find(web->image, site, request->path.data, request->path.len_bytes);
    if (request->method == HTTP_OPTIONS) {
        answer_options(web, tcb, request, site, request->asterisk ? NULL : route);
        return true;
    }
    const struct ssi_variant *variant = NULL;
    if (route != NULL)
        variant = choose_variant(web, route, &request->accept_encoding);
    if (variant != NULL)
        return answer_variant(web, tcb, request, site, route, variant);
    write_error(web, tcb, site, route == NULL ? 404 : 406, head, request->close);
    return true;
}

/* Bytes of a body, read and forgotten. */
static uint32_t drain(struct tcb *tcb, uint32_t len_bytes)
{
    struct progress progress = progress_of(tcb);
    if (progress.body_bytes == 0)
        return 0;
    uint32_t taken = progress.body_bytes < len_bytes ? progress.body_bytes : len_bytes;
    progress_set(tcb, progress.body_bytes - taken); /* its answer is written */
    return taken;
}

/* Empty lines in front of a request, which clients send behind one with a body: RFC 9112 section 2.2. Read and forgotten, so
 * that they are no incomplete request. */
static uint32_t empty_lines_bytes(const uint8_t *data, uint32_t len_bytes)
{
    uint32_t at = 0;
    while (len_bytes - at >= 2 && data[at] == '\r' && data[at + 1] == '\n')
        at += 2;
    return at;
}

/* Is there something in a head that was not there when it was looked at last? It may be shorter than it was then: what no
 * buffer was free for comes again. */
static bool worth_parsing(const struct tcb *tcb, const uint8_t *data, uint32_t len_bytes)
{
    uint32_t seen_bytes = progress_of(tcb).seen_bytes;
    return seen_bytes == 0 || seen_bytes > len_bytes ||
           http_worth_parsing(data, len_bytes, TCB_RECEIVE_BYTES, seen_bytes);
}

/* An answer of many parts goes on when half of a long ring is free: each time its request is read again. */
static bool goes_on_later(const struct tcb *tcb)
{
    return tcb->slice_count > SLICE_RING_SLICES / 2 && progress_of(tcb).step > 0;
}

/* A client that says close sends no request behind it, RFC 9112 section 9.6; so nothing will come if nothing has, and there is no
 * body. */
static bool is_last(const struct http_request *request, uint32_t behind_bytes)
{
    return request->close && behind_bytes == 0 && !request->chunked && request->content_length == 0;
}

/* A body whose end we would have to wait for, or don't know, is not read: the answer says close. */
static bool has_body_unread(const struct http_request *request)
{
    return request->chunked || request->content_length > DRAIN_BYTES_MAX ||
           (request->expect_continue && request->content_length > 0);
}

/* A head that is all of these bytes, and what is known of it. */
struct lookup {
    struct head_place *place; /* NULL: nothing, and it is not to be kept */
    uint64_t hash;
};

/* Answers what was answered before. False: it is to be parsed. Always inline: most requests are answered here. */
__attribute__((always_inline)) static inline bool answer_again(struct web *web, struct tcb *tcb, const uint8_t *data,
                                                               uint32_t len_bytes, struct lookup *lookup)
{
    lookup->place = tcb->app == 0 ? head_memo_place(&web->memo, data, len_bytes, &lookup->hash) : NULL;
    if (lookup->place == NULL || !head_memo_has(&web->memo, lookup->place, lookup->hash, data, len_bytes))
        return false;
    const struct head_answer *answer = &lookup->place->answer;
    PROBE(web_recv, tcb, data + answer->path_at, answer->path_bytes, len_bytes);
    COUNT(web, http_requests);
    COUNT(web, http_heads_known);
    write_of(web, tcb, answer->response, answer->variant, answer->head, answer->close || web->tcpip->draining);
    if (answer->close && !web->tcpip->draining)
        tcpip_peer_done(tcb); /* what is kept has no body, and nothing has come behind it */
    return true;
}

/* What was answered is noted, if it is the answer to these bytes whenever they come. */
static void note_answer(const struct web *web, const struct lookup *lookup, const uint8_t *data, uint32_t len_bytes,
                        const struct http_request *request)
{
    bool decoded = request->path.data < data || request->path.data >= data + len_bytes;
    if (!web->lasts || web->answer.response == SSI_NONE || decoded || request->content_length > 0 || request->chunked)
        return;
    struct head_answer answer = web->answer;
    answer.path_at = (uint16_t)(request->path.data - data);
    answer.path_bytes = (uint16_t)request->path.len_bytes;
    answer.site = web->site;
    head_memo_keep(lookup->place, lookup->hash, data, len_bytes, &answer);
}

/* A request that is not known, whole or not. begun: its answer is. Returns the bytes of its head that were taken; 0: more must come,
 * or more of the answer is to be written, or nothing more is read. */
__attribute__((noinline)) static uint32_t take_request(struct web *web, struct tcb *tcb, const uint8_t *data,
                                                       uint32_t len_bytes, const struct lookup *lookup, bool begun)
{
    struct http_request request;
    bool merge_slashes = (web->image->header->flags & SSI_IMAGE_MERGE_SLASHES) != 0;
    int status = http_parse(data, len_bytes, TCB_RECEIVE_BYTES, merge_slashes, &request);
    if (status == HTTP_PARTIAL) {
        if (!begun)
            seen_set(tcb, len_bytes);
        return 0;
    }
    if (!begun) {
        PROBE(web_recv, tcb, request.path.data, request.path.len_bytes, status);
        COUNT(web, http_requests);
    }
    if (status < 0) {
        COUNT(web, http_bad_requests);
        web->site = SSI_NONE;
        write_error(web, tcb, 0, (uint32_t)-status, request.method == HTTP_HEAD, true);
        return 0;
    }
    if (has_body_unread(&request) || web->tcpip->draining)
        request.close = true;
    web->lasts = true;
    web->answer.response = SSI_NONE;
    bool written = answer(web, tcb, &request);
    if (written && lookup->place != NULL && (uint32_t)status == len_bytes)
        note_answer(web, lookup, data, len_bytes, &request);
    web->lasts = false; /* nothing is noted of what is known */
    if (!written)
        return 0;
    if (!web->tcpip->draining && is_last(&request, len_bytes - (uint32_t)status)) /* else it is we who say close */
        tcpip_peer_done(tcb);
    progress_set(tcb, request.close ? 0 : (uint32_t)request.content_length);
    return (uint32_t)status;
}

/* Has answers taken from a generation. */
static void take_from(struct web *web, uint32_t place)
{
    const struct generation *generation = web->tcpip->generations.of[place];
    web->image = &generation->image;
    web->response_uses = ((const struct web_tables *)generation->app)->response_uses;
    web->generation = place;
}

/* An answer that has been begun goes on from the generation that it was begun from. */
__attribute__((noinline)) static uint32_t go_on(struct web *web, struct tcb *tcb, const uint8_t *data,
                                                uint32_t len_bytes, const struct lookup *lookup)
{
    uint32_t newest = web->generation;
    take_from(web, progress_of(tcb).generation);
    uint32_t head_bytes = take_request(web, tcb, data, len_bytes, lookup, true);
    take_from(web, newest);
    return head_bytes;
}

/* Notes the answer to a head that is known. */
static void follow_known(struct web *web, struct tcb *tcb, const struct access_request *request,
                         const struct lookup *lookup)
{
    web->site = lookup->place->answer.site;
    access_log_answer(web, tcb, request);
}

/* Notes the answer to another one, if there was one. head_bytes: that were taken. */
static void follow(struct web *web, struct tcb *tcb, struct access_request *request, uint32_t head_bytes)
{
    request->complete = progress_of(tcb).step == 0;
    if (head_bytes > 0)
        request->head_bytes = head_bytes;
    access_log_answer(web, tcb, request);
}

/* Of two kinds of application one follows its answers. Always inline: the other has nothing of that in it. */
__attribute__((always_inline)) static inline uint32_t receive(struct tcpip *tcpip, struct tcb *tcb,
                                                              const uint8_t *data, uint32_t len_bytes, bool follows)
{
    struct web *web = tcpip->app_state;
    uint32_t taken = drain(tcb, len_bytes);
    while (taken < len_bytes && tcpip_can_write(tcb) && !goes_on_later(tcb)) {
        struct lookup lookup;
        if (data[taken] == '\r')
            taken += empty_lines_bytes(data + taken, len_bytes - taken);
        struct access_request request = {data + taken, len_bytes - taken, tcb->slice_count, progress_of(tcb).step > 0,
                                         true};
        if (answer_again(web, tcb, data + taken, len_bytes - taken, &lookup)) {
            if (follows)
                follow_known(web, tcb, &request, &lookup);
            return len_bytes;
        }
        if (!worth_parsing(tcb, data + taken, len_bytes - taken)) {
            seen_set(tcb, len_bytes - taken);
            break;
        }
        uint32_t head_bytes = request.resumed
                                  ? go_on(web, tcb, data + taken, len_bytes - taken, &lookup)
                                  : take_request(web, tcb, data + taken, len_bytes - taken, &lookup, false);
        if (follows)
            follow(web, tcb, &request, head_bytes);
        if (head_bytes == 0)
            break;
        taken += head_bytes;
        taken += drain(tcb, len_bytes - taken);
    }
    return taken;
}

__attribute__((flatten)) static uint32_t web_receive(struct tcpip *tcpip, struct tcb *tcb, const uint8_t *data,
                                                     uint32_t len_bytes)
{
    return receive(tcpip, tcb, data, len_bytes, false);
}

__attribute__((flatten)) static uint32_t web_receive_followed(struct tcpip *tcpip, struct tcb *tcb,
                                                              const uint8_t *data, uint32_t len_bytes)
{
    return receive(tcpip, tcb, data, len_bytes, true);
}

static void web_timeout(struct tcpip *tcpip, struct tcb *tcb, bool request_begun)
{
    if (request_begun && tcpip_can_write(tcb) && progress_of(tcb).step == 0)
        write_error(tcpip->app_state, tcb, 0, 408, false, true);
}

static void web_timeout_followed(struct tcpip *tcpip, struct tcb *tcb, bool request_begun)
{
    struct web *web = tcpip->app_state;
    struct access_request request = {.slices = tcb->slice_count, .complete = true};
    if (tcb->buffer != TCB_NONE) {
        request.head = receive_buffer_bytes(&tcpip->buffers, tcb);
        request.head_bytes = tcb->buffered_bytes;
    }
    web->site = SSI_NONE;
    web_timeout(tcpip, tcb, request_begun);
    access_log_answer(web, tcb, &request);
}

static bool web_has_pending_response(const struct tcb *tcb)
{
    return progress_of(tcb).step > 0;
}

static uint32_t web_pending_generation(const struct tcb *tcb)
{
    return progress_of(tcb).generation;
}

/* Of a slice any value is good but those which say where in the image to look. */
static bool slice_goes_on(const struct web *web, const struct response_slice *slice)
{
    uint32_t response = head_values_of(slice)->response;
    return response < web->image->header->response_count &&
           web->image->responses[response].first_frame == slice->first_frame;
}

static bool web_resume(void *state, struct tcb *tcb, uint32_t from)
{
    const struct web *web = state;
    struct progress progress = progress_of(tcb);
    for (uint32_t i = 0; i < tcb->slice_count; i++)
        if (!is_composed(tcb_slice(tcb, i)) && !slice_goes_on(web, tcb_slice(tcb, i)))
            return false;
    if (progress.step == 0)
        return progress.seen_bytes <= tcb->buffered_bytes;
    if (progress.generation != from || progress.step > STEP_MAX || tcb->buffered_bytes == 0)
        return false;
    step_set(web, tcb, progress.step);
    return true;
}

static void *web_lay_out(struct layout *layout, const void *data)
{
    struct web *web = layout_take(layout, sizeof(*web));
    (void)data;
    if (web != NULL)
        web->date_s = -1;
    return web;
}

/* With what it follows answers with. */
static void *web_lay_out_followed(struct layout *layout, const void *data)
{
    struct web *web = web_lay_out(layout, NULL);
    struct access_log *log = layout_take(layout, sizeof(*log)), scratch;
    access_log_lay_out(log != NULL ? log : &scratch, layout, data);
    if (web != NULL)
        web->log = log;
    return web;
}

static void *web_lay_out_tables(struct layout *layout, const struct image *image)
{
    struct web_tables *tables = layout_take(layout, sizeof(*tables));
    uint32_t *uses = layout_take(layout, image->header->response_count * sizeof(*uses));
    struct head_place *places = head_memo_lay_out(layout);
    if (tables != NULL)
        *tables = (struct web_tables){.response_uses = uses, .places = places};
    return tables;
}

static void *web_lay_out_tables_followed(struct layout *layout, const struct image *image)
{
    struct web_tables *tables = web_lay_out_tables(layout, image);
    struct access_tables *followed = access_tables_lay_out(layout, image);
    if (tables != NULL)
        tables->followed = followed;
    return tables;
}

static void web_swapped(void *state)
{
    struct web *web = state;
    const struct generations *generations = &web->tcpip->generations;
    take_from(web, generations->newest);
    web->memo =
        (struct head_memo){.places = ((const struct web_tables *)generation_newest(generations)->app)->places};
    bool prefetches = web->image->header->route_count >= WEB_PREFETCH_ROUTES_MIN;
    web->tcpip->prefetch_steps = prefetches ? WEB_PREFETCH_STEPS : 0;
}

static void web_swapped_followed(void *state)
{
    struct web *web = state;
    web_swapped(state);
    const struct web_tables *tables = generation_newest(&web->tcpip->generations)->app;
    access_log_swapped(web->log, web->image, tables->followed);
}

static void web_init(void *state, struct tcpip *tcpip, const void *data)
{
    struct web *web = state;
    (void)data;
    web->tcpip = tcpip;
    head_patch_init(web);
}

static void web_init_followed(void *state, struct tcpip *tcpip, const void *data)
{
    struct web *web = state;
    web_init(state, tcpip, NULL);
    access_log_init(web->log, data);
}

static void web_clock(void *state, int64_t wall_s)
{
    struct web *web = state;
    web->wall_s = wall_s;
    if (web->date_s == wall_s)
        return;
    web->date_s = wall_s;
    date_format(wall_s, web->date_text);
    web->date_sum = checksum_sum(web->date_text, SSI_DATE_BYTES);
}

static void web_clock_followed(void *state, int64_t wall_s)
{
    web_clock(state, wall_s);
    access_log_take_back(((struct web *)state)->log);
}

/* The first frame of an answer is sent: it alone is patched. */
static uint64_t head_patch_followed(const struct tcpip *tcpip, const struct response_slice *slice, uint64_t offset,
                                    uint8_t *dst, uint32_t len_bytes)
{
    const struct web *web = tcpip->app_state;
    if ((slice->at_end & SLICE_FOLLOWED) != 0) {
        struct access_entry *entry = &web->log->entries[slice->at_end >> SLICE_NUMBER_SHIFT];
        if (entry->first_sent_us == 0)
            entry->first_sent_us = tcpip->now_us;
    }
    return head_patch(tcpip, slice, offset, dst, len_bytes);
}

static const uint64_t *web_counters(const void *state)
{
    return (const uint64_t *)&((const struct web *)state)->counters;
}

static const uint32_t *web_response_uses(const void *state)
{
    return ((const struct web *)state)->response_uses;
}

static const char *const counter_names[] = {WEB_COUNTERS(COUNTER_NAME)};

const struct tcpip_app web_app = {.lay_out = web_lay_out,
                                  .lay_out_tables = web_lay_out_tables,
                                  .swapped = web_swapped,
                                  .pending_generation = web_pending_generation,
                                  .resume = web_resume,
                                  .init = web_init,
                                  .clock = web_clock,
                                  .counters = web_counters,
                                  .counter_names = counter_names,
                                  .counter_count = sizeof(counter_names) / sizeof(counter_names[0]),
                                  .response_uses = web_response_uses,
                                  .receive = web_receive,
                                  .timeout = web_timeout,
                                  .has_pending_response = web_has_pending_response,
                                  .patch = head_patch,
                                  .prefetch = web_prefetch};

const struct tcpip_app web_followed_app = {.lay_out = web_lay_out_followed,
                                           .lay_out_tables = web_lay_out_tables_followed,
                                           .swapped = web_swapped_followed,
                                           .pending_generation = web_pending_generation,
                                           .resume = web_resume,
                                           .init = web_init_followed,
                                           .clock = web_clock_followed,
                                           .counters = web_counters,
                                           .counter_names = counter_names,
                                           .counter_count = sizeof(counter_names) / sizeof(counter_names[0]),
                                           .response_uses = web_response_uses,
                                           .receive = web_receive_followed,
                                           .timeout = web_timeout_followed,
                                           .has_pending_response = web_has_pending_response,
                                           .patch = head_patch_followed,
                                           .slice_end = access_log_slice_end,
                                           .prefetch = web_prefetch};
