/* The web: for each request picks one of the answers that were made at build time. */
#include "http_parse.h"
#include "image/date.h"
#include "stack_internal.h"

#define DRAIN_BYTES_MAX                                                                                              \
    65536 /* a request's body is read and forgotten up to this; a longer one ends the connection */

static void count_status(struct stack *stack, uint32_t status)
{
    static const enum counter by_class[] = {COUNTER_http_status_2xx, COUNTER_http_status_3xx, COUNTER_http_status_4xx,
                                            COUNTER_http_status_5xx};
    stack->counters[by_class[status / 100 - 2]]++;
}

/* Queues a response. close: the connection ends with it. */
static void web_write(struct stack *stack, struct tcb *tcb, uint32_t response_index, bool close)
{
    const struct ssi_response *response = &stack->image->responses[response_index];
    struct tcp_span span = {.first_frame = response->first_frame,
                            .date_s = (uint32_t)stack->wall_s,
                            .date_offset = response->date_offset,
                            .connection_offset = response->connection_offset,
                            .close = close};
    count_status(stack, response->status);
    tcpip_write(stack, tcb, &span, response->stream_bytes);
    if (close)
        tcpip_finish(stack, tcb);
}

/* The site's answer for a status; an image without one gets a bare close. */
static void write_error(struct stack *stack, struct tcb *tcb, uint32_t status, bool head, bool close)
{
    const struct ssi_error *error = stack->errors[status];
    if (error != NULL)
        web_write(stack, tcb, head ? error->head_response : error->get_response, close);
    else
        tcpip_finish(stack, tcb);
}

/* The acceptable variant of the greatest weight; among equals the first, as the image has them in order of
 * preference. If none is acceptable the unencoded one is sent, RFC 9110 section 12.5.3. */
static const struct ssi_variant *choose_variant(const struct stack *stack, const struct ssi_route *route,
                                                struct http_text accept_encoding)
{
    const struct ssi_variant *variants = &stack->image->variants[route->first_variant];
    uint16_t weights[SSI_ENCODING_COUNT];
    if (route->variant_count == 1)
        return variants;
    http_accept_encoding(accept_encoding, weights);
    const struct ssi_variant *best = NULL, *identity = variants;
    for (uint32_t i = 0; i < route->variant_count; i++) {
        if (variants[i].encoding == SSI_ENCODING_IDENTITY)
            identity = &variants[i];
        uint16_t weight = weights[variants[i].encoding];
        if (weight > 0 && (best == NULL || weight > weights[best->encoding]))
            best = &variants[i];
    }
    return best != NULL ? best : identity;
}

/* RFC 9110 section 13.2.2, for what GET and HEAD have of it: If-None-Match, or else If-Modified-Since. */
static bool is_not_modified(const struct stack *stack, const struct ssi_variant *variant,
                            const struct http_request *request)
{
    if (variant->not_modified_response == SSI_NONE)
        return false;
    if (request->if_none_match.data != NULL)
        return http_etag_listed(request->if_none_match, stack->image->strings + variant->etag_offset,
                                variant->etag_bytes);
    int64_t since;
    return variant->last_modified_s >= 0 && request->if_modified_since.data != NULL &&
           date_parse(request->if_modified_since.data, request->if_modified_since.len_bytes, stack->wall_s, &since) &&
           variant->last_modified_s <= since;
}

static void answer(struct stack *stack, struct tcb *tcb, const struct http_request *request)
{
    bool head = request->method == HTTP_HEAD;
    if (request->method == HTTP_OTHER || request->method == HTTP_UNKNOWN) {
        write_error(stack, tcb, request->method == HTTP_OTHER ? 405 : 501, false, request->close);
        return;
    }
    const struct ssi_route *route = image_route_find(stack->image, request->path, request->path_bytes);
    if (route == NULL) {
        write_error(stack, tcb, 404, head, request->close);
        return;
    }
    const struct ssi_variant *variant = choose_variant(stack, route, request->accept_encoding);
    uint32_t response = head ? variant->head_response : variant->get_response;
    if (is_not_modified(stack, variant, request))
        response = variant->not_modified_response;
    web_write(stack, tcb, response, request->close);
}

/* Bytes of a body, read and forgotten. tcb->app counts what is left of it. */
static uint32_t drain(struct tcb *tcb, uint32_t len_bytes)
{
    uint32_t taken = tcb->app < len_bytes ? (uint32_t)tcb->app : len_bytes;
    tcb->app -= taken;
    return taken;
}

static uint32_t web_recv(struct stack *stack, struct tcb *tcb, const uint8_t *data, uint32_t len_bytes)
{
    uint32_t taken = drain(tcb, len_bytes);
    while (taken < len_bytes && tcpip_can_write(tcb)) {
        struct http_request request;
        int status = http_parse(data + taken, len_bytes - taken, TCB_REQUEST_BYTES, &request);
        if (status == HTTP_PARTIAL)
            break;
        COUNT(stack, http_requests);
        if (status < 0) {
            COUNT(stack, http_bad_requests);
            write_error(stack, tcb, (uint32_t)-status, request.method == HTTP_HEAD, true);
            break;
        }
        taken += (uint32_t)status;
        /* A body whose end we would have to wait for, or don't know, is not read: the answer says close. */
        if (request.chunked || request.content_length > DRAIN_BYTES_MAX ||
            (request.expect_continue && request.content_length > 0))
            request.close = true;
        tcb->app = request.content_length;
        answer(stack, tcb, &request);
        taken += drain(tcb, len_bytes - taken);
    }
    return taken;
}

static void web_timeout(struct stack *stack, struct tcb *tcb, bool request_begun)
{
    if (request_begun && tcpip_can_write(tcb))
        write_error(stack, tcb, 408, false, true);
}

const struct stack_app web_app = {.receive = web_recv, .timeout = web_timeout};
