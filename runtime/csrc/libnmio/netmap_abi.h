/* The interface of /dev/netmap, version 14, as its documentation describes it: what is shared with the kernel, nothing
 * else. Where a system has net/netmap.h, netmap_check.h compares the two when it is compiled. Host byte order. */
#ifndef SANDSTORM_NETMAP_ABI_H
#define SANDSTORM_NETMAP_ABI_H

#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>

#define NM_ABI_VERSION 14
#define NM_ABI_NAME_BYTES 64
#define NM_ABI_IF_NAME_BYTES 16

/* nr_reqtype, nro_reqtype, nr_mode */
#define NM_ABI_REQ_REGISTER 1
#define NM_ABI_REQ_PORT_INFO_GET 2
#define NM_ABI_REQ_OPT_EXTMEM 1
#define NM_ABI_REQ_OPT_OFFSETS 5
#define NM_ABI_ALL_NIC 1
#define NM_ABI_NIC_SW 3
#define NM_ABI_ONE_NIC 4

/* nr_flags */
#define NM_ABI_RX_ONLY 0x2000
#define NM_ABI_TX_ONLY 0x4000

/* Of a slot: its buf_idx is another one than at the last sync. */
#define NM_ABI_BUF_CHANGED 1
/* Its frame goes on in the next slot. */
#define NM_ABI_MORE_FRAGMENTS 0x20

/* What all requests begin with; nr_options is a list. */
struct nm_abi_header {
    uint16_t nr_version, nr_reqtype;
    uint32_t nr_reserved;
    char nr_name[NM_ABI_NAME_BYTES];
    uint64_t nr_options; /* pointers */
    uint64_t nr_body;
};

struct nm_abi_option {
    uint64_t nro_next;
    uint32_t nro_reqtype, nro_status; /* 0, or an errno */
    uint64_t nro_size;
};

struct nm_abi_register {
    uint64_t nr_offset, nr_memsize; /* of the interface in the mapping; the mapping's size */
    uint32_t nr_tx_slots, nr_rx_slots;
    uint16_t nr_tx_rings, nr_rx_rings, nr_host_tx_rings, nr_host_rx_rings;
    uint16_t nr_mem_id, nr_ringid;
    uint32_t nr_mode, nr_extra_bufs;
    uint32_t nr_pad;
    uint64_t nr_flags;
};

struct nm_abi_port_info {
    uint64_t nr_memsize;
    uint32_t nr_tx_slots, nr_rx_slots;
    uint16_t nr_tx_rings, nr_rx_rings, nr_host_tx_rings, nr_host_rx_rings;
    uint16_t nr_mem_id, nr_pad[3];
};

/* Three kinds of objects, one behind the other in a memory of nr_memsize bytes, each kind beginning on a page. */
struct nm_abi_pools {
    uint64_t nr_memsize;
    uint16_t nr_mem_id, nr_pad[3];
    uint64_t nr_if_pool_offset;
    uint32_t nr_if_pool_objtotal, nr_if_pool_objsize;
    uint64_t nr_ring_pool_offset;
    uint32_t nr_ring_pool_objtotal, nr_ring_pool_objsize;
    uint64_t nr_buf_pool_offset;
    uint32_t nr_buf_pool_objtotal, nr_buf_pool_objsize;
};

/* Memory of the application's, from the page nro_usrptr on, in place of the module's own. */
struct nm_abi_extmem {
    struct nm_abi_option nro_opt;
    uint64_t nro_usrptr;
    struct nm_abi_pools nro_info;
};

struct nm_abi_offsets {
    struct nm_abi_option nro_opt;
    uint64_t nro_max_offset, nro_initial_offset;
    uint32_t nro_offset_bits, nro_tx_align;
    uint64_t nro_min_gap;
};

/* In the mapping at nr_offset. Rings: NIC TX, host TX, NIC RX, host RX, each at its offset from here. */
struct nm_abi_if {
    char ni_name[NM_ABI_IF_NAME_BYTES];
    uint32_t ni_version, ni_flags;
    uint32_t ni_tx_rings, ni_rx_rings;
    uint32_t ni_bufs_head; /* extra buffers: a list through the first four bytes of each; 0 ends it */
    uint32_t ni_host_tx_rings, ni_host_rx_rings;
    uint32_t ni_spare[3];
    int64_t ring_ofs[];
};

struct nm_abi_slot {
    uint32_t buf_idx;
    uint16_t len, flags;
    uint64_t ptr; /* its low bits, by offset_mask, are the offset of the frame in the buffer */
};

/* Slots from head on, up to but without tail, are the application's; cur is where it wants to be woken. */
struct nm_abi_ring {
    int64_t buf_ofs; /* of buffer 0 from here */
    uint32_t num_slots, nr_buf_size;
    uint16_t ringid, dir;
    uint32_t head, cur, tail;
    uint32_t flags;
    uint32_t pad0;
    int64_t ts[2];
    uint64_t offset_mask, buf_align;
    uint8_t pad1[56];
    uint8_t sem[128];
    struct nm_abi_slot slot[];
};

#define NM_ABI_CTRL _IOWR('i', 151, struct nm_abi_header)
#define NM_ABI_TXSYNC _IO('i', 148)
#define NM_ABI_RXSYNC _IO('i', 149)

_Static_assert(sizeof(struct nm_abi_header) == 88 && sizeof(struct nm_abi_register) == 56, "API 14");
_Static_assert(sizeof(struct nm_abi_port_info) == 32, "API 14");
_Static_assert(sizeof(struct nm_abi_pools) == 64 && sizeof(struct nm_abi_extmem) == 96, "API 14");
_Static_assert(sizeof(struct nm_abi_offsets) == 56 && sizeof(struct nm_abi_slot) == 16, "API 14");
_Static_assert(offsetof(struct nm_abi_if, ring_ofs) == 56 && offsetof(struct nm_abi_ring, slot) == 256, "API 14");
_Static_assert(offsetof(struct nm_abi_ring, offset_mask) == 56 && offsetof(struct nm_abi_ring, sem) == 128, "API 14");
_Static_assert(offsetof(struct nm_abi_register, nr_flags) == 48 && offsetof(struct nm_abi_ring, ts) == 40, "API 14");
_Static_assert(NM_ABI_TXSYNC == 27028 && NM_ABI_RXSYNC == 27029, "as Linux and FreeBSD number them");

#endif
