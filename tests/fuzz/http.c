/* The request parser, and the fields that it hands on: the verdict must not depend on how the bytes were cut. */
#include "harness.h"
#include "web/http_parse.h"

#define HEAD_BYTES_MAX 16384

/* On the heap, exactly so long. */
static int parse(const uint8_t *data, size_t size, struct http_request *request)
{
    uint8_t *copy = malloc(size > 0 ? size : 1);
    CHECK(copy != NULL);
    memcpy(copy, data, size);
    int verdict = http_parse(copy, (uint32_t)size, HEAD_BYTES_MAX, request);
    CHECK(verdict <= (int)size);
    if (verdict > 0) {
        uint16_t weights[8] = {0};
        CHECK(request->path_bytes <= HTTP_PATH_BYTES_MAX);
        CHECK(request->path_bytes == 0 || memchr(request->path, 0, request->path_bytes) == NULL);
        if (request->accept_encoding.data != NULL)
            http_accept_encoding(request->accept_encoding, weights);
        if (request->if_none_match.data != NULL)
            http_etag_listed(request->if_none_match, (const uint8_t *)"\"tag\"", 5);
    }
    free(copy);
    return verdict;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct http_request request;
    if (size > HEAD_BYTES_MAX)
        return 0;
    int whole = parse(data, size, &request);
    for (size_t cut = 0; cut < size; cut += 1 + size / 16) {
        int part = parse(data, cut, &request);
        CHECK(part == HTTP_PARTIAL || part == whole);
    }
    return 0;
}
