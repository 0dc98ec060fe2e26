/* Memory of ours as netmap's: how much, and how it is divided. */
#include <errno.h>
#include <string.h>

#include "netmap.h"
#include "netmap_abi.h"

#define PAGE_BYTES 4096
#define BUFFERS_MAX 1000000 /* that the module keeps count of */
#define BUFFERS_RESERVED 2  /* the first ones are nobody's */

static uint64_t pages(uint64_t bytes)
{
    return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

/* What the interface is like. 0 or -errno. */
static int ask(const struct netmap_system *system, const char *name, struct nm_abi_port_info *info)
{
    struct nm_abi_header header = {
        .nr_version = NM_ABI_VERSION, .nr_reqtype = NM_ABI_REQ_PORT_INFO_GET, .nr_body = (uintptr_t)info};
    strncpy(header.nr_name, name, sizeof(header.nr_name) - 1);
    int fd = system->open(system->context);
    if (fd < 0)
        return fd;
    int error = system->control(system->context, fd, &header);
    system->close(system->context, fd);
    return error;
}

int netmap_plan(const struct netmap_system *system, const char *name, const struct nmio_frames *frames,
                uint32_t port_count, struct netmap_plan *plan)
{
    struct nm_abi_port_info info = {0};
    int error = ask(system, name, &info);
    if (error != 0)
        return error;
    uint32_t tx = info.nr_tx_rings + info.nr_host_tx_rings, rx = info.nr_rx_rings + info.nr_host_rx_rings;
    uint32_t slots_max = info.nr_tx_slots > info.nr_rx_slots ? info.nr_tx_slots : info.nr_rx_slots;
    uint64_t if_bytes = sizeof(struct nm_abi_if) + (tx + rx) * sizeof(int64_t);
    uint64_t ring_bytes = sizeof(struct nm_abi_ring) + slots_max * sizeof(struct nm_abi_slot);
    uint64_t extra = (uint64_t)frames->slot_count + info.nr_tx_slots + 1;
    uint64_t buffers = BUFFERS_RESERVED + (uint64_t)(tx + rx) * slots_max + port_count * extra;
    if (buffers > BUFFERS_MAX)
        return -EFBIG;
    *plan = (struct netmap_plan){.if_count = 2 * port_count,
                                 .if_bytes = (uint32_t)pages(if_bytes),
                                 .ring_count = tx + rx,
                                 .ring_bytes = (uint32_t)pages(ring_bytes),
                                 .buffer_count = (uint32_t)buffers,
                                 .buffer_bytes = frames->slot_bytes,
                                 .extra_buffers = (uint32_t)extra};
    plan->bytes = (uint64_t)plan->if_count * plan->if_bytes + (uint64_t)plan->ring_count * plan->ring_bytes +
                  pages(buffers * plan->buffer_bytes);
    return 0;
}
