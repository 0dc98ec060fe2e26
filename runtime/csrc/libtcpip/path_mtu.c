#include "path_mtu.h"

#include "wire/siphash.h"

#define LIFETIME_US 600000000ull /* RFC 1191 section 6.3, RFC 8201 section 4: ten minutes */

void path_mtus_lay_out(struct path_mtus *table, struct layout *layout)
{
    table->paths = layout_take(layout, PATH_MTU_PATHS * sizeof(*table->paths));
}

static uint64_t peer_hash(const struct path_mtus *table, const struct tcp_flow *flow)
{
    struct {
        uint8_t peer[16];
        uint64_t family;
    } key = {.family = flow->family};
    memcpy(key.peer, flow->peer, sizeof(key.peer));
    return siphash(table->secret, &key, sizeof(key));
}

uint32_t path_mtu_of(const struct path_mtus *table, uint64_t now_us, const struct tcp_flow *flow,
                     uint32_t interface_mtu_bytes)
{
    if (table->until_us <= now_us)
        return interface_mtu_bytes;
    uint64_t hash = peer_hash(table, flow);
    const struct path_mtu *path = &table->paths[hash % PATH_MTU_PATHS];
    bool known = path->mtu_bytes != 0 && path->mtu_bytes < interface_mtu_bytes && path->peer_hash == hash &&
                 path->expires_us > now_us;
    return known ? path->mtu_bytes : interface_mtu_bytes;
}

void path_mtu_remember(struct path_mtus *table, uint64_t now_us, const struct tcp_flow *flow, uint32_t mtu_bytes)
{
    uint64_t hash = peer_hash(table, flow);
    table->until_us = now_us + LIFETIME_US;
    table->paths[hash % PATH_MTU_PATHS] = (struct path_mtu){hash, table->until_us, mtu_bytes};
}
