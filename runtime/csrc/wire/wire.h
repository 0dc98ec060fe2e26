/* Headers as they are on the wire: structs and constants only. All integers are in network byte order; be16, be32 and
 * their siblings read and write them. Packed, since nothing on the wire is aligned for us. */
#ifndef SANDSTORM_WIRE_H
#define SANDSTORM_WIRE_H

#include <stdint.h>
#include <string.h>

#include "ip_family.h"

/* An image's integers are little-endian and used where they lie; sums, hashes and scans take eight bytes as a word. */
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "Sandstorm runs on little-endian machines only"
#endif

#define ETH_ADDRESS_BYTES 6
#define ETH_TYPE_IPV4 0x0800
#define ETH_TYPE_ARP 0x0806
#define ETH_TYPE_IPV6 0x86dd
#define ETH_TYPE_VLAN 0x8100 /* IEEE 802.1Q */
#define ETH_GROUP 1 /* of an address's first byte: multicast or broadcast */

#define IP_PROTOCOL_ICMP 1
#define IP_PROTOCOL_TCP 6
#define IP_PROTOCOL_ICMPV6 58
#define IPV6_HOP_BY_HOP 0 /* extension headers, RFC 8200 section 4 */
#define IPV6_ROUTING 43
#define IPV6_FRAGMENT 44
#define IPV6_DESTINATION_OPTIONS 60
#define IP_TTL 64
#define IPV4_DONT_FRAGMENT 0x4000
#define IPV4_FRAGMENT_MASK 0x3fff /* more-fragments flag and offset, RFC 791 */
#define IPV4_MORE_FRAGMENTS 0x2000
#define IPV4_FRAGMENT_OFFSET 0x1fff /* in units of 8 bytes */

#define TCP_FIN 0x01
#define TCP_ECE 0x40 /* RFC 3168 section 6.1 */
#define TCP_CWR 0x80
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_PSH 0x08
#define TCP_ACK 0x10

#define TCP_OPTION_END 0
#define TCP_OPTION_NOP 1
#define TCP_OPTION_MSS 2
#define TCP_OPTION_WINDOW_SCALE 3 /* RFC 7323 section 2 */
#define TCP_OPTION_SACK_PERMITTED 4 /* RFC 2018 */
#define TCP_OPTION_SACK 5
#define TCP_OPTION_TIMESTAMPS 8 /* RFC 7323 section 3 */
#define TCP_WINDOW_SCALE_MAX 14 /* RFC 7323 section 2.3 */

/* RFC 3168 section 5: the last two bits of IPv4's TOS and IPv6's traffic class. */
#define IP_ECN_ECT0 2
#define IP_ECN_CE 3

struct wire_eth {
    uint8_t destination[ETH_ADDRESS_BYTES];
    uint8_t source[ETH_ADDRESS_BYTES];
    uint16_t type;
} __attribute__((packed));

/* Behind the addresses, where the type would be. */
struct wire_vlan {
    uint16_t type; /* ETH_TYPE_VLAN */
    uint16_t control;
} __attribute__((packed));
#define VLAN_ID_MASK 0x0fff /* of control; 0: a priority, no VLAN (IEEE 802.1Q section 9.6) */

struct wire_ipv4 {
    uint8_t version_ihl;
    uint8_t tos;
    uint16_t total_bytes;
    uint16_t id;
    uint16_t fragment;
    uint8_t ttl;
    uint8_t protocol;
    uint16_t checksum;
    uint8_t source[4];
    uint8_t destination[4];
} __attribute__((packed));

struct wire_ipv6 {
    uint32_t version_class_flow;
    uint16_t payload_bytes;
    uint8_t next_header;
    uint8_t hop_limit;
    uint8_t source[16];
    uint8_t destination[16];
} __attribute__((packed));

struct wire_tcp {
    uint16_t source_port;
    uint16_t destination_port;
    uint32_t seq;
    uint32_t ack;
    uint8_t offset; /* header length in 32-bit words, in the high four bits */
    uint8_t flags;
    uint16_t window;
    uint16_t checksum;
    uint16_t urgent;
} __attribute__((packed));

/* NOP, NOP, timestamps: the layout of RFC 7323 appendix A, which everybody sends. */
struct wire_tcp_timestamps {
    uint32_t nop_nop_kind_length; /* TCP_TIMESTAMPS_ALIGNED */
    uint32_t value;
    uint32_t echo;
} __attribute__((packed));
#define TCP_TIMESTAMPS_ALIGNED 0x0101080a

struct wire_arp {
    uint16_t hardware_type;
    uint16_t protocol_type;
    uint8_t hardware_bytes;
    uint8_t protocol_bytes;
    uint16_t operation;
    uint8_t sender_mac[ETH_ADDRESS_BYTES];
    uint8_t sender_ip[4];
    uint8_t target_mac[ETH_ADDRESS_BYTES];
    uint8_t target_ip[4];
} __attribute__((packed));
#define ARP_ETHERNET 1 /* hardware type */
#define ARP_REQUEST 1
#define ARP_REPLY 2

struct wire_icmp {
    uint8_t type;
    uint8_t code;
    uint16_t checksum;
    uint32_t rest;
} __attribute__((packed));
#define ICMP_ECHO_REPLY 0
#define ICMP_ECHO_REQUEST 8
#define ICMP_UNREACHABLE 3
#define ICMP_FRAGMENTATION_NEEDED 4 /* code; RFC 1191 section 4: rest's low half is the MTU */
#define ICMPV6_PACKET_TOO_BIG 2 /* RFC 4443 section 3.2: rest is the MTU */
#define ICMPV6_ECHO_REQUEST 128
#define ICMPV6_ECHO_REPLY 129
#define ICMPV6_MLD_QUERY 130 /* RFC 3810 section 5 */
#define ICMPV6_MLDV2_REPORT 143
#define ICMPV6_NEIGHBOUR_SOLICITATION 135
#define ICMPV6_NEIGHBOUR_ADVERTISEMENT 136

/* Neighbour solicitation or advertisement with one link-layer address option, RFC 4861 section 4.3 and 4.4. */
struct wire_neighbour {
    struct wire_icmp icmp; /* rest: flags in an advertisement */
    uint8_t target[16];
    uint8_t option_type;
    uint8_t option_units; /* of 8 bytes */
    uint8_t option_mac[ETH_ADDRESS_BYTES];
} __attribute__((packed));
#define ND_BYTES_MIN 24 /* without option */
#define ND_HOP_LIMIT 255
#define ND_OPTION_SOURCE 1
#define ND_OPTION_TARGET 2
#define ND_FLAG_SOLICITED 0x40000000
#define ND_FLAG_OVERRIDE 0x20000000

static inline uint16_t be16(uint16_t value)
{
    return __builtin_bswap16(value);
}

static inline uint32_t be32(uint32_t value)
{
    return __builtin_bswap32(value);
}

/* Eight bytes as they are. */
static inline uint64_t load64(const void *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof(word));
    return word;
}

/* A value as the first bytes of a word in memory, shifted as far as other bytes come before it. */
static inline uint64_t in_word(uint64_t value, uint32_t before_bytes)
{
    return value << 8 * before_bytes;
}

static inline uint16_t load_be16(const void *at)
{
    uint16_t value;
    memcpy(&value, at, sizeof(value));
    return be16(value);
}

static inline uint32_t load_be32(const void *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof(value));
    return be32(value);
}

#endif
