#define _GNU_SOURCE
#include "region.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void nmio_prefer_huge_pages(void *memory, size_t bytes)
{
#ifdef MADV_HUGEPAGE
    if (bytes >= NMIO_HUGE_PAGE_BYTES)
        madvise(memory, bytes, MADV_HUGEPAGE); /* refused where the system has none: then pages are small */
#else
    (void)memory;
    (void)bytes;
#endif
}

static size_t pages(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (bytes + page - 1) / page * page;
}

void *nmio_alloc(size_t bytes)
{
    size_t align = bytes < NMIO_HUGE_PAGE_BYTES ? NMIO_CACHE_LINE_BYTES : NMIO_HUGE_PAGE_BYTES;
    size_t whole = (bytes + align - 1) / align * align;
    void *memory = aligned_alloc(align, whole);
    if (memory == NULL)
        return NULL;
    nmio_prefer_huge_pages(memory, whole);
    memset(memory, 0, whole);
    return memory;
}

void nmio_free(void *memory)
{
    free(memory);
}

void *nmio_alloc_shared(size_t bytes)
{
    void *memory = mmap(NULL, pages(bytes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    nmio_prefer_huge_pages(memory, bytes);
    return memory;
}

void nmio_free_shared(void *memory, size_t bytes)
{
    if (memory != NULL)
        munmap(memory, pages(bytes));
}

static size_t huge_pages(uint64_t bytes)
{
    return (bytes + NMIO_HUGE_PAGE_BYTES - 1) / NMIO_HUGE_PAGE_BYTES * NMIO_HUGE_PAGE_BYTES;
}

void *nmio_huge_alloc(uint64_t bytes)
{
#ifdef MAP_HUGETLB
    const int page_size = 21 << 26; /* MAP_HUGE_2MB, by its documentation: not in every system's headers */
    void *memory = mmap(NULL, huge_pages(bytes), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_POPULATE | page_size, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
#else
    (void)bytes;
    return NULL;
#endif
}

void nmio_huge_free(void *memory, uint64_t bytes)
{
    munmap(memory, huge_pages(bytes));
}

/* Slots begin on a page: the buffers in front of them fill whole pages. */
static uint32_t whole_pages_of_chunks(uint32_t count, uint32_t chunk_bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    while ((size_t)count * chunk_bytes % page != 0)
        count++;
    return count;
}

/* Address space that begins where a huge page can. */
static uint8_t *reserve(size_t bytes)
{
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    size_t with_edges = bytes + NMIO_HUGE_PAGE_BYTES;
    uint8_t *all = mmap(NULL, with_edges, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (all == MAP_FAILED)
        return NULL;
    size_t before = -(uintptr_t)all % NMIO_HUGE_PAGE_BYTES;
    if (before > 0)
        munmap(all, before);
    munmap(all + before + bytes, with_edges - before - bytes);
    return all + before;
}

int nmio_region_create(struct nmio_region *region, uint32_t chunk_bytes, uint32_t buffer_count, uint32_t slot_count,
                       uint32_t spare_count)
{
    memset(region, 0, sizeof(*region));
    buffer_count = whole_pages_of_chunks(buffer_count, chunk_bytes);
    uint64_t chunk_count = (uint64_t)buffer_count + slot_count + spare_count;
    if (chunk_count >= NMIO_NONE)
        return -EFBIG;
    region->chunk_bytes = chunk_bytes;
    region->first_slot = region->buffer_count = buffer_count;
    region->slot_count = slot_count + spare_count;
    region->resident_count = slot_count;
    region->chunk_count = (uint32_t)chunk_count;
    region->base = reserve(pages(chunk_count * chunk_bytes));
    region->free_buffers = nmio_alloc(buffer_count * sizeof(uint32_t));
    region->in_flight = nmio_alloc(chunk_count);
    if (region->base == NULL || region->free_buffers == NULL || region->in_flight == NULL) {
        nmio_region_destroy(region);
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < buffer_count; i++)
        region->free_buffers[i] = buffer_count - 1 - i;
    region->free_count = buffer_count;
    return 0;
}

int nmio_region_share(struct nmio_region *region)
{
    size_t bytes = pages((size_t)region->chunk_count * region->chunk_bytes);
    void *shared = mmap(region->base, bytes, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    return shared == MAP_FAILED ? -errno : 0;
}

static size_t slots_bytes(const struct nmio_region *region)
{
    return (size_t)region->resident_count * region->chunk_bytes;
}

int nmio_region_map(struct nmio_region *region, int fd, uint64_t slots_offset)
{
    uint8_t *slots = nmio_chunk(region, region->first_slot);
    if (region->resident_count == 0)
        return 0;
    /* The last page of the file may go on with its tables: the first spare begins in it, and that is harmless, as
     * spares are written before they are sent. */
    void *mapped = mmap(slots, slots_bytes(region), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE,
                        fd, (off_t)slots_offset);
    return mapped == MAP_FAILED ? -errno : 0;
}

int nmio_region_read(struct nmio_region *region, int fd, uint64_t slots_offset)
{
    uint8_t *slots = nmio_chunk(region, region->first_slot);
    nmio_prefer_huge_pages(region->base, pages((size_t)region->chunk_count * region->chunk_bytes));
    for (size_t done = 0; done < slots_bytes(region);) {
        ssize_t got = pread(fd, slots + done, slots_bytes(region) - done, (off_t)(slots_offset + done));
        if (got < 0 && errno != EINTR)
            return -errno;
        if (got == 0)
            return -EIO; /* the file has become shorter */
        if (got > 0)
            done += (size_t)got;
    }
    return 0;
}

void nmio_region_destroy(struct nmio_region *region)
{
    if (region->base != NULL)
        munmap(region->base, pages((size_t)region->chunk_count * region->chunk_bytes));
    nmio_free(region->free_buffers);
    nmio_free(region->in_flight);
    memset(region, 0, sizeof(*region));
}

int nmio_tx_create(struct nmio_tx *tx, uint32_t capacity)
{
    memset(tx, 0, sizeof(*tx));
    tx->capacity = capacity;
    tx->piece_capacity = capacity * NMIO_PIECES_MAX;
    tx->space = capacity;
    tx->desc = nmio_alloc(capacity * sizeof(*tx->desc));
    tx->piece = nmio_alloc(tx->piece_capacity * sizeof(*tx->piece));
    if (tx->desc != NULL && tx->piece != NULL)
        return 0;
    nmio_tx_destroy(tx);
    return -ENOMEM;
}

void nmio_tx_destroy(struct nmio_tx *tx)
{
    nmio_free(tx->desc);
    nmio_free(tx->piece);
    memset(tx, 0, sizeof(*tx));
}
