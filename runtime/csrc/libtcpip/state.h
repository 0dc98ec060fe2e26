/* struct tcpip: all that libtcpip keeps. Each part of it has a file of its own, whose functions take that part alone; what takes
 * struct tcpip is what uses several. */
#ifndef SANDSTORM_TCPIP_STATE_H
#define SANDSTORM_TCPIP_STATE_H

#include "app.h"
#include "composed.h"
#include "congestion.h"
#include "frames/arena.h"
#include "libeth/eth.h"
#include "path_mtu.h"
#include "rate_limit.h"
#include "ready.h"
#include "reassembly.h"
#include "receive_buffer.h"
#include "scoreboard.h"
#include "slice_ring.h"
#include "syn_cookie.h"
#include "tcb_table.h"
#include "tcpip_config.h"
#include "time_wait.h"
#include "timer_wheel.h"
#include "wire/counters.h"

#define TCPIP_COUNTERS(X)                                                                                            \
    X(ip_drop_short)                                                                                                 \
    X(ip_drop_version)                                                                                               \
    X(ip_drop_checksum)                                                                                              \
    X(ip_rx_fragments)                                                                                               \
    X(ip_reassembled)                                                                                                \
    X(ip_evicted_fragments)                                                                                          \
    X(ip_drop_fragment_overlap)                                                                                      \
    X(ip_drop_fragment)                                                                                              \
    X(ip_drop_not_ours)                                                                                              \
    X(ip_drop_tentative)                                                                                             \
    X(ip_drop_group_frame)                                                                                           \
    X(ip_drop_source)                                                                                                \
    X(ip_drop_extension)                                                                                             \
    X(ip_drop_protocol)                                                                                              \
    X(icmp_rx_echo)                                                                                                  \
    X(icmp_tx_echo_reply)                                                                                            \
    X(icmp_drop_short)                                                                                               \
    X(icmp_drop_checksum)                                                                                            \
    X(icmp_drop_type)                                                                                                \
    X(icmp_drop_limit)                                                                                               \
    X(pmtu_learned)                                                                                                  \
    X(pmtu_black_holes)                                                                                              \
    X(pmtu_drop_not_ours)                                                                                            \
    X(pmtu_drop_not_in_flight)                                                                                       \
    X(pmtu_drop_no_less)                                                                                             \
    X(tcp_rx_segments)                                                                                               \
    X(tcp_rx_data)                                                                                                   \
    X(tcp_rx_releasing_acks)                                                                                         \
    X(tcp_rx_prompt)                                                                                                 \
    X(tcp_rx_acks_coalesced)                                                                                         \
    X(tcp_drop_short)                                                                                                \
    X(tcp_drop_checksum)                                                                                             \
    X(tcp_drop_port)                                                                                                 \
    X(tcp_drop_flags)                                                                                                \
    X(tcp_rx_late)                                                                                                   \
    X(tcp_drop_no_connection)                                                                                        \
    X(tcp_drop_pool_full)                                                                                            \
    X(tcp_drop_cookie_early)                                                                                         \
    X(tcp_drop_cookie)                                                                                               \
    X(tcp_drop_paws)                                                                                                 \
    X(tcp_drop_out_of_window)                                                                                        \
    X(tcp_rx_out_of_order)                                                                                           \
    X(tcp_rx_duplicate)                                                                                              \
    X(tcp_drop_out_of_order)                                                                                         \
    X(tcp_drop_ack_unacceptable)                                                                                     \
    X(tcp_drop_no_ack)                                                                                               \
    X(tcp_drop_after_close)                                                                                          \
    X(tcp_drop_challenge_limit)                                                                                      \
    X(tcp_drop_linger)                                                                                               \
    X(tcp_evicted_incomplete_requests)                                                                               \
    X(tcp_evicted_pipelined)                                                                                         \
    X(tcp_evicted_composed)                                                                                          \
    X(tcp_evicted_idle)                                                                                              \
    X(tcp_drop_draining)                                                                                             \
    X(tcp_rx_syn)                                                                                                    \
    X(tcp_tx_syn_ack)                                                                                                \
    X(tcp_rx_rst)                                                                                                    \
    X(tcp_tx_rst)                                                                                                    \
    X(tcp_tx_challenge_ack)                                                                                          \
    X(tcp_opened)                                                                                                    \
    X(tcp_closed)                                                                                                    \
    X(tcp_resumed)                                                                                                   \
    X(tcp_drop_resume)                                                                                               \
    X(tcp_time_wait)                                                                                                 \
    X(tcp_timeout_idle)                                                                                              \
    X(tcp_timeout_request)                                                                                           \
    X(tcp_timeout_send)                                                                                              \
    X(tcp_timeout_fin_wait)                                                                                          \
    X(tcp_timeout_retransmit)                                                                                        \
    X(tcp_timeout_swap)                                                                                              \
    X(tcp_tx_segments)                                                                                               \
    X(tcp_tx_resegmented)                                                                                            \
    X(tcp_tx_superframes)                                                                                            \
    X(tcp_tx_payload_bytes)                                                                                          \
    X(tcp_tx_acks)                                                                                                   \
    X(tcp_retransmit_fast)                                                                                           \
    X(tcp_retransmit_timeout)                                                                                        \
    X(tcp_retransmit_spurious)                                                                                       \
    X(tcp_ecn_opened)                                                                                                \
    X(tcp_rx_ce)                                                                                                     \
    X(tcp_ecn_reductions)                                                                                            \
    X(tcp_tail_probes)                                                                                               \
    X(tcp_retransmit_segments)                                                                                       \
    X(tcp_window_probes)

struct tcpip_counters COUNTERS_DEFINE(TCPIP_COUNTERS);

struct tcpip {
    struct tcpip_config config;
    const struct tcpip_app *app;
    void *app_state; /* as its lay_out has returned it */
    uint32_t
        prefetch_steps; /* of the application, at most TCPIP_PREFETCH_STEPS_MAX; 0: its tables stay in the caches */
    struct generations generations; /* of images: what frames are of */
    uint32_t segment_bytes; /* of all their frames but a response's last */
    struct nmio_region *region;
    struct nmio_tx *tx;
    struct eth *eth;
    void (*reset)(struct tcpip *tcpip, struct tcb *tcb); /* tells a peer that its connection is no more */
    uint64_t now_us; /* the caller sets it before each round */
    bool draining;
    bool taking_whole; /* what tcpip_input looks at came in fragments */
    uint32_t receiving; /* whose bytes the application is just taking: index of the TCB + 1; 0: nobody's (resume.h) */

    struct congestion congestion;
    struct syn_cookies cookies;
    struct rate_limits limits;
    struct tcb_table connections;
    uint32_t eviction_hand; /* where the next search for an idle connection begins */
    struct time_waits time_waits;
    struct reassembly reassembly;
    struct path_mtus paths;
    struct overflow_scoreboards overflow;
    struct receive_buffers buffers;
    struct slice_rings rings;
    struct composed composed;
    struct ready ready;
    struct timer_wheel wheel;
    uint64_t idle_check_us; /* the shortest time without progress that may be too long */
    struct arena arena;
    struct tcpip_counters counters;
};

/* Is the application in the middle of an answer? */
static inline bool has_pending_response(const struct tcpip *tcpip, const struct tcb *tcb)
{
    return tcpip->app->has_pending_response != NULL && tcpip->app->has_pending_response(tcb);
}

#endif
