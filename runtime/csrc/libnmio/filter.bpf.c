/* Which frames are ours and which the kernel's.
 *
 * Shared mode: TCP to one of our addresses and the served port, and ICMP saying that a packet from that port was too big,
 * nothing else. Own-address mode: all TCP and ICMP to our addresses, ARP for them and from whoever else uses them,
 * neighbour solicitations for them and, to a group, advertisements of them; and fragments of all that. In shared mode these go to
 * the kernel, as they have no port to judge by; and frames of a VLAN do. A tag of VLAN 0 is a priority
 * only. IPv6 extension headers are passed over; a chain that is too long, or not for hosts, is the kernel's.
 *
 * Two programs: filter_xdp gives what is ours to the AF_XDP socket of its queue, filter_tcx ends its way behind the packet
 * sockets, which have had their copy by then. */
#include "filter_config.h"

#include <linux/bpf.h>
#include <linux/icmpv6.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct {
    __uint(type, BPF_MAP_TYPE_XSKMAP);
    __uint(max_entries, FILTER_QUEUES);
    __type(key, __u32);
    __type(value, __u32);
} filter_sockets SEC(".maps");

struct filter_config filter_config; /* the loader writes to it while frames come */

struct arp_ipv4 {
    __u8 fixed[8], sender_mac[6];
    __u32 sender_ip;
    __u8 target_mac[6];
    __u32 target_ip;
} __attribute__((packed));

/* Most often there is one address of a family, the first. The others are looked for by functions that are not static: these the
 * verifier goes through once, not on each way that leads there and on. An empty place is zeros, as no destination is. */
__attribute__((noinline)) int is_other_ipv4(__u32 address)
{
    __u32 places = filter_config.ipv4_places;
#pragma clang loop unroll(disable)
    for (__u32 i = 1; i < FILTER_ADDRESSES && i < places; i++)
        if (filter_config.ipv4[i] == address)
            return 1;
    return 0;
}

static __always_inline int is_ipv4_address(__u32 address)
{
    return address != 0 && (address == filter_config.ipv4[0] || is_other_ipv4(address));
}

/* Of addresses of one link the end differs. */
static __always_inline int is_ipv6_at(__u32 place, __u32 a, __u32 b, __u32 c, __u32 d)
{
    const struct filter_ipv6 *ours = &filter_config.ipv6[place];
    return ours->words[3] == d && ours->words[2] == c && ours->words[1] == b && ours->words[0] == a;
}

__attribute__((noinline)) int is_other_ipv6(__u32 a, __u32 b, __u32 c, __u32 d)
{
    __u32 places = filter_config.ipv6_places;
#pragma clang loop unroll(disable)
    for (__u32 i = 1; i < FILTER_ADDRESSES && i < places; i++)
        if (is_ipv6_at(i, a, b, c, d))
            return 1;
    return 0;
}

static __always_inline int is_ipv6_address(const struct in6_addr *address)
{
    __u32 a = address->s6_addr32[0], b = address->s6_addr32[1], c = address->s6_addr32[2], d = address->s6_addr32[3];
    return (a | b | c | d) != 0 && (is_ipv6_at(0, a, b, c, d) || is_other_ipv6(a, b, c, d));
}

static __always_inline int is_tcp_ours(const void *at, const void *end)
{
    const struct tcphdr *tcp = at;
    if ((const void *)(tcp + 1) > end)
        return 0;
    return filter_config.own_address || tcp->dest == filter_config.tcp_port;
}

/* linux/icmp.h needs headers of the C library that this target has none of. */
struct icmp_ipv4 {
    __u8 type, code;
    __be16 checksum;
    __be32 rest;
};
#define ICMP_DEST_UNREACH 3
#define ICMP_FRAG_NEEDED 4

/* Path MTU discovery, RFC 1191: of a packet that came from the served port? We send no IP options. */
static __always_inline int is_icmp_ours(const void *at, const void *end)
{
    const struct icmp_ipv4 *icmp = at;
    const struct iphdr *quoted = (const void *)(icmp + 1);
    const __be16 *source_port = (const void *)(quoted + 1);
    if (filter_config.own_address)
        return 1;
    return (const void *)(source_port + 1) <= end && icmp->type == ICMP_DEST_UNREACH &&
           icmp->code == ICMP_FRAG_NEEDED && quoted->protocol == IPPROTO_TCP &&
           *source_port == filter_config.tcp_port;
}

/* The same of IPv6, RFC 8201. */
static __always_inline int is_icmpv6_ours(const void *at, const void *end)
{
    const struct icmp6hdr *icmp = at;
    const struct ipv6hdr *quoted = (const void *)(icmp + 1);
    const __be16 *source_port = (const void *)(quoted + 1);
    if (filter_config.own_address)
        return 1;
    return (const void *)(source_port + 1) <= end && icmp->icmp6_type == ICMPV6_PKT_TOOBIG &&
           quoted->nexthdr == IPPROTO_TCP && *source_port == filter_config.tcp_port;
}

static __always_inline int is_ipv4_ours(const void *at, const void *end)
{
    const struct iphdr *ip = at;
    if ((const void *)(ip + 1) > end || ip->ihl < 5)
        return 0;
    if (!is_ipv4_address(ip->daddr))
        return 0;
    if ((ip->frag_off & bpf_htons(0x3fff)) != 0)
        return filter_config.own_address && (ip->protocol == IPPROTO_TCP || ip->protocol == IPPROTO_ICMP);
    if (ip->protocol == IPPROTO_ICMP)
        return is_icmp_ours(at + ip->ihl * 4, end);
    return ip->protocol == IPPROTO_TCP && is_tcp_ours(at + ip->ihl * 4, end);
}

#define EXTENSIONS_MAX 8 /* as the stack, wire/ipv6_extension.h */
#define EXTENSION_FRAGMENT 0xfff9 /* offset and more-fragments flag */

/* An extension header's fields that tell what comes behind it. */
struct extension {
    __u8 next, units; /* of 8 bytes, beyond the first */
    __be16 rest; /* of routing its type and the segments left, of a fragment its offset */
    __u8 more[4];
};

/* What is behind the extension headers, or NULL; *next says what it is. Of a packet that is not whole it is the fragment header. */
static __always_inline const void *ipv6_payload(const struct ipv6hdr *ip, const void *end, __u8 *next)
{
    const void *at = ip + 1;
    *next = ip->nexthdr;
    for (int i = 0; i < EXTENSIONS_MAX; i++) {
        const struct extension *header = at;
        __u32 units = 1;
        if (*next != IPPROTO_HOPOPTS && *next != IPPROTO_ROUTING && *next != IPPROTO_FRAGMENT &&
            *next != IPPROTO_DSTOPTS)
            return at;
        if ((const void *)(header + 1) > end)
            return 0;
        if (*next == IPPROTO_FRAGMENT && (header->rest & bpf_htons(EXTENSION_FRAGMENT)) != 0)
            return at;
        if (*next == IPPROTO_ROUTING && (header->rest & bpf_htons(0xff)) != 0)
            return 0;
        if (*next != IPPROTO_FRAGMENT)
            units += header->units;
        *next = header->next;
        at += units * sizeof(*header);
    }
    return at;
}

#define ND_SOLICITATION 135 /* RFC 4861 */
#define ND_ADVERTISEMENT 136
#define MLD_QUERY 130 /* RFC 3810 */

/* What the link asks of all, in ICMPv6 to a multicast group: who listens, and solicitations and advertisements that are about one
 * of our addresses. */
static __always_inline int is_group_ours(const void *payload, const void *end, const struct in6_addr *destination)
{
    const struct icmp6hdr *icmp = payload;
    const struct in6_addr *target = (const void *)(icmp + 1);
    if (destination->s6_addr[0] != 0xff || (const void *)(icmp + 1) > end)
        return 0;
    if (icmp->icmp6_type == MLD_QUERY)
        return 1;
    if ((const void *)(target + 1) > end ||
        (icmp->icmp6_type != ND_SOLICITATION && icmp->icmp6_type != ND_ADVERTISEMENT))
        return 0;
    return is_ipv6_address(target);
}

static __always_inline int is_ipv6_ours(const void *at, const void *end)
{
    const struct ipv6hdr *ip = at;
    if ((const void *)(ip + 1) > end)
        return 0;
    __u8 next;
    const void *payload = ipv6_payload(ip, end, &next);
    if (!payload)
        return 0;
    int ours = is_ipv6_address(&ip->daddr);
    if (next == IPPROTO_FRAGMENT)
        return ours && filter_config.own_address;
    if (next == IPPROTO_TCP)
        return ours && is_tcp_ours(payload, end);
    if (next != IPPROTO_ICMPV6)
        return 0;
    if (ours)
        return is_icmpv6_ours(payload, end);
    return filter_config.own_address && is_group_ours(payload, end, &ip->daddr);
}

static __always_inline int is_arp_ours(const void *at, const void *end)
{
    const struct arp_ipv4 *arp = at;
    if (!filter_config.own_address || (const void *)(arp + 1) > end)
        return 0;
    /* The answer to a probe has its target IP from the probe: zero. */
    return is_ipv4_address(arp->target_ip) || is_ipv4_address(arp->sender_ip);
}

#define VLAN_ID_MASK 0xfff

struct vlan_tag {
    __be16 control, type;
};

#define IPV4_PLAIN 0x45 /* version and length of a header without options */

/* Nearly all of what is ours: TCP to the first address, without options or fragments. In few steps, as it is done for each frame. */
static __always_inline int is_usual(const void *at, const void *end)
{
    const struct iphdr *ip = at + sizeof(struct ethhdr);
    const struct tcphdr *tcp = (const void *)(ip + 1);
    if ((const void *)(tcp + 1) > end)
        return 0;
    return *(const __be16 *)((const void *)ip - sizeof(__be16)) == bpf_htons(ETH_P_IP) &&
           *(const __u8 *)ip == IPV4_PLAIN && ip->protocol == IPPROTO_TCP && ip->daddr == filter_config.ipv4[0] &&
           ip->daddr != 0 && (ip->frag_off & bpf_htons(0x3fff)) == 0 && is_tcp_ours(tcp, end);
}

static __always_inline int is_ours(const void *at, const void *end)
{
    const struct ethhdr *eth = at;
    if (is_usual(at, end))
        return 1;
    if ((const void *)(eth + 1) > end)
        return 0;
    const void *packet = eth + 1;
    __be16 type = *(const __be16 *)(packet - sizeof(type)); /* of a packed struct it would be read byte by byte */
    if (type == bpf_htons(ETH_P_8021Q)) {
        const struct vlan_tag *tag = packet;
        if ((const void *)(tag + 1) > end || (tag->control & bpf_htons(VLAN_ID_MASK)) != 0)
            return 0;
        type = tag->type;
        packet = tag + 1;
    }
    if (type == bpf_htons(ETH_P_IP))
        return is_ipv4_ours(packet, end);
    if (type == bpf_htons(ETH_P_IPV6))
        return is_ipv6_ours(packet, end);
    return type == bpf_htons(ETH_P_ARP) && is_arp_ours(packet, end);
}

SEC("xdp")
int filter_xdp(struct xdp_md *context)
{
    /* Without a socket on this queue, as while another process takes over, it is lost, and comes again: the kernel, who knows nothing of
     * our connections, would reset them. */
    return is_ours((const void *)(long)context->data, (const void *)(long)context->data_end)
               ? bpf_redirect_map(&filter_sockets, context->rx_queue_index, XDP_DROP)
               : XDP_PASS;
}

/* From linux/bpf.h of Linux 6.6, which is not every system's. */
#define TCX_NEXT (-1)
#define TCX_DROP 2

SEC("tc")
int filter_tcx(struct __sk_buff *context)
{
    if (context->vlan_present && (context->vlan_tci & VLAN_ID_MASK) != 0) /* the tag has been taken off */
        return TCX_NEXT;
    return is_ours((const void *)(long)context->data, (const void *)(long)context->data_end) ? TCX_DROP : TCX_NEXT;
}

char filter_license[] SEC("license") = "Dual BSD/GPL";
