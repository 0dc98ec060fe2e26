/* The packet image, format version 7: the only description of its layout.
 *
 * C includes this file; Python gets the same structs from it through cffi (runtime/ffi_build.py), so it
 * keeps to the subset that cffi parses: plain structs of fixed-width integers and integer #defines.
 *
 * An image is an ELF64 little-endian file (ELFDATA2LSB, e_machine EM_NONE, e_type ET_REL, no segments)
 * whose sections are the tables below. All integers are little-endian, all structs naturally aligned
 * without padding, all sections 8-byte aligned but .sandstorm.slots, which is SSI_PAGE_BYTES aligned so
 * that it can be mapped as AF_XDP UMEM or netmap memory and sent from in place.
 *
 *   .note.sandstorm        SHT_NOTE, owner "Sandstorm": type SSI_NOTE_BUILD_ID, the SHA-256 over the SHA-256 digests
 *                          (32 bytes each) of the contents of the .sandstorm.* sections in this order; and type
 *                          SSI_NOTE_VERSION, a uint32_t
 *   .sandstorm.header      one struct ssi_header
 *   .sandstorm.json        provenance, UTF-8 JSON: tool version, manifest digest, SHA-256 of every source
 *   .sandstorm.strings     the bytes that offsets named *_offset point into (host names, paths, ETags); not terminated
 *   .sandstorm.hosts       struct ssi_host[host_count], sorted by name as memcmp and then by length does
 *   .sandstorm.sites       struct ssi_site[site_count]
 *   .sandstorm.buckets     uint32_t[bucket_count], the displacements of the perfect hash
 *   .sandstorm.routes      struct ssi_route[route_table_len], in hash order
 *   .sandstorm.variants    struct ssi_variant[variant_count]
 *   .sandstorm.responses   struct ssi_response[response_count]
 *   .sandstorm.patches     struct ssi_patch[patch_count]; responses whose heads are alike share theirs
 *   .sandstorm.errors      struct ssi_error[error_count]
 *   .sandstorm.frames      struct ssi_frame[frame_count]
 *   .sandstorm.slots       slot_count slots of slot_bytes each
 *
 * A slot holds one real Ethernet frame. Its payload starts at SSI_PAYLOAD_OFFSET; the headers are
 * right-justified in front of it, so one copy of the content serves IPv4 and IPv6, with and without TCP
 * timestamps:
 *
 *   0                42      62        128                          slot_bytes
 *   | room ...       | Ethernet, IP, TCP | payload (HTTP) ... | zeros |
 *                    ^ IPv6 + timestamps (86 B)
 *                            ^ IPv4 + timestamps (66 B)
 *
 * The headers built in are those of a connection with timestamps from the image's first family (IPv4 if it
 * has it), with valid checksums for the addresses they hold.
 *
 * A response's bytes (head and body, one stream) are cut every segment_bytes; frame i of a response holds
 * bytes [i * segment_bytes, (i + 1) * segment_bytes). Hence ACK-offset indexing:
 *   frame = first_frame + (ack - response_seq) / segment_bytes
 */
#ifndef SANDSTORM_IMAGE_FORMAT_H
#define SANDSTORM_IMAGE_FORMAT_H

#include <stdint.h>

#define SSI_VERSION 7
#define SSI_NONE 0xffffffff /* no such index */

#define SSI_NOTE_BUILD_ID 3 /* the type GNU uses for NT_GNU_BUILD_ID */
#define SSI_NOTE_VERSION 1
#define SSI_BUILD_ID_BYTES 32

#define SSI_PAGE_BYTES 4096
#define SSI_PAYLOAD_OFFSET 128
#define SSI_SLOT_BYTES_MIN 2048  /* slot_bytes is a power of two from here ... */
#define SSI_SLOT_BYTES_MAX 16384 /* ... to here */
#define SSI_SEGMENT_BYTES_MIN 512

#define SSI_FAMILY_IPV4 1
#define SSI_FAMILY_IPV6 2
#define SSI_IMAGE_MERGE_SLASHES 1 /* in a path that is asked for, slashes in a row are one */

#define SSI_ENCODING_IDENTITY 0
#define SSI_ENCODING_GZIP 1
#define SSI_ENCODING_BR 2
#define SSI_ENCODING_ZSTD 3
#define SSI_ENCODING_COUNT 4

struct ssi_header {
    uint32_t version; /* SSI_VERSION */
    uint32_t header_bytes; /* sizeof(struct ssi_header) */
    uint32_t slot_bytes; /* power of two, SSI_PAYLOAD_OFFSET + segment_bytes at least */
    uint32_t segment_bytes; /* payload of every frame of a response but its last */
    uint32_t mtu_bytes; /* IP packet size the image was built for */
    uint16_t families; /* SSI_FAMILY_* bits */
    uint16_t flags; /* SSI_IMAGE_* */
    uint32_t slot_count;
    uint32_t frame_count;
    uint32_t response_count;
    uint32_t variant_count;
    uint32_t route_count; /* entries in use */
    uint32_t route_table_len; /* power of two, entries in .sandstorm.routes */
    uint32_t bucket_count; /* power of two */
    uint32_t error_count;
    uint32_t host_count;
    uint32_t site_count; /* at least 1 */
    uint32_t multipart_type_response; /* the line "Content-Type: multipart/byteranges; boundary=B", or SSI_NONE */
    uint32_t multipart_end_response; /* the closing delimiter, RFC 9110 section 14.6, or SSI_NONE */
    uint32_t patch_count;
    uint32_t string_bytes;
    uint64_t route_hash_seed;
};

/* A name that a site is asked for by (RFC 9110 section 7.2), in lower case, without port and without a dot at its end:
 * "example.org"; "*.example.org" for all names below that; or empty, for whatever else is asked for and for requests
 * that say nothing. The longest that matches counts. A name without a site is answered with 421. */
struct ssi_host {
    uint32_t name_offset;
    uint32_t name_bytes;
    uint32_t site;
};
#define SSI_HOST_BYTES_MAX 255 /* of a name, RFC 1035 section 2.3.4 */

/* A set of routes with its own answers for everything else. Site 0 answers too where no site can be told. */
struct ssi_site {
    uint32_t first_error;
    uint32_t error_count;
    uint32_t prefix_bytes_max; /* of the site's longest prefix route; 0: it has none */
};

/* A path of a site and its variants. Lookup (image_route_hash gives h, see image.h):
 *   entry = image_route_entry(h, buckets[(h >> 32) & (bucket_count - 1)], route_table_len)
 * then a full compare of site, flags and path. An unused entry has variant_count 0.
 *
 * A prefix route ("/app/") answers for every path that begins with it and has no route of its own; the longest counts. */
struct ssi_route {
    uint64_t hash;
    uint32_t path_offset; /* decoded absolute path, "/a b.html", without query; a prefix ends with a slash */
    uint32_t path_bytes;
    uint32_t first_variant;
    uint32_t variant_count;
    uint32_t options_response; /* what OPTIONS is answered with (CORS), or SSI_NONE: the site's 204 */
    uint16_t site;
    uint16_t flags; /* SSI_ROUTE_* */
};
#define SSI_ROUTE_PREFIX 1 /* part of what is looked up */
#define SSI_ROUTE_ALIAS 2 /* what is a file under another path; of no meaning to the runtime */
#define SSI_PREFIX_BYTES_MAX 255 /* bounds the work of a lookup */
#define SSI_PATH_BYTES_MAX 16384 /* no request can hold a longer one */
#define SSI_SITES_MAX 65536

/* One encoding of a route. Variants of a route are in the order of preference.
 *
 * A range is answered with the whole of partial_response and a slice of get_response's body. Several are answered with
 *   | partial_response up to swap_offset | multipart_type_response | partial_response from behind swap_bytes on |
 *   | part_response | slice | part_response | slice | ... | multipart_end_response |
 * swap_offset and swap_bytes: where partial_response has Content-Range and Content-Type.
 *
 * A redirect that hands on what is asked for has places in the Location of get_response's head: at swap_offset for the request's
 * query, and at swap_bytes, not behind that, for what of its path is behind the route's; 0: it has no such place. */
struct ssi_variant {
    uint32_t get_response; /* HEAD is answered with its head */
    uint32_t not_modified_response; /* 304, or SSI_NONE: no conditional requests (a redirect); many files have one */
    uint32_t partial_response; /* the head of a 206, or SSI_NONE: no ranges; many files have one */
    uint32_t part_response; /* what stands in front of a part, or SSI_NONE: one range at most */
    uint32_t swap_offset; /* of partial_response, inside its head; or, without one, of get_response: see above */
    uint32_t swap_bytes;
    uint32_t etag_offset; /* with its quotes, as sent */
    uint16_t etag_bytes;
    uint16_t encoding; /* SSI_ENCODING_* */
    int64_t last_modified_s; /* seconds since 1970-01-01 UTC; negative: none */
    uint64_t content_bytes; /* of the body */
};
#define SSI_VARIANTS_MAX 0x7fffffff
#define SSI_LAST_MODIFIED_MAX_S 253402300799 /* 9999-12-31: years of four digits; what is later can't be patched */

/* A header field's value that is written into a response's first frame when it is sent, as it differs from one sending to the
 * next, or between the files that share the response. Of fixed width; what is shorter has blanks in front, which all recipients
 * skip; not all take off what is behind a value (RFC 9110 section 5.5). */
struct ssi_patch {
    uint16_t offset; /* of its bytes in the stream: inside the head, and inside the first frame */
    uint8_t bytes;
    uint8_t kind; /* SSI_PATCH_*, RFC 9110 */
};
#define SSI_PATCH_DATE 0 /* of SSI_DATE_BYTES */
#define SSI_PATCH_CONNECTION 1 /* of SSI_CONNECTION_BYTES */
#define SSI_PATCH_CONTENT_LENGTH 2 /* of a 206; of SSI_LENGTH_BYTES_MAX at most */
#define SSI_PATCH_CONTENT_RANGE 3 /* of a 206 or 416; of SSI_RANGE_BYTES_MAX at most */
#define SSI_PATCH_ETAG 4 /* of the variant that is asked for; of SSI_ETAG_BYTES */
#define SSI_PATCH_LAST_MODIFIED 5 /* likewise; of SSI_DATE_BYTES */
#define SSI_PATCH_KINDS 6 /* a response has at most one patch of each */
#define SSI_DATE_BYTES 29 /* IMF-fixdate, RFC 9110 section 5.6.7 */
#define SSI_CONNECTION_BYTES 10 /* "keep-alive" or "     close" */
#define SSI_ETAG_BYTES 34 /* of a variant's ETag, with its quotes */
#define SSI_LENGTH_BYTES_MAX 20 /* Content-Length of any 64-bit number */
#define SSI_RANGES_MAX 200 /* parts that a 206's Content-Length has room for */
#define SSI_RANGE_BYTES_MAX 68 /* Content-Range of three such, "bytes 0-99/1000" (RFC 9110 section 14.4) */

/* Head and body, as one stream over as many consecutive frames as that takes. Its patches are in the order of their offsets and
 * don't overlap. ETag and Last-Modified are patched in what a variant's 304 or 206 is answered with, and nowhere else: they say
 * what the variant says. */
struct ssi_response {
    uint64_t stream_bytes; /* head and body */
    uint32_t first_frame;
    uint32_t head_bytes; /* up to and with the empty line */
    uint32_t first_patch;
    uint16_t status; /* RFC 9110 section 15 */
    uint16_t patch_count; /* SSI_PATCH_KINDS at most */
};

/* A site's responses for a status that no route decides: 204 (OPTIONS), 400, 404, 405, ... */
struct ssi_error {
    uint32_t status;
    uint32_t get_response; /* likewise */
};

/* A frame and where it lies. payload_sum is the ones'-complement sum (RFC 1071, folded, not inverted) of the
 * payload as 16-bit words in memory order, an odd last byte padded with zero, with the bytes of
 * patches taken as zeros: patching a header never reads the payload. */
struct ssi_frame {
    uint32_t slot; /* first copy; copies are adjacent */
    uint16_t copies; /* at least 1 */
    uint16_t payload_bytes;
    uint16_t payload_sum;
    uint16_t flags; /* SSI_FRAME_* */
};
#define SSI_FRAME_PATCHED 1 /* the first of a response with patches */

#endif
