/* The netmap port: rings that are shared with the kernel (or a VALE switch), from which frames leave in place.
 *
 * Where slots can say at which offset a frame begins, the arena is made of netmap's buffers: the image's slots are copied
 * into them once at the start, or, where there are too few, as they are needed. The buffers are the module's, or, where it
 * takes external memory, lie in huge pages of ours, as many as the image needs. Where slots have no offset, every frame is
 * copied into the ring as it is sent. Portable: nothing in it is Linux's. */
#ifndef SANDSTORM_NETMAP_H
#define SANDSTORM_NETMAP_H

#include "nmio.h"

struct nm_abi_header;

/* The system calls that it makes, so that a device in memory can take the kernel's place. Each returns -errno for an
 * error. */
struct netmap_system {
    void *context;
    int (*open)(void *context);
    int (*control)(void *context, int fd, struct nm_abi_header *request);
    void *(*map)(void *context, int fd, uint64_t bytes); /* NULL: no */
    void (*unmap)(void *context, void *memory, uint64_t bytes);
    int (*sync_tx)(void *context, int fd);
    int (*sync_rx)(void *context, int fd);
    /* Until rx_fd is readable, tx_fd (-1: none) writable, timeout_ns (-1: never) has passed or wake_fd (-1: none) is
     * readable. */
    int (*wait)(void *context, int rx_fd, int tx_fd, int64_t timeout_ns, int wake_fd);
    void (*close)(void *context, int fd);
};

/* /dev/netmap. */
const struct netmap_system *netmap_kernel(void);

/* How memory of ours is divided into what netmap keeps in it: one behind the other, each kind beginning on a page. */
struct netmap_plan {
    uint64_t bytes; /* of all */
    uint32_t if_count, if_bytes; /* descriptions of the interface: one for each descriptor */
    uint32_t ring_count, ring_bytes;
    uint32_t buffer_count, buffer_bytes;
    uint32_t extra_buffers; /* of those, for each port: the image's slots and a ring's spares */
};

#define NETMAP_RINGS_ALL -1
#define NETMAP_ADDRESSES_MAX 32

/* What is ours of what arrives; the rest is the kernel's. */
struct netmap_filter {
    bool own_address; /* all that is for our addresses; else what is for tcp_port only */
    uint16_t tcp_port;
    uint32_t address_count;
    uint8_t family[NETMAP_ADDRESSES_MAX]; /* IP_FAMILY_* */
    uint8_t address[NETMAP_ADDRESSES_MAX][16];
};

struct netmap_request {
    char name[64]; /* an interface, "vale0:a" or one end of a pipe, "x{1" */
    int32_t ring; /* one pair of the interface's rings, or NETMAP_RINGS_ALL */
    bool copy; /* frames are copied into the ring: region must be ready */
    bool
        host_rings; /* what is not ours goes to the kernel, and what the kernel sends goes out; with all rings only */
    uint32_t extra_buffers; /* wanted for the arena */
    uint8_t *
        external; /* NULL, or memory for plan, zeroed, where rings and buffers are to be; shared by an interface's ports */
    struct netmap_plan plan;
    struct nmio_frames frames; /* to send from */
    struct netmap_filter filter; /* with host_rings */
};

/* What there is. */
struct netmap_info {
    uint32_t tx_slots, rx_slots, tx_rings, rx_rings;
    uint32_t buffer_bytes;
    uint32_t extra_buffers; /* granted */
    bool resident; /* the whole image is in the arena */
};

/* Plans the memory that an interface takes with so many ports, each with the whole image in it. Returns 0 or -errno, as
 * netmap_open does; EFBIG for more buffers than netmap counts. */
int netmap_plan(const struct netmap_system *system, const char *name, const struct nmio_frames *frames,
                uint32_t port_count, struct netmap_plan *plan);

/* Opens a port. Without copy, region is filled in here and belongs to the port. tx: room for tx_slots descriptors is
 * enough. Returns 0 or -errno: ENOENT no /dev/netmap, ENXIO no such port, EOPNOTSUPP no offsets (use copy) or no external memory, EMSGSIZE
 * buffers of another size than the image's slots (info says which), ENOBUFS too few extra buffers for a ring's spares. */
int netmap_open(struct nmio_port **port, const struct netmap_system *system, const struct netmap_request *request,
                struct nmio_region *region, struct nmio_tx *tx, struct netmap_info *info);

/* Is a frame for the stack? */
bool netmap_is_ours(const struct netmap_filter *filter, const uint8_t *frame, uint32_t len_bytes);

#endif
