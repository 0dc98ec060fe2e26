#define _GNU_SOURCE
#include "capture.h"

#include <errno.h>
#include <time.h>

#define PCAP_MAGIC_NS 0xa1b23c4d
#define PCAP_SNAP_BYTES 262144 /* more than any superframe */
#define PCAP_ETHERNET 1

int capture_open(struct capture *capture, const char *path, uint64_t frames, uint64_t now_ns)
{
    const struct {
        uint32_t magic;
        uint16_t major, minor;
        uint32_t zone, accuracy, snap_bytes, link_type;
    } header = {PCAP_MAGIC_NS, 2, 4, 0, 0, PCAP_SNAP_BYTES, PCAP_ETHERNET};
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    *capture = (struct capture){.left = frames,
                                .epoch_ns = (int64_t)wall.tv_sec * 1000000000 + wall.tv_nsec - (int64_t)now_ns};
    capture->file = fopen(path, "wbe");
    if (capture->file == NULL)
        return -errno;
    return fwrite(&header, sizeof(header), 1, capture->file) == 1 ? 0 : -EIO;
}

void capture_add(struct capture *capture, const uint8_t *frame, uint32_t len_bytes, uint64_t now_ns)
{
    if (capture->left == 0)
        return;
    uint64_t at_ns = now_ns + (uint64_t)capture->epoch_ns;
    const uint32_t record[4] = {(uint32_t)(at_ns / 1000000000), (uint32_t)(at_ns % 1000000000), len_bytes, len_bytes};
    capture->left--;
    fwrite(record, sizeof(record), 1, capture->file); /* an error stays with the file */
    fwrite(frame, len_bytes, 1, capture->file);
}

int capture_close(struct capture *capture)
{
    if (capture->file == NULL)
        return 0;
    int failed = ferror(capture->file);
    return fclose(capture->file) != 0 || failed ? -EIO : 0;
}
