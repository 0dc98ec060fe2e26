#define _GNU_SOURCE
#include "pcapng.h"

#include <string.h>

#define BLOCK_SECTION 0x0a0d0d0a
#define BLOCK_INTERFACE 1
#define BLOCK_STATISTICS 5
#define BLOCK_PACKET 6
#define BYTE_ORDER_MAGIC 0x1a2b3c4d
#define LINK_ETHERNET 1

#define OPTION_END 0
#define OPTION_SECTION_APPLICATION 4
#define OPTION_INTERFACE_NAME 2
#define OPTION_INTERFACE_DESCRIPTION 3
#define OPTION_INTERFACE_RESOLUTION 9
#define OPTION_PACKET_FLAGS 2
#define OPTION_PACKET_DROPPED 4
#define OPTION_STATISTICS_START 2
#define OPTION_STATISTICS_END 3
#define OPTION_STATISTICS_RECEIVED 4
#define OPTION_STATISTICS_DROPPED 5
#define OPTION_STATISTICS_WRITTEN 8
#define RESOLUTION_NS 9 /* a time's unit is 10^-9 s */

#define BLOCK_BYTES_MAX 512

/* A block under construction, a packet's without the packet. */
struct block {
    uint8_t bytes[BLOCK_BYTES_MAX];
    uint32_t len_bytes;
};

static uint32_t padded(uint32_t len_bytes)
{
    return (len_bytes + 3) & ~3u;
}

static void put(struct block *block, const void *data, uint32_t len_bytes)
{
    memcpy(block->bytes + block->len_bytes, data, len_bytes);
    memset(block->bytes + block->len_bytes + len_bytes, 0, padded(len_bytes) - len_bytes);
    block->len_bytes += padded(len_bytes);
}

static void put32(struct block *block, uint32_t value)
{
    put(block, &value, sizeof(value));
}

static void put_option(struct block *block, uint16_t code, const void *data, size_t len_bytes)
{
    uint16_t head[2] = {code, (uint16_t)len_bytes};
    put(block, head, sizeof(head));
    put(block, data, (uint32_t)len_bytes);
}

static void put_text(struct block *block, uint16_t code, const char *text)
{
    put_option(block, code, text, strnlen(text, PCAPNG_TEXT_BYTES_MAX));
}

static void put_count(struct block *block, uint16_t code, uint64_t count)
{
    put_option(block, code, &count, sizeof(count));
}

/* A time is two words, the high one first, whatever the byte order. */
static void put_time(struct block *block, uint64_t time_ns)
{
    put32(block, (uint32_t)(time_ns >> 32));
    put32(block, (uint32_t)time_ns);
}

static void put_time_option(struct block *block, uint16_t code, uint64_t time_ns)
{
    uint32_t words[2] = {(uint32_t)(time_ns >> 32), (uint32_t)time_ns};
    put_option(block, code, words, sizeof(words));
}

static void begin(struct block *block, uint32_t type)
{
    block->len_bytes = 0;
    put32(block, type);
    put32(block, 0); /* its length, when that is known */
}

static void set_length(struct block *block, uint32_t len_bytes)
{
    memcpy(block->bytes + sizeof(uint32_t), &len_bytes, sizeof(len_bytes));
}

/* The end of the options, and the length once more. */
static void end_and_write(FILE *file, struct block *block)
{
    put32(block, OPTION_END);
    uint32_t len_bytes = block->len_bytes + (uint32_t)sizeof(len_bytes);
    set_length(block, len_bytes);
    put32(block, len_bytes);
    fwrite(block->bytes, 1, block->len_bytes, file);
}

void pcapng_section(FILE *file, const char *application)
{
    struct block block;
    const uint16_t version[2] = {1, 0};
    const uint64_t length_unknown = UINT64_MAX;
    begin(&block, BLOCK_SECTION);
    put32(&block, BYTE_ORDER_MAGIC);
    put(&block, version, sizeof(version));
    put(&block, &length_unknown, sizeof(length_unknown));
    put_text(&block, OPTION_SECTION_APPLICATION, application);
    end_and_write(file, &block);
}

void pcapng_interface(FILE *file, const char *name, const char *description, uint32_t snap_bytes)
{
    struct block block;
    const uint16_t link[2] = {LINK_ETHERNET, 0};
    const uint8_t resolution = RESOLUTION_NS;
    begin(&block, BLOCK_INTERFACE);
    put(&block, link, sizeof(link));
    put32(&block, snap_bytes);
    put_text(&block, OPTION_INTERFACE_NAME, name);
    put_text(&block, OPTION_INTERFACE_DESCRIPTION, description);
    put_option(&block, OPTION_INTERFACE_RESOLUTION, &resolution, sizeof(resolution));
    end_and_write(file, &block);
}

void pcapng_packet(FILE *file, const struct pcapng_packet *packet)
{
    static const uint8_t padding[4];
    struct block head, tail = {.len_bytes = 0};
    begin(&head, BLOCK_PACKET);
    put32(&head, packet->interface);
    put_time(&head, packet->time_ns);
    put32(&head, packet->kept_bytes);
    put32(&head, packet->len_bytes);
    put_option(&tail, OPTION_PACKET_FLAGS, &packet->flags, sizeof(packet->flags));
    if (packet->dropped > 0)
        put_count(&tail, OPTION_PACKET_DROPPED, packet->dropped);
    put32(&tail, OPTION_END);
    uint32_t data_bytes = padded(packet->kept_bytes);
    uint32_t len_bytes = head.len_bytes + data_bytes + tail.len_bytes + (uint32_t)sizeof(len_bytes);
    set_length(&head, len_bytes);
    put32(&tail, len_bytes);
    fwrite(head.bytes, 1, head.len_bytes, file);
    fwrite(packet->data, 1, packet->kept_bytes, file);
    fwrite(padding, 1, data_bytes - packet->kept_bytes, file);
    fwrite(tail.bytes, 1, tail.len_bytes, file);
}

void pcapng_statistics(FILE *file, const struct pcapng_statistics *statistics)
{
    struct block block;
    begin(&block, BLOCK_STATISTICS);
    put32(&block, statistics->interface);
    put_time(&block, statistics->end_ns);
    put_time_option(&block, OPTION_STATISTICS_START, statistics->start_ns);
    put_time_option(&block, OPTION_STATISTICS_END, statistics->end_ns);
    put_count(&block, OPTION_STATISTICS_RECEIVED, statistics->received);
    put_count(&block, OPTION_STATISTICS_DROPPED, statistics->dropped);
    put_count(&block, OPTION_STATISTICS_WRITTEN, statistics->written);
    end_and_write(file, &block);
}
