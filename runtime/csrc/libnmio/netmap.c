#include "netmap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "invariant.h"
#include "netmap_abi.h"
#include "region.h"

#define ETH_HEADER_BYTES 14
#define NETMAP_MAX_OFFSET 128 /* in a slot, at which a frame may begin */
#define NETMAP_CLOSE_TRIES 200              /* a closing port looks so often whether its frames have left, ... */
#define NETMAP_CLOSE_NS 1000000             /* ... after so long */

struct netmap_port {
    struct nmio_port port;
    const struct netmap_system *system;
    int tx_fd, rx_fd; /* apart: where frames are sent at an offset, a NIC has that much less room to receive into */
    bool copy, host_rings, own_region, external;
    struct netmap_filter filter;
    uint8_t *memory;
    uint64_t memory_bytes;
    struct nm_abi_if *tx_nif, *rx_nif;
    struct nm_abi_ring *tx, *host_tx, *host_rx;
    struct nm_abi_ring **rx; /* [rx_count] */
    uint32_t rx_count;
    uint32_t done;      /* slots of tx before this one have been taken back */
    uint32_t *in_slot;  /* [tx->num_slots] the chunk that leaves from a slot, or NMIO_NONE */
    uint32_t *own;      /* [tx->num_slots] the buffers that the ring came with */
    uint32_t *extra;    /* [extra_count] */
    uint32_t extra_count;
};

static struct netmap_port *of(struct nmio_port *base)
{
    return (struct netmap_port *)base;
}

static uint32_t next_of(const struct nm_abi_ring *ring, uint32_t slot)
{
    return slot + 1 < ring->num_slots ? slot + 1 : 0;
}

/* The kernel writes tail. */
static uint32_t tail_of(const struct nm_abi_ring *ring)
{
    return __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);
}

static uint32_t space_of(const struct nm_abi_ring *ring)
{
    uint32_t tail = tail_of(ring);
    return tail >= ring->head ? tail - ring->head : tail + ring->num_slots - ring->head;
}

static uint8_t *buffer_of(const struct nm_abi_ring *ring, uint32_t index)
{
    return (uint8_t *)(uintptr_t)ring + ring->buf_ofs + (size_t)index * ring->nr_buf_size;
}

static uint64_t offset_of(const struct nm_abi_ring *ring, const struct nm_abi_slot *slot)
{
    return slot->ptr & ring->offset_mask;
}

/* Receiving. */

/* To the kernel, by exchange of the two buffers. Its ring has room. */
static void pass_to_host(struct netmap_port *nm, struct nm_abi_ring *ring, struct nm_abi_slot *slot)
{
    struct nm_abi_ring *host = nm->host_tx;
    struct nm_abi_slot *target = &host->slot[host->head];
    uint32_t index = target->buf_idx;
    uint64_t ptr = target->ptr;
    target->buf_idx = slot->buf_idx;
    target->len = slot->len;
    target->ptr = (ptr & ~host->offset_mask) | (slot->ptr & ring->offset_mask);
    target->flags |= NM_ABI_BUF_CHANGED;
    slot->buf_idx = index;
    slot->flags |= NM_ABI_BUF_CHANGED;
    host->head = host->cur = next_of(host, host->head);
}

/* Frames of one ring into batch; those of others go to the kernel. Its slots are given back by netmap_release, or here
 * where none is handed on. */
static uint32_t take_frames(struct netmap_port *nm, uint32_t index, struct nmio_rx *batch, uint32_t max)
{
    struct nm_abi_ring *ring = nm->rx[index];
    uint32_t tail = tail_of(ring), at = ring->head, count = 0;
    while (at != tail && count < max) {
        struct nm_abi_slot *slot = &ring->slot[at];
        uint8_t *data = buffer_of(ring, slot->buf_idx) + offset_of(ring, slot);
        bool theirs = nm->host_rings && !netmap_is_ours(&nm->filter, data, slot->len);
        if (theirs && space_of(nm->host_tx) == 0)
            break; /* until the next sync has taken what is there */
        nm->port.counters.rx_frames++;
        nm->port.counters.rx_bytes += slot->len;
        at = next_of(ring, at);
        if (theirs) {
            pass_to_host(nm, ring, slot);
            continue;
        }
        batch[count++] = (struct nmio_rx){.data = data, .len_bytes = slot->len, .token = index};
    }
    ring->cur = at;
    if (count == 0)
        ring->head = at;
    return count;
}

static bool has_frames(const struct netmap_port *nm)
{
    for (uint32_t i = 0; i < nm->rx_count; i++)
        if (nm->rx[i]->head != tail_of(nm->rx[i]))
            return true;
    return false;
}

static int netmap_input(struct nmio_port *base, struct nmio_rx *batch, uint32_t max)
{
    struct netmap_port *nm = of(base);
    uint32_t count = 0;
    if (!has_frames(nm)) {
        int error = nm->system->sync_rx(nm->system->context, nm->rx_fd);
        if (error != 0)
            return error;
    }
    for (uint32_t i = 0; i < nm->rx_count && count < max; i++)
        count += take_frames(nm, i, batch + count, max - count);
    return (int)count;
}

static void netmap_release(struct nmio_port *base, struct nmio_rx *batch, uint32_t count)
{
    struct netmap_port *nm = of(base);
    /* All that was seen has been handled: the worker releases a batch before it asks for the next. */
    for (uint32_t i = 0; i < count; i++)
        nm->rx[batch[i].token]->head = nm->rx[batch[i].token]->cur;
}

/* Sending. */

/* Takes back the slots whose frames have left. */
static void reclaim(struct netmap_port *nm)
{
    const struct nm_abi_ring *ring = nm->tx;
    uint32_t end = next_of(ring, tail_of(ring)), at = nm->done;
    uint32_t *in_slot = nm->in_slot;
    for (; at != end; at = next_of(ring, at)) {
        if (in_slot[at] != NMIO_NONE)
            nmio_release(nm->port.region, in_slot[at]);
        in_slot[at] = NMIO_NONE;
    }
    nm->done = at;
}

static void put_in_place(struct netmap_port *nm, uint32_t at, const struct nmio_tx_desc *desc)
{
    struct nm_abi_ring *ring = nm->tx;
    struct nm_abi_slot *slot = &ring->slot[at];
    uint64_t offset = (uint64_t)(desc->head - nmio_chunk(nm->port.region, desc->chunk));
    /* The kernel takes a wrong index for buffer 0 and says nothing. */
    INVARIANT(desc->chunk >= 2 && desc->chunk < nm->port.region->chunk_count && offset <= NETMAP_MAX_OFFSET);
    slot->buf_idx = desc->chunk;
    slot->len = (uint16_t)desc->head_bytes;
    slot->flags = NM_ABI_BUF_CHANGED;
    slot->ptr = (slot->ptr & ~ring->offset_mask) | offset;
    nm->in_slot[at] = desc->chunk;
}

static void put_copy(struct netmap_port *nm, uint32_t at, const struct nmio_tx_desc *desc)
{
    struct nm_abi_ring *ring = nm->tx;
    struct nm_abi_slot *slot = &ring->slot[at];
    memcpy(buffer_of(ring, slot->buf_idx) + offset_of(ring, slot), desc->head, desc->head_bytes);
    slot->len = (uint16_t)desc->head_bytes;
    slot->flags = 0;
}

/* What the kernel sends goes out behind what we send. It is copied: the kernel keeps its ring's buffers. */
static void pass_from_host(struct netmap_port *nm)
{
    struct nm_abi_ring *host = nm->host_rx, *ring = nm->tx;
    struct nmio_region *region = nm->port.region;
    while (host->head != tail_of(host) && space_of(ring) > 0) {
        const struct nm_abi_slot *slot = &host->slot[host->head];
        struct nmio_tx_desc desc = {.head = buffer_of(host, slot->buf_idx) + offset_of(host, slot),
                                    .head_bytes = slot->len};
        if (nm->copy) {
            put_copy(nm, ring->head, &desc);
        } else {
            desc.chunk = nmio_buffer_take(region);
            if (desc.chunk == NMIO_NONE)
                break; /* it waits in the kernel's ring */
            desc.head = memcpy(nmio_chunk(region, desc.chunk), desc.head, desc.head_bytes);
            put_in_place(nm, ring->head, &desc);
        }
        ring->head = ring->cur = next_of(ring, ring->head);
        host->head = host->cur = next_of(host, host->head);
    }
}

/* As many frames as the ring has room for. The kernel reads its head when it is called. */
static uint32_t put_frames(struct netmap_port *nm, const struct nmio_tx *tx)
{
    struct nm_abi_ring *ring = nm->tx;
    uint32_t space = space_of(ring), count = tx->count < space ? tx->count : space, at = ring->head;
    uint64_t bytes = 0;
    for (const struct nmio_tx_desc *desc = tx->desc, *end = desc + count; desc < end; desc++) {
        if (nm->copy) {
            put_copy(nm, at, desc);
            nmio_release(nm->port.region, desc->chunk);
        } else {
            put_in_place(nm, at, desc);
        }
        bytes += desc->head_bytes;
        at = next_of(ring, at);
    }
    ring->head = ring->cur = at;
    nm->port.counters.tx_frames += count;
    nm->port.counters.tx_bytes += bytes;
    return count;
}

static int netmap_output(struct nmio_port *base)
{
    struct netmap_port *nm = of(base);
    struct nmio_tx *tx = base->tx;
    struct nm_abi_ring *ring = nm->tx;
    reclaim(nm);
    uint32_t count = put_frames(nm, tx);
    nmio_tx_taken(tx, count);
    if (nm->host_rings)
        pass_from_host(nm);
    int error = nm->done != ring->head || nm->host_rings ? nm->system->sync_tx(nm->system->context, nm->tx_fd) : 0;
    reclaim(nm);
    uint32_t space = space_of(ring);
    space = space < tx->capacity ? space : tx->capacity;
    tx->space = space > tx->count ? space - tx->count : 0;
    return error;
}

static int netmap_wait(struct nmio_port *base, int64_t timeout_ns, int wake_fd)
{
    struct netmap_port *nm = of(base);
    bool full = base->tx->count > 0 || base->tx->space == 0;
    return nm->system->wait(nm->system->context, nm->rx_fd, full ? nm->tx_fd : -1, timeout_ns, wake_fd);
}

/* Opening and closing. */

/* Waits for what is on its way, but not for ever: a link may be down. */
static void drain(struct netmap_port *nm)
{
    const struct netmap_system *system = nm->system;
    for (uint32_t tries = 0; nm->done != nm->tx->head && tries < NETMAP_CLOSE_TRIES; tries++) {
        if (system->sync_tx(system->context, nm->tx_fd) != 0)
            return;
        reclaim(nm);
        if (nm->done != nm->tx->head && system->wait(system->context, nm->rx_fd, -1, NETMAP_CLOSE_NS, -1) != 0)
            return;
    }
}

/* All the port's buffers that are not in a slot with a frame that never left: [slots + extra_count] of room. */
static uint32_t idle_buffers(const struct netmap_port *nm, uint32_t *idle)
{
    uint32_t slots = nm->tx->num_slots, count = 0;
    for (uint32_t i = 0; i < slots + nm->extra_count; i++) {
        uint32_t index = i < slots ? nm->own[i] : nm->extra[i - slots];
        if (nm->port.region->in_flight[index] == NMIO_FREE)
            idle[count++] = index;
    }
    return count;
}

/* The kernel frees what it finds in the ring and in the list of extra buffers: each must be there once. */
static void give_back(struct netmap_port *nm)
{
    struct nm_abi_ring *ring = nm->tx;
    uint32_t *idle = calloc((size_t)ring->num_slots + nm->extra_count, sizeof(uint32_t));
    if (idle == NULL)
        return;
    uint32_t count = idle_buffers(nm, idle), used = 0, next = 0;
    for (uint32_t s = 0; s < ring->num_slots && used < count; s++) {
        if (nm->in_slot[s] != NMIO_NONE)
            continue;
        ring->slot[s].buf_idx = idle[used++];
        ring->slot[s].flags |= NM_ABI_BUF_CHANGED;
    }
    for (; used < count; used++) {
        memcpy(buffer_of(ring, idle[used]), &next, sizeof(next));
        next = idle[used];
    }
    nm->tx_nif->ni_bufs_head = next;
    free(idle);
}

/* What never came into the ring. */
static void release_unsent(struct netmap_port *nm)
{
    for (uint32_t i = 0; i < nm->port.tx->count; i++)
        nmio_release(nm->port.region, nm->port.tx->desc[i].chunk);
    nm->port.tx->count = 0;
}

static void netmap_close(struct nmio_port *base)
{
    struct netmap_port *nm = of(base);
    if (nm->own_region) {
        drain(nm);
        release_unsent(nm);
        give_back(nm);
    }
    if (nm->memory != NULL && !nm->external)
        nm->system->unmap(nm->system->context, nm->memory, nm->memory_bytes);
    if (nm->tx_fd >= 0)
        nm->system->close(nm->system->context, nm->tx_fd);
    if (nm->rx_fd >= 0)
        nm->system->close(nm->system->context, nm->rx_fd);
    if (nm->own_region) {
        nmio_free(base->region->free_buffers);
        nmio_free(base->region->in_flight);
        memset(base->region, 0, sizeof(*base->region));
    }
    free(nm->rx);
    nmio_free(nm->in_slot);
    nmio_free(nm->own);
    free(nm->extra);
    nmio_free(nm);
}

static const struct nmio_port_ops netmap_ops = {
    "netmap", netmap_input, netmap_release, netmap_output, netmap_wait, netmap_close, NULL};

/* What a request asks for beside the rings: a list. */
struct asked {
    struct nm_abi_offsets offsets;
    struct nm_abi_extmem external;
};

static uint64_t ask_for(struct asked *asked, const struct netmap_request *request, bool in_place)
{
    const struct netmap_plan *plan = &request->plan;
    uint64_t list = 0;
    *asked = (struct asked){
        .offsets = {.nro_opt = {.nro_reqtype = NM_ABI_REQ_OPT_OFFSETS}, .nro_max_offset = NETMAP_MAX_OFFSET},
        .external = {.nro_opt = {.nro_reqtype = NM_ABI_REQ_OPT_EXTMEM},
                     .nro_usrptr = (uintptr_t)request->external,
                     .nro_info = {.nr_memsize = plan->bytes,
                                  .nr_if_pool_objtotal = plan->if_count,
                                  .nr_if_pool_objsize = plan->if_bytes,
                                  .nr_ring_pool_objtotal = plan->ring_count,
                                  .nr_ring_pool_objsize = plan->ring_bytes,
                                  .nr_buf_pool_objtotal = plan->buffer_count,
                                  .nr_buf_pool_objsize = plan->buffer_bytes}}};
    if (in_place)
        list = (uintptr_t)&asked->offsets;
    if (request->external != NULL) {
        asked->external.nro_opt.nro_next = list;
        list = (uintptr_t)&asked->external;
    }
    return list;
}

/* Binds a descriptor to the port's rings in one direction; those to send from with offsets and extra buffers. */
static int register_rings(struct netmap_port *nm, const struct netmap_request *request, int fd, uint64_t direction,
                          struct nm_abi_register *reg)
{
    struct asked asked;
    struct nm_abi_header header = {.nr_version = NM_ABI_VERSION, .nr_reqtype = NM_ABI_REQ_REGISTER};
    bool in_place = direction == NM_ABI_TX_ONLY && !request->copy;
    memcpy(header.nr_name, request->name, sizeof(header.nr_name) - 1);
    *reg = (struct nm_abi_register){
        .nr_mode = NM_ABI_ALL_NIC, .nr_flags = direction, .nr_extra_bufs = in_place ? request->extra_buffers : 0};
    if (request->ring >= 0) {
        reg->nr_mode = NM_ABI_ONE_NIC;
        reg->nr_ringid = (uint16_t)request->ring;
    } else if (request->host_rings) {
        reg->nr_mode = NM_ABI_NIC_SW;
    }
    header.nr_body = (uintptr_t)reg;
    header.nr_options = ask_for(&asked, request, in_place);
    int error = nm->system->control(nm->system->context, fd, &header);
    if (error == 0 && (asked.offsets.nro_opt.nro_status != 0 || asked.external.nro_opt.nro_status != 0))
        return -EOPNOTSUPP;
    return error;
}

/* Both directions lie in one memory, which is mapped once. The rings to receive into come first: extra buffers are all
 * that there are, if so many are wanted. */
static int map_rings(struct netmap_port *nm, const struct netmap_request *request, uint32_t *extra_buffers)
{
    struct nm_abi_register tx, rx;
    int error = register_rings(nm, request, nm->rx_fd, NM_ABI_RX_ONLY, &rx);
    if (error == 0)
        error = register_rings(nm, request, nm->tx_fd, NM_ABI_TX_ONLY, &tx);
    if (error != 0)
        return error;
    if (tx.nr_mem_id != rx.nr_mem_id || tx.nr_offset >= tx.nr_memsize || rx.nr_offset >= tx.nr_memsize)
        return -EPROTO;
    nm->memory_bytes = tx.nr_memsize;
    nm->external = request->external != NULL;
    nm->memory = nm->external ? request->external : nm->system->map(nm->system->context, nm->tx_fd, nm->memory_bytes);
    if (nm->memory == NULL)
        return -ENOMEM;
    nm->tx_nif = (struct nm_abi_if *)(nm->memory + tx.nr_offset);
    nm->rx_nif = (struct nm_abi_if *)(nm->memory + rx.nr_offset);
    *extra_buffers = tx.nr_extra_bufs;
    return 0;
}

static struct nm_abi_ring *ring_at(struct nm_abi_if *nif, uint32_t number)
{
    return (struct nm_abi_ring *)((uint8_t *)nif + nif->ring_ofs[number]);
}

/* Where the rings are. */
static int find_rings(struct netmap_port *nm, const struct netmap_request *request)
{
    const struct nm_abi_if *nif = nm->tx_nif;
    uint32_t first = request->ring >= 0 ? (uint32_t)request->ring : 0;
    uint32_t first_rx = nif->ni_tx_rings + nif->ni_host_tx_rings;
    if (first >= nif->ni_tx_rings || first >= nif->ni_rx_rings)
        return -EINVAL;
    nm->tx = ring_at(nm->tx_nif, first);
    nm->rx_count = request->ring >= 0 ? 1 : nif->ni_rx_rings;
    nm->rx = calloc(nm->rx_count, sizeof(struct nm_abi_ring *));
    if (nm->rx == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < nm->rx_count; i++)
        nm->rx[i] = ring_at(nm->rx_nif, first_rx + first + i);
    nm->host_rings = request->host_rings;
    if (!nm->host_rings)
        return 0;
    if (nif->ni_host_tx_rings == 0 || nif->ni_host_rx_rings == 0 || request->ring >= 0)
        return -EINVAL;
    nm->host_tx = ring_at(nm->tx_nif, nif->ni_tx_rings);
    nm->host_rx = ring_at(nm->rx_nif, first_rx + nif->ni_rx_rings);
    return 0;
}

/* The list of extra buffers, read before anything is written to them. */
static int take_extra_buffers(struct netmap_port *nm, uint32_t granted)
{
    nm->extra = calloc(granted > 0 ? granted : 1, sizeof(uint32_t));
    if (nm->extra == NULL)
        return -ENOMEM;
    uint32_t index = nm->tx_nif->ni_bufs_head;
    for (; index != 0 && nm->extra_count < granted; nm->extra_count++) {
        nm->extra[nm->extra_count] = index;
        memcpy(&index, buffer_of(nm->tx, index), sizeof(index));
    }
    return 0;
}

static uint32_t largest_index(const struct netmap_port *nm)
{
    uint32_t largest = 0;
    for (uint32_t i = 0; i < nm->extra_count; i++)
        largest = nm->extra[i] > largest ? nm->extra[i] : largest;
    for (uint32_t s = 0; s < nm->tx->num_slots; s++)
        largest = nm->tx->slot[s].buf_idx > largest ? nm->tx->slot[s].buf_idx : largest;
    return largest;
}

/* Chunks are netmap's buffers by their index: the ring's own are the small buffers, the extra ones the arena. */
static int make_region(struct netmap_port *nm, const struct netmap_request *request, struct nmio_region *region,
                       struct netmap_info *info)
{
    const struct nmio_frames *frames = &request->frames;
    uint32_t slots = nm->tx->num_slots;
    if (nm->extra_count <= slots)
        return -ENOBUFS;
    info->resident = nm->extra_count >= (uint64_t)frames->slot_count + slots;
    *region = (struct nmio_region){.base = buffer_of(nm->tx, 0),
                                   .chunk_bytes = nm->tx->nr_buf_size,
                                   .chunk_count = largest_index(nm) + 1,
                                   .slot_count = nm->extra_count,
                                   .resident_count = info->resident ? frames->slot_count : 0,
                                   .slot_chunks = nm->extra,
                                   .buffer_count = slots,
                                   .free_count = slots};
    nm->own_region = true;
    region->free_buffers = nmio_alloc(slots * sizeof(uint32_t));
    region->in_flight = nmio_alloc(region->chunk_count);
    if (region->free_buffers == NULL || region->in_flight == NULL)
        return -ENOMEM;
    memcpy(region->free_buffers, nm->own, slots * sizeof(uint32_t));
    for (uint32_t s = 0; s < region->resident_count; s++)
        memcpy(nmio_chunk(region, nm->extra[s]), frames->slots + (size_t)s * frames->slot_bytes, frames->slot_bytes);
    return 0;
}

static int set_up(struct netmap_port *nm, const struct netmap_request *request, struct nmio_region *region,
                  struct netmap_info *info)
{
    uint32_t extra_buffers;
    int error = map_rings(nm, request, &extra_buffers);
    if (error == 0)
        error = find_rings(nm, request);
    if (error != 0)
        return error;
    uint32_t slots = nm->tx->num_slots;
    *info = (struct netmap_info){slots,
                                 nm->rx[0]->num_slots,
                                 nm->tx_nif->ni_tx_rings,
                                 nm->tx_nif->ni_rx_rings,
                                 nm->tx->nr_buf_size,
                                 extra_buffers,
                                 false};
    const struct nmio_frames *frames = &request->frames;
    if (request->copy ? nm->tx->nr_buf_size < ETH_HEADER_BYTES + frames->mtu_bytes
                      : nm->tx->nr_buf_size != frames->slot_bytes)
        return -EMSGSIZE;
    nm->in_slot = nmio_alloc(slots * sizeof(uint32_t));
    nm->own = nmio_alloc(slots * sizeof(uint32_t));
    if (nm->in_slot == NULL || nm->own == NULL)
        return -ENOMEM;
    for (uint32_t s = 0; s < slots; s++) {
        nm->in_slot[s] = NMIO_NONE;
        nm->own[s] = nm->tx->slot[s].buf_idx;
    }
    nm->done = next_of(nm->tx, tail_of(nm->tx));
    error = request->copy ? 0 : take_extra_buffers(nm, extra_buffers);
    if (error != 0 || request->copy)
        return error;
    return make_region(nm, request, region, info);
}

int netmap_open(struct nmio_port **port, const struct netmap_system *system, const struct netmap_request *request,
                struct nmio_region *region, struct nmio_tx *tx, struct netmap_info *info)
{
    struct netmap_port *nm = nmio_alloc(sizeof(*nm));
    if (nm == NULL)
        return -ENOMEM;
    nm->port = (struct nmio_port){.ops = &netmap_ops, .region = region, .tx = tx, .gather_max = 1, .fd = -1};
    nm->system = system;
    nm->copy = request->copy;
    nm->filter = request->filter;
    nm->tx_fd = system->open(system->context);
    nm->rx_fd = nm->tx_fd < 0 ? nm->tx_fd : system->open(system->context);
    int error = nm->rx_fd < 0 ? nm->rx_fd : set_up(nm, request, region, info);
    if (error != 0) {
        netmap_close(&nm->port);
        return error;
    }
    uint32_t space = space_of(nm->tx);
    tx->space = space < tx->capacity ? space : tx->capacity;
    *port = &nm->port;
    return 0;
}
