/* pcapng files, draft-ietf-opsawg-pcapng: the five kinds of block that a capture needs, in this machine's byte order. Times
 * are nanoseconds since 1970-01-01 UTC. Nothing returns an error: ferror() of the file tells, and errno of the first write
 * that failed. */
#ifndef SANDSTORM_PCAPNG_H
#define SANDSTORM_PCAPNG_H

#include <stdint.h>
#include <stdio.h>

#define PCAPNG_INBOUND 1 /* epb_flags, bits 0 and 1 */
#define PCAPNG_OUTBOUND 2
#define PCAPNG_TEXT_BYTES_MAX 128 /* a longer name is cut */

struct pcapng_packet {
    const uint8_t *data;
    uint32_t len_bytes, kept_bytes; /* of the frame; of those data has */
    uint32_t interface, flags; /* index of the interface; PCAPNG_* */
    uint64_t time_ns;
    uint64_t dropped; /* frames of the interface between the one before and this */
};

struct pcapng_statistics {
    uint32_t interface;
    uint64_t start_ns, end_ns;
    uint64_t received, dropped, written; /* frames in both directions */
};

/* Section Header Block: begins the file. */
void pcapng_section(FILE *file, const char *application);
/* Interface Description Block of an Ethernet interface; the first has index 0. snap_bytes: 0: frames are whole. */
void pcapng_interface(FILE *file, const char *name, const char *description, uint32_t snap_bytes);
/* Enhanced Packet Block. */
void pcapng_packet(FILE *file, const struct pcapng_packet *packet);
/* Interface Statistics Block. */
void pcapng_statistics(FILE *file, const struct pcapng_statistics *statistics);

#endif
