/* Everything that is counted, with one reason for each drop. X(name) so that enum and names can't differ. */
#ifndef SANDSTORM_COUNTERS_H
#define SANDSTORM_COUNTERS_H

#define COUNTERS(X)                                                                                                  \
    X(eth_rx_frames)                                                                                                 \
    X(eth_drop_short)                                                                                                \
    X(eth_drop_not_ours)                                                                                             \
    X(eth_drop_source)                                                                                               \
    X(eth_drop_type)                                                                                                 \
    X(arp_rx_requests)                                                                                               \
    X(arp_tx_replies)                                                                                                \
    X(arp_tx_probes)                                                                                                 \
    X(arp_tx_announcements)                                                                                          \
    X(arp_tx_defences)                                                                                               \
    X(arp_conflicts)                                                                                                 \
    X(arp_drop_malformed)                                                                                            \
    X(arp_drop_not_ours)                                                                                             \
    X(arp_drop_looped)                                                                                               \
    X(arp_drop_unclaimed)                                                                                            \
    X(ip_drop_short)                                                                                                 \
    X(ip_drop_version)                                                                                               \
    X(ip_drop_checksum)                                                                                              \
    X(ip_drop_fragment)                                                                                              \
    X(ip_drop_not_ours)                                                                                              \
    X(ip_drop_unclaimed)                                                                                             \
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
    X(nd_rx_solicitations)                                                                                           \
    X(nd_tx_advertisements)                                                                                          \
    X(nd_tx_probes)                                                                                                  \
    X(nd_tx_announcements)                                                                                           \
    X(nd_conflicts)                                                                                                  \
    X(nd_drop_malformed)                                                                                             \
    X(nd_drop_not_ours)                                                                                              \
    X(nd_drop_looped)                                                                                                \
    X(nd_drop_unclaimed)                                                                                             \
    X(tcp_rx_segments)                                                                                               \
    X(tcp_rx_acks_joined)                                                                                            \
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
    X(tcp_evicted_half_requests)                                                                                     \
    X(tcp_evicted_pipelined)                                                                                         \
    X(tcp_evicted_idle)                                                                                              \
    X(tcp_drop_draining)                                                                                             \
    X(tcp_rx_syn)                                                                                                    \
    X(tcp_tx_syn_ack)                                                                                                \
    X(tcp_rx_rst)                                                                                                    \
    X(tcp_tx_rst)                                                                                                    \
    X(tcp_tx_challenge_ack)                                                                                          \
    X(tcp_opened)                                                                                                    \
    X(tcp_closed)                                                                                                    \
    X(tcp_time_wait)                                                                                                 \
    X(tcp_timeout_idle)                                                                                              \
    X(tcp_timeout_request)                                                                                           \
    X(tcp_timeout_send)                                                                                              \
    X(tcp_timeout_fin_wait)                                                                                          \
    X(tcp_timeout_retransmit)                                                                                        \
    X(tcp_tx_segments)                                                                                               \
    X(tcp_tx_segments_cut)                                                                                           \
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
    X(tcp_window_probes)                                                                                             \
    X(tx_drop_no_space)                                                                                              \
    X(http_requests)                                                                                                 \
    X(http_bad_requests)                                                                                             \
    X(http_queries_left_out)                                                                                         \
    X(http_status_2xx)                                                                                               \
    X(http_status_3xx)                                                                                               \
    X(http_status_4xx)                                                                                               \
    X(http_status_5xx)                                                                                               \
    X(kv_requests)                                                                                                   \
    X(kv_hits)                                                                                                       \
    X(kv_misses)                                                                                                     \
    X(kv_bad_commands)                                                                                               \
    X(kv_bad_keys)                                                                                                   \
    X(kv_bad_lines)                                                                                                  \
    X(kv_refused_writes)

enum counter {
#define COUNTER_ENUM(name) COUNTER_##name,
    COUNTERS(COUNTER_ENUM)
#undef COUNTER_ENUM
        COUNTER_COUNT
};

#endif
