/* Set-up of a region: address space with buffers, the image's slots, and spares. */
#ifndef SANDSTORM_REGION_H
#define SANDSTORM_REGION_H

#include "nmio.h"

/* Lays out buffer_count buffers, room for slot_count slots of an image, and spare_count spares, all of chunk_bytes; all
 * is zero. Without slots the arena is a cache. Returns 0, -ENOMEM, or -EFBIG where chunks can't be counted. */
int nmio_region_create(struct nmio_region *region, uint32_t chunk_bytes, uint32_t buffer_count, uint32_t slot_count,
                       uint32_t spare_count);
/* The slots as a private mapping of the file fd from slots_offset on (page-aligned): the kernel copies what is patched,
 * a page at a time, when it is patched. Returns 0, or -errno. */
int nmio_region_map(struct nmio_region *region, int fd, uint64_t slots_offset);
/* The slots read from the file, into huge pages if there are any: for a port that makes the whole region resident, and
 * for frames in no order, which are then found without a walk through page tables. Returns 0, or -errno. */
int nmio_region_read(struct nmio_region *region, int fd, uint64_t slots_offset);
/* Before either: the region is memory that a process shares with those that it forks, as the kernel wants it that has been told to
 * send from it. Returns 0, or -errno. */
int nmio_region_share(struct nmio_region *region);
void nmio_region_destroy(struct nmio_region *region);

/* Asks for huge pages behind a mapping of some size, so that what lies at random in it is found without a walk through
 * page tables. */
void nmio_prefer_huge_pages(void *memory, size_t bytes);

/* Zeroed memory that begins and ends on cache lines of its own, so that no two workers write to the same one; large memory
 * on huge pages, if there are any. NULL without memory. */
void *nmio_alloc(size_t bytes);
void nmio_free(void *memory);

/* Zeroed memory that a process shares with those that it forks. What lies there is for numbers: whoever has more rights must follow no
 * pointer and call no function that one with fewer could have written there. Pages are taken when they are used first. NULL without
 * memory. */
void *nmio_alloc_shared(size_t bytes);
void nmio_free_shared(void *memory, size_t bytes);

/* Zeroed memory of huge pages, which are physically one piece each; NULL where too few are reserved, or the system has none. */
#define NMIO_HUGE_PAGE_BYTES 2097152
void *nmio_huge_alloc(uint64_t bytes);
void nmio_huge_free(void *memory, uint64_t bytes);

/* Room for capacity descriptors. Returns 0, or -ENOMEM. */
int nmio_tx_create(struct nmio_tx *tx, uint32_t capacity);
void nmio_tx_destroy(struct nmio_tx *tx);

#endif
