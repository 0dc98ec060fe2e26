/* Path MTU discovery: what ICMP has said of peers (RFC 1191, RFC 8201), remembered for a while. */
#ifndef SANDSTORM_PATH_MTU_H
#define SANDSTORM_PATH_MTU_H

#include "tcb.h"
#include "wire/layout.h"

#define PATH_MTU_MIN_IPV4 576 /* below it fewer hosts than forgers are found; Linux's least is 552 */
#define PATH_MTU_MIN_IPV6 1280 /* RFC 8200 section 5 */
#define PATH_MTU_PATHS 1024 /* peers remembered */

/* A path narrower than our interface. */
struct path_mtu {
    uint64_t peer_hash; /* 64 bits that stand for the peer's address */
    uint64_t expires_us;
    uint32_t mtu_bytes; /* 0: unused */
};

struct path_mtus {
    struct path_mtu *paths; /* [PATH_MTU_PATHS] */
    uint64_t until_us; /* when the last of them has expired */
    uint8_t secret[16];
};

static inline uint32_t path_mtu_min(uint8_t family)
{
    return family == IP_FAMILY_V4 ? PATH_MTU_MIN_IPV4 : PATH_MTU_MIN_IPV6;
}

void path_mtus_lay_out(struct path_mtus *table, struct layout *layout);
/* MTU towards a flow's peer: the interface's, or what has been learned. */
uint32_t path_mtu_of(const struct path_mtus *table, uint64_t now_us, const struct tcp_flow *flow,
                     uint32_t interface_mtu_bytes);
/* A forgetful table: one place for a hash, the newest wins. */
void path_mtu_remember(struct path_mtus *table, uint64_t now_us, const struct tcp_flow *flow, uint32_t mtu_bytes);

#endif
