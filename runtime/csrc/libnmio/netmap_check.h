/* Where the system has netmap's own header, ours is compared with it when it is compiled. */
#ifndef SANDSTORM_NETMAP_CHECK_H
#define SANDSTORM_NETMAP_CHECK_H

#if defined(__has_include) && !defined(__cppcheck__)
#if __has_include(<net/netmap.h>)
/* In this order: the header needs the others, and FreeBSD's need each other. */
/* clang-format off */
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/time.h>
#include <sys/socket.h>
#include <net/if.h>
#include <net/netmap.h>
/* clang-format on */

#include "netmap_abi.h"

#define SAME_SIZE(ours, theirs) _Static_assert(sizeof(ours) == sizeof(theirs), #theirs)
#define SAME_FIELD(ours, theirs, field)                                                                              \
    _Static_assert(offsetof(ours, field) == offsetof(theirs, field) &&                                               \
                       sizeof(((ours *)0)->field) == sizeof(((theirs *)0)->field),                                   \
                   #theirs "." #field)
#define SAME_NUMBER(ours, theirs) _Static_assert((ours) == (theirs), #theirs)

SAME_SIZE(struct nm_abi_header, struct nmreq_header);
SAME_FIELD(struct nm_abi_header, struct nmreq_header, nr_version);
SAME_FIELD(struct nm_abi_header, struct nmreq_header, nr_reqtype);
SAME_FIELD(struct nm_abi_header, struct nmreq_header, nr_name);
SAME_FIELD(struct nm_abi_header, struct nmreq_header, nr_options);
SAME_FIELD(struct nm_abi_header, struct nmreq_header, nr_body);

SAME_SIZE(struct nm_abi_option, struct nmreq_option);
SAME_FIELD(struct nm_abi_option, struct nmreq_option, nro_next);
SAME_FIELD(struct nm_abi_option, struct nmreq_option, nro_reqtype);
SAME_FIELD(struct nm_abi_option, struct nmreq_option, nro_status);
SAME_FIELD(struct nm_abi_option, struct nmreq_option, nro_size);

SAME_SIZE(struct nm_abi_register, struct nmreq_register);
SAME_FIELD(struct nm_abi_register, struct nmreq_register, nr_offset);
SAME_FIELD(struct nm_abi_register, struct nmreq_register, nr_memsize);
SAME_FIELD(struct nm_abi_register, struct nmreq_register, nr_tx_slots);
SAME_FIELD(struct nm_abi_register, struct nmreq_register, nr_rx_slots);
SAME_FIELD(struct nm_abi_register, struct nmreq_register, nr_tx_rings);
SAME_FIELD(struct nm_abi_register, struct nmreq_register, nr_rx_rings);
SAME_FIELD(struct nm_abi_register, struct nmreq_register, nr_mem_id);
SAME_FIELD(struct nm_abi_register, struct nmreq_register, nr_ringid);
SAME_FIELD(struct nm_abi_register, struct nmreq_register, nr_mode);
SAME_FIELD(struct nm_abi_register, struct nmreq_register, nr_extra_bufs);
SAME_FIELD(struct nm_abi_register, struct nmreq_register, nr_flags);

SAME_SIZE(struct nm_abi_port_info, struct nmreq_port_info_get);
SAME_FIELD(struct nm_abi_port_info, struct nmreq_port_info_get, nr_tx_slots);
SAME_FIELD(struct nm_abi_port_info, struct nmreq_port_info_get, nr_rx_slots);
SAME_FIELD(struct nm_abi_port_info, struct nmreq_port_info_get, nr_tx_rings);
SAME_FIELD(struct nm_abi_port_info, struct nmreq_port_info_get, nr_rx_rings);
SAME_FIELD(struct nm_abi_port_info, struct nmreq_port_info_get, nr_host_tx_rings);
SAME_FIELD(struct nm_abi_port_info, struct nmreq_port_info_get, nr_host_rx_rings);

SAME_SIZE(struct nm_abi_pools, struct nmreq_pools_info);
SAME_FIELD(struct nm_abi_pools, struct nmreq_pools_info, nr_memsize);
SAME_FIELD(struct nm_abi_pools, struct nmreq_pools_info, nr_if_pool_objtotal);
SAME_FIELD(struct nm_abi_pools, struct nmreq_pools_info, nr_if_pool_objsize);
SAME_FIELD(struct nm_abi_pools, struct nmreq_pools_info, nr_ring_pool_objtotal);
SAME_FIELD(struct nm_abi_pools, struct nmreq_pools_info, nr_ring_pool_objsize);
SAME_FIELD(struct nm_abi_pools, struct nmreq_pools_info, nr_buf_pool_objtotal);
SAME_FIELD(struct nm_abi_pools, struct nmreq_pools_info, nr_buf_pool_objsize);
SAME_SIZE(struct nm_abi_extmem, struct nmreq_opt_extmem);
SAME_FIELD(struct nm_abi_extmem, struct nmreq_opt_extmem, nro_usrptr);
SAME_FIELD(struct nm_abi_extmem, struct nmreq_opt_extmem, nro_info);
SAME_SIZE(struct nm_abi_offsets, struct nmreq_opt_offsets);
SAME_FIELD(struct nm_abi_offsets, struct nmreq_opt_offsets, nro_max_offset);
SAME_FIELD(struct nm_abi_offsets, struct nmreq_opt_offsets, nro_initial_offset);
SAME_FIELD(struct nm_abi_offsets, struct nmreq_opt_offsets, nro_offset_bits);
SAME_FIELD(struct nm_abi_offsets, struct nmreq_opt_offsets, nro_tx_align);
SAME_FIELD(struct nm_abi_offsets, struct nmreq_opt_offsets, nro_min_gap);

SAME_SIZE(struct nm_abi_if, struct netmap_if);
SAME_FIELD(struct nm_abi_if, struct netmap_if, ni_version);
SAME_FIELD(struct nm_abi_if, struct netmap_if, ni_tx_rings);
SAME_FIELD(struct nm_abi_if, struct netmap_if, ni_rx_rings);
SAME_FIELD(struct nm_abi_if, struct netmap_if, ni_bufs_head);
SAME_FIELD(struct nm_abi_if, struct netmap_if, ni_host_tx_rings);
SAME_FIELD(struct nm_abi_if, struct netmap_if, ni_host_rx_rings);
_Static_assert(offsetof(struct nm_abi_if, ring_ofs) == offsetof(struct netmap_if, ring_ofs), "ring_ofs");

SAME_SIZE(struct nm_abi_slot, struct netmap_slot);
SAME_FIELD(struct nm_abi_slot, struct netmap_slot, buf_idx);
SAME_FIELD(struct nm_abi_slot, struct netmap_slot, len);
SAME_FIELD(struct nm_abi_slot, struct netmap_slot, flags);
SAME_FIELD(struct nm_abi_slot, struct netmap_slot, ptr);

SAME_FIELD(struct nm_abi_ring, struct netmap_ring, buf_ofs);
SAME_FIELD(struct nm_abi_ring, struct netmap_ring, num_slots);
SAME_FIELD(struct nm_abi_ring, struct netmap_ring, nr_buf_size);
SAME_FIELD(struct nm_abi_ring, struct netmap_ring, head);
SAME_FIELD(struct nm_abi_ring, struct netmap_ring, cur);
SAME_FIELD(struct nm_abi_ring, struct netmap_ring, tail);
SAME_FIELD(struct nm_abi_ring, struct netmap_ring, flags);
SAME_FIELD(struct nm_abi_ring, struct netmap_ring, offset_mask);
_Static_assert(offsetof(struct nm_abi_ring, slot) == offsetof(struct netmap_ring, slot), "slot");

SAME_NUMBER(NM_ABI_BUF_CHANGED, NS_BUF_CHANGED);
SAME_NUMBER(NM_ABI_REQ_REGISTER, NETMAP_REQ_REGISTER);
SAME_NUMBER(NM_ABI_REQ_PORT_INFO_GET, NETMAP_REQ_PORT_INFO_GET);
SAME_NUMBER(NM_ABI_REQ_OPT_EXTMEM, NETMAP_REQ_OPT_EXTMEM);
SAME_NUMBER(NM_ABI_REQ_OPT_OFFSETS, NETMAP_REQ_OPT_OFFSETS);
SAME_NUMBER(NM_ABI_ALL_NIC, NR_REG_ALL_NIC);
SAME_NUMBER(NM_ABI_NIC_SW, NR_REG_NIC_SW);
SAME_NUMBER(NM_ABI_ONE_NIC, NR_REG_ONE_NIC);
SAME_NUMBER(NM_ABI_RX_ONLY, NR_RX_RINGS_ONLY);
SAME_NUMBER(NM_ABI_TX_ONLY, NR_TX_RINGS_ONLY);
SAME_NUMBER(NM_ABI_MORE_FRAGMENTS, NS_MOREFRAG);
SAME_NUMBER(NM_ABI_CTRL, NIOCCTRL);
SAME_NUMBER(NM_ABI_TXSYNC, NIOCTXSYNC);
SAME_NUMBER(NM_ABI_RXSYNC, NIOCRXSYNC);
_Static_assert(NM_ABI_VERSION >= NETMAP_MIN_API && NM_ABI_VERSION <= NETMAP_MAX_API, "the API's version");

#endif
#endif

#endif
