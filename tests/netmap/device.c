#define _GNU_SOURCE
#include "device.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libnmio/netmap_abi.h"

#define PAGE_BYTES 4096
#define HANDLES_MAX 8
#define RINGS_MAX 8
#define KRINGS_MAX (2 * (RINGS_MAX + 1))
#define FIRST_FD 1000
#define QUEUE_FRAMES 4096
#define POISON 0xa5 /* what lies in buffers that are not the application's */

/* Frames on their way between the device and the world. */
struct queue {
    uint8_t *frames; /* [QUEUE_FRAMES][frame_bytes], a ring */
    uint32_t len_bytes[QUEUE_FRAMES];
    uint32_t frame_bytes, first, count;
};

/* What the kernel knows of a ring. Slots in [hwcur, hwtail) are the application's, all others the kernel's. */
struct kring {
    struct nm_abi_ring *ring;
    struct nm_abi_ring sealed; /* what only the kernel writes, as it was at the last sync */
    struct nm_abi_slot *seen;  /* [slots], as they were then */
    uint32_t *loaded;          /* [slots], the buffers that it works with */
    struct queue *queue;
    uint64_t *due, *digest; /* [slots], of frames that leave */
    uint64_t syncs, max_offset;
    uint32_t hwcur, hwtail;
    uint32_t delay, room_bytes; /* to receive into, of a buffer */
    int handle; /* that has bound it, or -1 */
    bool tx;
    char name[24];
};

struct handle {
    bool open, bound, mapped;
    struct nm_abi_if *nif;
};

struct device {
    struct device_options options;
    struct netmap_system system;
    uint8_t *memory, *buffers; /* in use: its own, or the application's */
    uint64_t memory_bytes;
    uint8_t *own_memory;
    uint32_t buffer_count;
    uint8_t *granted;   /* [buffer_count] to the application */
    uint8_t *in_flight; /* [buffer_count] it is the kernel's at the moment */
    struct kring kring[KRINGS_MAX]; /* TX, host TX, RX, host RX */
    struct queue from_wire[RINGS_MAX], to_wire, from_host, to_host;
    struct handle handle[HANDLES_MAX];
    uint64_t violations;
    char first_violation[160];
};

__attribute__((format(printf, 2, 3))) static void violation(struct device *device, const char *format, ...)
{
    va_list arguments;
    if (device->violations++ > 0)
        return;
    va_start(arguments, format);
    vsnprintf(device->first_violation, sizeof(device->first_violation), format, arguments);
    va_end(arguments);
}

uint64_t device_violations(const struct device *device)
{
    return device->violations;
}

const char *device_first_violation(const struct device *device)
{
    return device->first_violation;
}

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    if (memory == NULL)
        abort();
    return memory;
}

/* Queues. */

static void queue_open(struct queue *queue, uint32_t frame_bytes)
{
    queue->frame_bytes = frame_bytes;
    queue->frames = allocate(QUEUE_FRAMES, frame_bytes);
}

static bool queue_put(struct queue *queue, const uint8_t *frame, uint32_t len_bytes)
{
    if (queue->count == QUEUE_FRAMES || len_bytes > queue->frame_bytes)
        return false;
    uint32_t at = (queue->first + queue->count++) % QUEUE_FRAMES;
    memcpy(queue->frames + (size_t)at * queue->frame_bytes, frame, len_bytes);
    queue->len_bytes[at] = len_bytes;
    return true;
}

static uint32_t queue_get(struct queue *queue, uint8_t *frame, uint32_t size)
{
    if (queue->count == 0 || queue->len_bytes[queue->first] > size)
        return 0;
    uint32_t len_bytes = queue->len_bytes[queue->first];
    memcpy(frame, queue->frames + (size_t)queue->first * queue->frame_bytes, len_bytes);
    queue->first = (queue->first + 1) % QUEUE_FRAMES;
    queue->count--;
    return len_bytes;
}

bool device_feed(struct device *device, uint32_t ring, const uint8_t *frame, uint32_t len_bytes)
{
    return queue_put(&device->from_wire[ring], frame, len_bytes);
}

bool device_feed_host(struct device *device, const uint8_t *frame, uint32_t len_bytes)
{
    return queue_put(&device->from_host, frame, len_bytes);
}

uint32_t device_take(struct device *device, uint8_t *frame, uint32_t size)
{
    return queue_get(&device->to_wire, frame, size);
}

uint32_t device_take_host(struct device *device, uint8_t *frame, uint32_t size)
{
    return queue_get(&device->to_host, frame, size);
}

/* Buffers. */

static uint8_t *buffer_at(struct device *device, uint32_t index)
{
    return device->buffers + (size_t)index * device->options.buffer_bytes;
}

/* FNV-1a over words: enough to see that something changed. */
static uint64_t digest_of(struct device *device, uint32_t index)
{
    uint64_t hash = 0xcbf29ce484222325, word;
    const uint8_t *buffer = buffer_at(device, index);
    for (uint32_t i = 0; i < device->options.buffer_bytes; i += (uint32_t)sizeof(word)) {
        memcpy(&word, buffer + i, sizeof(word));
        hash = (hash ^ word) * 0x100000001b3;
    }
    return hash;
}

static void poison(struct device *device, uint32_t index)
{
    memset(buffer_at(device, index), POISON, device->options.buffer_bytes);
}

static bool is_poisoned(struct device *device, uint32_t index)
{
    const uint8_t *buffer = buffer_at(device, index);
    return buffer[0] == POISON && memcmp(buffer, buffer + 1, device->options.buffer_bytes - 1) == 0;
}

/* A buffer of nobody's; 0 if there is none. */
static uint32_t grant(struct device *device)
{
    for (uint32_t index = 2; index < device->buffer_count; index++) {
        if (device->granted[index] == 0) {
            device->granted[index] = 1;
            return index;
        }
    }
    return 0;
}

/* Rings. */

static uint32_t next_slot(const struct device *device, uint32_t slot)
{
    return slot + 1 < device->options.slots ? slot + 1 : 0;
}

static uint32_t distance(const struct device *device, uint32_t from, uint32_t to)
{
    return to >= from ? to - from : to + device->options.slots - from;
}

/* Does a slot lie in [from, to)? */
static bool is_within(const struct device *device, uint32_t slot, uint32_t from, uint32_t to)
{
    return distance(device, from, slot) < distance(device, from, to);
}

/* The application has not touched what it may only read. */
static void check_sealed(struct device *device, struct kring *kring)
{
    struct nm_abi_ring now = *kring->ring, *was = &kring->sealed;
    was->head = now.head;
    was->cur = now.cur;
    was->flags = now.flags;
    if (memcmp(&now, was, sizeof(now)) != 0)
        violation(device, "%s: a field of the ring that is the kernel's was written", kring->name);
    for (uint32_t s = 0; s < device->options.slots; s++)
        if (!is_within(device, s, kring->hwcur, kring->hwtail) &&
            memcmp(&kring->ring->slot[s], &kring->seen[s], sizeof(struct nm_abi_slot)) != 0)
            violation(device, "%s: slot %u was written, which is the kernel's", kring->name, s);
}

/* False: nothing of the ring can be believed. */
static bool check_bounds(struct device *device, const struct kring *kring)
{
    uint32_t head = kring->ring->head, cur = kring->ring->cur, slots = device->options.slots;
    if (head >= slots || distance(device, kring->hwcur, head) > distance(device, kring->hwcur, kring->hwtail)) {
        violation(device, "%s: head %u is outside [%u, %u]", kring->name, head, kring->hwcur, kring->hwtail);
        return false;
    }
    if (cur >= slots || distance(device, head, cur) > distance(device, head, kring->hwtail)) {
        violation(device, "%s: cur %u is outside [%u, %u]", kring->name, cur, head, kring->hwtail);
        return false;
    }
    return true;
}

/* A slot that the application gives to the kernel. False: its buffer can't be used. */
static bool check_given(struct device *device, const struct kring *kring, uint32_t s)
{
    const struct nm_abi_slot *slot = &kring->ring->slot[s];
    if (slot->buf_idx < 2 || slot->buf_idx >= device->buffer_count) {
        violation(device, "%s: slot %u has buffer %u, which there isn't", kring->name, s, slot->buf_idx);
        return false;
    }
    if (!device->granted[slot->buf_idx]) {
        violation(device, "%s: slot %u has buffer %u, which is nobody's", kring->name, s, slot->buf_idx);
        return false;
    }
    if (slot->buf_idx != kring->loaded[s] && (slot->flags & NM_ABI_BUF_CHANGED) == 0)
        violation(device, "%s: slot %u has another buffer, and no flag says so", kring->name, s);
    if (device->in_flight[slot->buf_idx]) {
        violation(device, "%s: buffer %u is in two slots at once", kring->name, slot->buf_idx);
        return false;
    }
    return true;
}

static uint64_t offset_of(const struct kring *kring, uint32_t s)
{
    return kring->ring->slot[s].ptr & kring->ring->offset_mask;
}

/* The application's frame in a slot begins its way. */
static void launch(struct device *device, struct kring *kring, uint32_t s)
{
    const struct nm_abi_slot *slot = &kring->ring->slot[s];
    kring->due[s] = 0; /* nothing leaves */
    if (!check_given(device, kring, s))
        return;
    kring->loaded[s] = slot->buf_idx;
    uint64_t offset = offset_of(kring, s);
    if (offset > kring->max_offset)
        violation(device, "%s: slot %u has an offset of more than was agreed on", kring->name, s);
    else if (slot->len < 14 || offset + slot->len > device->options.buffer_bytes)
        violation(device, "%s: slot %u has %u bytes, which its buffer has not", kring->name, s, slot->len);
    else
        kring->due[s] = kring->delay == UINT32_MAX ? UINT64_MAX : kring->syncs + kring->delay;
    kring->digest[s] = digest_of(device, slot->buf_idx);
    device->in_flight[slot->buf_idx] = kring->due[s] != 0;
}

/* A frame leaves. False: the world has no room for it yet. */
static bool land(struct device *device, struct kring *kring, uint32_t s)
{
    const struct nm_abi_slot *slot = &kring->ring->slot[s];
    if (kring->due[s] == 0)
        return true;
    if (!queue_put(kring->queue, buffer_at(device, slot->buf_idx) + offset_of(kring, s), slot->len))
        return false;
    if (digest_of(device, slot->buf_idx) != kring->digest[s])
        violation(device, "%s: buffer %u of slot %u changed in flight", kring->name, slot->buf_idx, s);
    device->in_flight[slot->buf_idx] = 0;
    return true;
}

static void sync_end(struct device *device, struct kring *kring)
{
    kring->ring->tail = kring->hwtail;
    memcpy(&kring->sealed, kring->ring, sizeof(kring->sealed));
    memcpy(kring->seen, kring->ring->slot, device->options.slots * sizeof(struct nm_abi_slot));
}

static void sync_tx(struct device *device, struct kring *kring)
{
    kring->syncs++;
    check_sealed(device, kring);
    if (!check_bounds(device, kring))
        return;
    for (; kring->hwcur != kring->ring->head; kring->hwcur = next_slot(device, kring->hwcur)) {
        launch(device, kring, kring->hwcur);
        kring->ring->slot[kring->hwcur].flags &= (uint16_t)~NM_ABI_BUF_CHANGED;
    }
    for (uint32_t s = next_slot(device, kring->hwtail); s != kring->hwcur; s = next_slot(device, s)) {
        if (kring->due[s] > kring->syncs || !land(device, kring, s))
            break;
        kring->hwtail = s;
    }
    sync_end(device, kring);
}

/* The kernel has a buffer to receive into. */
static void take_back(struct device *device, struct kring *kring, uint32_t s)
{
    struct nm_abi_slot *slot = &kring->ring->slot[s];
    if (check_given(device, kring, s))
        kring->loaded[s] = slot->buf_idx;
    slot->buf_idx = kring->loaded[s];
    slot->flags &= (uint16_t)~NM_ABI_BUF_CHANGED;
    device->in_flight[slot->buf_idx] = 1;
    poison(device, slot->buf_idx);
}

/* A frame, or a part of it. What is too long for a buffer goes on in the next one. */
static void arrive(struct device *device, struct kring *kring, uint32_t s)
{
    struct nm_abi_slot *slot = &kring->ring->slot[s];
    struct queue *queue = kring->queue;
    uint8_t *frame = queue->frames + (size_t)queue->first * queue->frame_bytes;
    uint32_t left_bytes = queue->len_bytes[queue->first];
    if (!is_poisoned(device, slot->buf_idx))
        violation(device, "%s: buffer %u of slot %u was written, which is the kernel's", kring->name, slot->buf_idx,
                  s);
    slot->len = (uint16_t)(left_bytes < kring->room_bytes ? left_bytes : kring->room_bytes);
    slot->flags = slot->len < left_bytes ? NM_ABI_MORE_FRAGMENTS : 0;
    device->in_flight[slot->buf_idx] = 0;
    memcpy(buffer_at(device, slot->buf_idx), frame, slot->len);
    memmove(frame, frame + slot->len, left_bytes - slot->len);
    queue->len_bytes[queue->first] -= slot->len;
    if (slot->len < left_bytes)
        return;
    queue->first = (queue->first + 1) % QUEUE_FRAMES;
    queue->count--;
}

static void sync_rx(struct device *device, struct kring *kring)
{
    check_sealed(device, kring);
    if (!check_bounds(device, kring))
        return;
    for (; kring->hwcur != kring->ring->head; kring->hwcur = next_slot(device, kring->hwcur))
        take_back(device, kring, kring->hwcur);
    while (kring->queue->count > 0 && next_slot(device, kring->hwtail) != kring->hwcur) {
        arrive(device, kring, kring->hwtail);
        kring->hwtail = next_slot(device, kring->hwtail);
    }
    sync_end(device, kring);
}

/* Binding. */

/* Places in kring, in the order of ring_ofs. */
static uint32_t first_rx(const struct device *device)
{
    return device->options.rings + 1;
}

static uint32_t kring_count(const struct device *device)
{
    return 2 * (device->options.rings + 1);
}

static uint64_t pages(uint64_t bytes)
{
    return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

/* Where everything is in a memory. */
static void lay_out(struct device *device, uint8_t *memory, const struct nm_abi_pools *pools)
{
    uint64_t rings_at = pages((uint64_t)pools->nr_if_pool_objtotal * pools->nr_if_pool_objsize);
    uint64_t buffers_at = rings_at + pages((uint64_t)pools->nr_ring_pool_objtotal * pools->nr_ring_pool_objsize);
    device->memory = memory;
    device->memory_bytes = pools->nr_memsize;
    device->buffers = memory + buffers_at;
    device->options.buffer_bytes = pools->nr_buf_pool_objsize;
    device->buffer_count = pools->nr_buf_pool_objtotal;
    for (uint32_t i = 0; i < HANDLES_MAX; i++)
        device->handle[i].nif = i < pools->nr_if_pool_objtotal
                                    ? (struct nm_abi_if *)(memory + (size_t)i * pools->nr_if_pool_objsize)
                                    : NULL;
    for (uint32_t i = 0; i < kring_count(device); i++)
        device->kring[i].ring = (struct nm_abi_ring *)(memory + rings_at + (size_t)i * pools->nr_ring_pool_objsize);
    free(device->granted);
    free(device->in_flight);
    device->granted = allocate(device->buffer_count, 1);
    device->in_flight = allocate(device->buffer_count, 1);
    for (uint32_t index = 0; index < device->buffer_count; index++)
        poison(device, index);
}

static void lay_out_own(struct device *device, uint32_t buffer_bytes, uint32_t buffer_count)
{
    struct nm_abi_pools pools = {.nr_if_pool_objtotal = HANDLES_MAX,
                                 .nr_if_pool_objsize = PAGE_BYTES,
                                 .nr_ring_pool_objtotal = kring_count(device),
                                 .nr_ring_pool_objsize = (uint32_t)pages(
                                     sizeof(struct nm_abi_ring) + device->options.slots * sizeof(struct nm_abi_slot)),
                                 .nr_buf_pool_objtotal = buffer_count,
                                 .nr_buf_pool_objsize = buffer_bytes};
    pools.nr_memsize = HANDLES_MAX * PAGE_BYTES + (uint64_t)pools.nr_ring_pool_objtotal * pools.nr_ring_pool_objsize +
                       pages((uint64_t)buffer_count * buffer_bytes);
    device->own_memory = aligned_alloc(PAGE_BYTES, pools.nr_memsize);
    if (device->own_memory == NULL)
        abort();
    memset(device->own_memory, 0, pools.nr_memsize);
    lay_out(device, device->own_memory, &pools);
}

struct nm_abi_ring *device_tx_ring(struct device *device, uint32_t ring)
{
    return device->kring[ring].ring;
}

struct nm_abi_ring *device_rx_ring(struct device *device, uint32_t ring)
{
    return device->kring[first_rx(device) + ring].ring;
}

static bool fill_ring(struct device *device, struct kring *kring)
{
    struct nm_abi_ring *ring = kring->ring;
    for (uint32_t s = 0; s < device->options.slots; s++) {
        uint32_t index = grant(device);
        if (index == 0) {
            while (s-- > 0)
                device->granted[ring->slot[s].buf_idx] = device->in_flight[ring->slot[s].buf_idx] = 0;
            return false;
        }
        ring->slot[s] = (struct nm_abi_slot){.buf_idx = index, .len = (uint16_t)device->options.buffer_bytes};
        kring->loaded[s] = index;
        device->in_flight[index] = !kring->tx;
    }
    return true;
}

/* What a request's list of options says. */
struct options_taken {
    uint64_t offset_mask, max_offset;
    const struct nm_abi_extmem *external;
};

/* 0, or -errno. */
static int bind_ring(struct device *device, struct kring *kring, int handle, const struct options_taken *taken)
{
    struct nm_abi_ring *ring = kring->ring;
    if (kring->handle >= 0)
        return -EBUSY;
    memset(ring, 0, sizeof(*ring));
    *ring = (struct nm_abi_ring){.buf_ofs = device->buffers - (uint8_t *)ring,
                                 .num_slots = device->options.slots,
                                 .nr_buf_size = device->options.buffer_bytes,
                                 .dir = kring->tx ? 0 : 1,
                                 .offset_mask = taken->offset_mask};
    kring->handle = handle;
    /* As an e1000 has it: whole KiB of what no offset takes away. */
    kring->room_bytes = (uint32_t)(device->options.buffer_bytes - taken->max_offset) / 1024 * 1024;
    kring->max_offset = taken->max_offset;
    kring->hwcur = 0;
    kring->hwtail = kring->tx ? device->options.slots - 1 : 0;
    if (!fill_ring(device, kring)) {
        kring->handle = -1;
        return -ENOMEM;
    }
    sync_end(device, kring);
    return 0;
}

static bool is_wanted(const struct device *device, const struct nm_abi_register *reg, uint32_t number)
{
    uint32_t ring = number % first_rx(device);
    bool host = ring == device->options.rings, tx = number < first_rx(device);
    if ((reg->nr_flags & (tx ? NM_ABI_RX_ONLY : NM_ABI_TX_ONLY)) != 0)
        return false;
    if (reg->nr_mode == NM_ABI_ONE_NIC)
        return ring == reg->nr_ringid;
    return reg->nr_mode == NM_ABI_NIC_SW || !host;
}

static void describe(struct device *device, struct nm_abi_if *nif, const struct nm_abi_register *reg)
{
    uint32_t rings = device->options.rings;
    *nif = (struct nm_abi_if){.ni_version = NM_ABI_VERSION,
                              .ni_tx_rings = rings,
                              .ni_rx_rings = rings,
                              .ni_host_tx_rings = 1,
                              .ni_host_rx_rings = 1};
    for (uint32_t i = 0; i < kring_count(device); i++)
        nif->ring_ofs[i] = is_wanted(device, reg, i) ? (uint8_t *)device->kring[i].ring - (uint8_t *)nif
                                                     : 0; /* as the kernel says */
}

/* As the kernel makes it, last granted first. */
static void grant_extra(struct device *device, int number, struct nm_abi_register *reg)
{
    uint32_t wanted = reg->nr_extra_bufs < device->options.extra_max ? reg->nr_extra_bufs : device->options.extra_max;
    struct nm_abi_if *nif = device->handle[number].nif;
    for (reg->nr_extra_bufs = 0; reg->nr_extra_bufs < wanted; reg->nr_extra_bufs++) {
        uint32_t index = grant(device);
        if (index == 0)
            return;
        memcpy(buffer_at(device, index), &nif->ni_bufs_head, sizeof(index));
        nif->ni_bufs_head = index;
    }
}

static bool take_option(const struct device *device, const struct nm_abi_option *option, struct options_taken *taken)
{
    if (option->nro_reqtype == NM_ABI_REQ_OPT_EXTMEM && device->options.external) {
        taken->external = (const struct nm_abi_extmem *)option;
        return true;
    }
    if (option->nro_reqtype != NM_ABI_REQ_OPT_OFFSETS || !device->options.offsets)
        return false;
    const struct nm_abi_offsets *offsets = (const struct nm_abi_offsets *)option;
    uint32_t bits = offsets->nro_offset_bits;
    taken->offset_mask = bits == 0 || bits == 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1;
    taken->max_offset = offsets->nro_max_offset;
    return true;
}

static int take_options(const struct device *device, const struct nm_abi_header *header, struct options_taken *taken)
{
    *taken = (struct options_taken){0};
    for (uint64_t at = header->nr_options; at != 0;) {
        struct nm_abi_option *option = (struct nm_abi_option *)(uintptr_t)at;
        option->nro_status = take_option(device, option, taken) ? 0 : EOPNOTSUPP;
        if (option->nro_status != 0)
            return -EOPNOTSUPP;
        at = option->nro_next;
    }
    return 0;
}

/* Lays everything out in the application's memory, unless it is there already. 0, or -errno. */
static int move_to(struct device *device, const struct nm_abi_extmem *external)
{
    const struct nm_abi_pools *pools = &external->nro_info;
    uint8_t *memory = (uint8_t *)(uintptr_t)external->nro_usrptr;
    uint64_t ring_bytes = sizeof(struct nm_abi_ring) + device->options.slots * sizeof(struct nm_abi_slot);
    uint64_t needed = pages((uint64_t)pools->nr_if_pool_objtotal * pools->nr_if_pool_objsize) +
                      pages((uint64_t)pools->nr_ring_pool_objtotal * pools->nr_ring_pool_objsize) +
                      (uint64_t)pools->nr_buf_pool_objtotal * pools->nr_buf_pool_objsize;
    if (device->memory == memory)
        return 0;
    if (external->nro_usrptr % PAGE_BYTES != 0 || device->memory != device->own_memory)
        return -EINVAL;
    if (needed > pools->nr_memsize || pools->nr_if_pool_objtotal < 2 ||
        pools->nr_ring_pool_objtotal < kring_count(device) || pools->nr_ring_pool_objsize < ring_bytes)
        return -ENOMEM;
    lay_out(device, memory, pools);
    return 0;
}

static struct handle *handle_of(struct device *device, int fd)
{
    if (fd < FIRST_FD || fd >= FIRST_FD + HANDLES_MAX || !device->handle[fd - FIRST_FD].open)
        abort();
    return &device->handle[fd - FIRST_FD];
}

static int tell(const struct device *device, struct nm_abi_port_info *info)
{
    uint16_t rings = (uint16_t)device->options.rings;
    *info = (struct nm_abi_port_info){.nr_memsize = device->memory_bytes,
                                      .nr_tx_slots = device->options.slots,
                                      .nr_rx_slots = device->options.slots,
                                      .nr_tx_rings = rings,
                                      .nr_rx_rings = rings,
                                      .nr_host_tx_rings = 1,
                                      .nr_host_rx_rings = 1};
    return 0;
}

static int bind_all(struct device *device, int number, const struct nm_abi_register *reg,
                    const struct options_taken *taken)
{
    int error = taken->external != NULL ? move_to(device, taken->external) : 0;
    struct handle *handle = &device->handle[number];
    if (error == 0 && handle->nif == NULL)
        return -ENOMEM;
    handle->bound = error == 0;
    for (uint32_t i = 0; i < kring_count(device) && error == 0; i++)
        if (is_wanted(device, reg, i))
            error = bind_ring(device, &device->kring[i], number, taken);
    return error;
}

static int bind_handle(struct device *device, int number, const struct nm_abi_header *header)
{
    struct nm_abi_register *reg = (struct nm_abi_register *)(uintptr_t)header->nr_body;
    struct handle *handle = &device->handle[number];
    struct options_taken taken;
    if (handle->bound || (reg->nr_mode == NM_ABI_ONE_NIC && reg->nr_ringid >= device->options.rings))
        return -EINVAL;
    int error = take_options(device, header, &taken);
    if (error == 0)
        error = bind_all(device, number, reg, &taken);
    if (error != 0)
        return error;
    describe(device, handle->nif, reg);
    grant_extra(device, number, reg);
    reg->nr_offset = (uint64_t)((uint8_t *)handle->nif - device->memory);
    reg->nr_memsize = device->memory_bytes;
    reg->nr_tx_rings = reg->nr_rx_rings = (uint16_t)device->options.rings;
    reg->nr_tx_slots = reg->nr_rx_slots = device->options.slots;
    return 0;
}

static int control(void *context, int fd, struct nm_abi_header *header)
{
    struct device *device = context;
    handle_of(device, fd);
    if (header->nr_version != NM_ABI_VERSION)
        return -EINVAL;
    if (strcmp(header->nr_name, "dev0") != 0)
        return -ENXIO;
    if (header->nr_reqtype == NM_ABI_REQ_PORT_INFO_GET)
        return tell(device, (struct nm_abi_port_info *)(uintptr_t)header->nr_body);
    return header->nr_reqtype == NM_ABI_REQ_REGISTER ? bind_handle(device, fd - FIRST_FD, header) : -EINVAL;
}

static int open_handle(void *context)
{
    struct device *device = context;
    for (int i = 0; i < HANDLES_MAX; i++) {
        if (!device->handle[i].open) {
            device->handle[i].open = true;
            return FIRST_FD + i;
        }
    }
    return -EMFILE;
}

static void *map(void *context, int fd, uint64_t bytes)
{
    struct device *device = context;
    struct handle *handle = handle_of(device, fd);
    if (!handle->bound || bytes != device->memory_bytes || device->memory != device->own_memory)
        violation(device, "mapped before it was bound, with another size, or though it is the application's");
    handle->mapped = true;
    return device->memory;
}

/* The one that is mapped and has not been closed: the call doesn't say. */
static void unmap(void *context, void *memory, uint64_t bytes)
{
    struct device *device = context;
    if (memory != device->memory || bytes != device->memory_bytes)
        violation(device, "something else was unmapped");
    for (int i = 0; i < HANDLES_MAX; i++) {
        if (device->handle[i].mapped) {
            device->handle[i].mapped = false;
            return;
        }
    }
    violation(device, "unmapped twice");
}

static void sync_all(struct device *device, int fd, bool tx)
{
    for (uint32_t i = 0; i < kring_count(device); i++) {
        struct kring *kring = &device->kring[i];
        if (kring->handle != fd - FIRST_FD || kring->tx != tx)
            continue;
        if (tx)
            sync_tx(device, kring);
        else
            sync_rx(device, kring);
    }
}

void device_sync(struct device *device)
{
    for (int i = 0; i < HANDLES_MAX; i++) {
        sync_all(device, FIRST_FD + i, true);
        sync_all(device, FIRST_FD + i, false);
    }
}

static int control_tx(void *context, int fd)
{
    handle_of(context, fd);
    sync_all(context, fd, true);
    return 0;
}

static int control_rx(void *context, int fd)
{
    handle_of(context, fd);
    sync_all(context, fd, false);
    return 0;
}

/* poll: it syncs, and nobody sleeps. */
static int wait_for(void *context, int rx_fd, int tx_fd, int64_t timeout_ns, int wake_fd)
{
    (void)timeout_ns;
    (void)wake_fd;
    handle_of(context, rx_fd);
    sync_all(context, rx_fd, false);
    if (tx_fd >= 0)
        sync_all(context, tx_fd, true);
    return 0;
}

/* Closing: whatever was granted must be found, once. */

static void free_buffer(struct device *device, uint32_t index)
{
    if (index >= device->buffer_count || !device->granted[index]) {
        violation(device, "at the end buffer %u is there, which there isn't, or twice", index);
        return;
    }
    device->granted[index] = device->in_flight[index] = 0;
    poison(device, index);
}

static void free_rings(struct device *device, int number)
{
    for (uint32_t i = 0; i < kring_count(device); i++) {
        struct kring *kring = &device->kring[i];
        if (kring->handle != number)
            continue;
        for (uint32_t s = 0; s < device->options.slots; s++) {
            if (!kring->tx && !is_within(device, s, kring->hwcur, kring->hwtail) &&
                !is_poisoned(device, kring->seen[s].buf_idx))
                violation(device, "%s: buffer of slot %u was written, which is the kernel's", kring->name, s);
            free_buffer(device, kring->ring->slot[s].buf_idx);
        }
        kring->handle = -1;
    }
}

static void free_extra(struct device *device, int number)
{
    uint32_t index = device->handle[number].nif->ni_bufs_head;
    for (uint32_t walked = 0; index != 0 && walked < device->buffer_count; walked++) {
        uint32_t next = 0;
        if (index < device->buffer_count)
            memcpy(&next, buffer_at(device, index), sizeof(next));
        free_buffer(device, index);
        index = next;
    }
}

/* Nobody has the device any more. */
static void check_all_free(struct device *device)
{
    for (int i = 0; i < HANDLES_MAX; i++)
        if (device->handle[i].open)
            return;
    for (uint32_t index = 0; index < device->buffer_count; index++) {
        if (device->granted[index])
            violation(device, "at the end buffer %u is lost", index);
        else if (!is_poisoned(device, index))
            violation(device, "buffer %u was written, which is nobody's", index);
    }
}

/* Those that were still leaving at the end. */
static void check_flying(struct device *device, int number)
{
    for (uint32_t i = 0; i < kring_count(device); i++) {
        struct kring *kring = &device->kring[i];
        if (kring->handle != number || !kring->tx)
            continue;
        for (uint32_t s = next_slot(device, kring->hwtail); s != kring->hwcur; s = next_slot(device, s))
            if (kring->due[s] != 0 && digest_of(device, kring->seen[s].buf_idx) != kring->digest[s])
                violation(device, "%s: at the end buffer %u changed in flight", kring->name, kring->seen[s].buf_idx);
    }
}

static void close_handle(void *context, int fd)
{
    struct device *device = context;
    struct handle *handle = handle_of(device, fd);
    if (handle->bound) {
        check_flying(device, fd - FIRST_FD);
        free_extra(device, fd - FIRST_FD); /* as the kernel does it, before the rings */
        free_rings(device, fd - FIRST_FD);
    }
    handle->open = handle->bound = false;
    check_all_free(device);
}

const struct netmap_system *device_system(const struct device *device)
{
    return &device->system;
}

static void kring_create(struct device *device, uint32_t number)
{
    struct kring *kring = &device->kring[number];
    uint32_t ring = number % first_rx(device), slots = device->options.slots;
    bool host = ring == device->options.rings;
    kring->tx = number < first_rx(device);
    kring->handle = -1;
    kring->seen = allocate(slots, sizeof(*kring->seen));
    kring->loaded = allocate(slots, sizeof(*kring->loaded));
    kring->due = allocate(slots, sizeof(*kring->due));
    kring->digest = allocate(slots, sizeof(*kring->digest));
    kring->delay = host ? 0 : device->options.delay;
    if (kring->tx)
        kring->queue = host ? &device->to_host : &device->to_wire;
    else
        kring->queue = host ? &device->from_host : &device->from_wire[ring];
    snprintf(kring->name, sizeof(kring->name), "%s%s %u", host ? "host " : "", kring->tx ? "TX" : "RX",
             host ? 0 : ring);
}

struct device *device_create(const struct device_options *options)
{
    struct device *device = allocate(1, sizeof(*device));
    if (options->rings == 0 || options->rings > RINGS_MAX)
        abort();
    device->options = *options;
    device->system = (struct netmap_system){device,     open_handle, control,  map,         unmap,
                                            control_tx, control_rx,  wait_for, close_handle};
    lay_out_own(device, options->buffer_bytes, options->buffer_count);
    for (uint32_t i = 0; i < RINGS_MAX; i++)
        queue_open(&device->from_wire[i], options->buffer_bytes);
    queue_open(&device->to_wire, options->buffer_bytes);
    queue_open(&device->from_host, options->buffer_bytes);
    queue_open(&device->to_host, options->buffer_bytes);
    for (uint32_t i = 0; i < kring_count(device); i++)
        kring_create(device, i);
    return device;
}

void device_destroy(struct device *device)
{
    for (uint32_t i = 0; i < kring_count(device); i++) {
        free(device->kring[i].seen);
        free(device->kring[i].loaded);
        free(device->kring[i].due);
        free(device->kring[i].digest);
    }
    for (uint32_t i = 0; i < RINGS_MAX; i++)
        free(device->from_wire[i].frames);
    free(device->to_wire.frames);
    free(device->from_host.frames);
    free(device->to_host.frames);
    free(device->granted);
    free(device->in_flight);
    free(device->own_memory);
    free(device);
}
