/* The request parser, and the fields that it hands on: the verdict must not depend on how the bytes were cut. Requests lie
 * between two pages that nobody may touch, against the one or the other. */
#define _GNU_SOURCE /* memmem */
#include <sys/mman.h>
#include <unistd.h>

#include "harness.h"
#include "web/http_parse.h"

#define HEAD_BYTES_MAX 16384

/* A copy of a field that ends where it ends. */
static struct http_text alone(struct http_text field)
{
    uint8_t *copy = malloc(field.len_bytes > 0 ? field.len_bytes : 1);
    CHECK(copy != NULL);
    memcpy(copy, field.data, field.len_bytes);
    return (struct http_text){copy, field.len_bytes};
}

/* Whatever is asked for lies inside the body, and is no more than it. */
static void check_ranges(struct http_text field)
{
    static const uint64_t sizes[] = {0, 1, 1000, UINT64_MAX / 2};
    struct http_text copy = alone(field);
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        struct http_range ranges[HTTP_RANGES_MAX];
        int count = http_ranges(copy, sizes[s], ranges);
        uint64_t total = 0;
        CHECK(count >= HTTP_RANGES_IGNORED && count <= HTTP_RANGES_MAX);
        for (int i = 0; i < count; i++) {
            CHECK(ranges[i].first <= ranges[i].last && ranges[i].last < sizes[s]);
            total += ranges[i].last - ranges[i].first + 1;
        }
        CHECK(total <= sizes[s]);
    }
    free((void *)(uintptr_t)copy.data);
}

/* Room for a request with a guard page on either side. */
static uint8_t *guarded_room(void)
{
    static uint8_t *room;
    if (room == NULL) {
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        uint8_t *all = mmap(NULL, HEAD_BYTES_MAX + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(all != MAP_FAILED && HEAD_BYTES_MAX % page == 0);
        CHECK(mprotect(all + page, HEAD_BYTES_MAX, PROT_READ | PROT_WRITE) == 0);
        room = all + page;
    }
    return room;
}

static int parse(const uint8_t *data, size_t size, bool at_end, bool merge_slashes, struct http_request *request)
{
    uint8_t *copy = guarded_room() + (at_end ? HEAD_BYTES_MAX - size : 0);
    memcpy(copy, data, size);
    int verdict = http_parse(copy, (uint32_t)size, HEAD_BYTES_MAX, merge_slashes, request);
    CHECK(verdict <= (int)size);
    if (verdict > 0) {
        bool asterisk = request->asterisk;
        bool doubled = memmem(request->path.data, request->path.len_bytes, "//", 2) != NULL;
        CHECK(asterisk || request->path.data[0] == '/');
        CHECK(!merge_slashes || !doubled);
        uint16_t weights[8] = {0};
        CHECK(request->path.len_bytes <= HTTP_PATH_BYTES_MAX);
        CHECK(request->path.len_bytes == 0 || memchr(request->path.data, 0, request->path.len_bytes) == NULL);
        http_accept_encoding(&request->accept_encoding, weights);
        http_etag_listed(&request->if_none_match, (const uint8_t *)"\"tag\"", 5, false);
        http_etag_listed(&request->if_match, (const uint8_t *)"\"tag\"", 5, true);
        if (request->range.data != NULL)
            check_ranges(request->range);
    }
    return verdict;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The verdict on a head of which each piece is looked at when it is there, as web.c does it. */
static int in_pieces(const uint8_t *data, size_t size, size_t piece, bool merge_slashes)
{
    static struct http_request request;
    for (size_t seen = 0; seen < size;) {
        size_t here = seen + piece < size ? seen + piece : size;
        uint8_t *copy = guarded_room() + HEAD_BYTES_MAX - here;
        memcpy(copy, data, here);
        if (seen == 0 || http_worth_parsing(copy, (uint32_t)here, HEAD_BYTES_MAX, (uint32_t)seen)) {
            int verdict = parse(data, here, true, merge_slashes, &request);
            if (verdict != HTTP_PARTIAL)
                return verdict;
        }
        seen = here;
    }
    return HTTP_PARTIAL;
}

/* Only what fields say to each other may be left for when the head is whole. */
static void check_pieces(const uint8_t *data, size_t size, bool merge_slashes, int whole)
{
    size_t start = 0;
    while (start < size && (data[start] == '\r' || data[start] == '\n'))
        start++;
    bool ended = memmem(data + start, size - start, "\r\n\r\n", 4) != NULL;
    for (size_t piece = 1 + size / 200; piece < size; piece += 1 + size / 3) {
        int verdict = in_pieces(data, size, piece, merge_slashes);
        CHECK(verdict == whole || (verdict == HTTP_PARTIAL && whole < 0 && !ended));
    }
}

/* Slashes as they are, or merged: neither changes what a head is, but for how far up its dots lead. */
static void check(const uint8_t *data, size_t size, bool merge_slashes)
{
    static struct http_request request;
    int whole = parse(data, size, true, merge_slashes, &request);
    CHECK(parse(data, size, false, merge_slashes, &request) == whole);
    for (size_t cut = 0; cut < size; cut += 1 + size / 16) {
        int part = parse(data, cut, true, merge_slashes, &request);
        CHECK(part == HTTP_PARTIAL || part == whole);
    }
    check_pieces(data, size, merge_slashes, whole);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > HEAD_BYTES_MAX)
        return 0;
    check(data, size, false);
    check(data, size, true);
    return 0;
}
