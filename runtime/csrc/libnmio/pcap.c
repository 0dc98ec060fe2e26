#define _GNU_SOURCE
#include "pcap.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "region.h"

#define PCAP_MAGIC_US 0xa1b2c3d4
#define PCAP_MAGIC_NS 0xa1b23c4d
#define PCAP_ETHERNET 1
#define PCAP_BATCH 16
#define PCAP_SNAP_BYTES 65600

struct pcap_header {
    uint32_t magic;
    uint16_t major, minor;
    uint32_t zone, accuracy, snap_bytes, link_type;
};

struct pcap_record {
    uint32_t seconds, fraction, kept_bytes, len_bytes;
};

struct pcap_port {
    struct nmio_port port;
    FILE *in, *out;
    uint8_t *rx; /* [PCAP_BATCH][PCAP_SNAP_BYTES] */
    int end; /* why nothing more comes: -ENODATA or -EINVAL; 0: more may */
};

/* Reads the next frame to where there is room for PCAP_SNAP_BYTES. Its length, or pcap->end. */
static int read_frame(struct pcap_port *pcap, uint8_t *at)
{
    struct pcap_record record;
    if (pcap->end != 0)
        return pcap->end;
    if (fread(&record, sizeof(record), 1, pcap->in) != 1)
        pcap->end = -ENODATA;
    else if (record.kept_bytes > PCAP_SNAP_BYTES || fread(at, 1, record.kept_bytes, pcap->in) != record.kept_bytes)
        pcap->end = -EINVAL;
    return pcap->end != 0 ? pcap->end : (int)record.kept_bytes;
}

static int pcap_input(struct nmio_port *base, struct nmio_rx *batch, uint32_t max)
{
    struct pcap_port *pcap = (struct pcap_port *)base;
    uint32_t count = 0;
    while (count < max && count < PCAP_BATCH) {
        uint8_t *at = pcap->rx + (size_t)count * PCAP_SNAP_BYTES;
        int len_bytes = read_frame(pcap, at);
        if (len_bytes < 0)
            return count > 0 ? (int)count : len_bytes;
        batch[count++] = (struct nmio_rx){.data = at, .len_bytes = (uint32_t)len_bytes};
        base->counters.rx_frames++;
        base->counters.rx_bytes += (uint32_t)len_bytes;
    }
    return (int)count;
}

static void pcap_release(struct nmio_port *base, struct nmio_rx *batch, uint32_t count)
{
    (void)base;
    (void)batch;
    (void)count;
}

static int pcap_output(struct nmio_port *base)
{
    struct pcap_port *pcap = (struct pcap_port *)base;
    struct nmio_tx *tx = base->tx;
    int error = 0;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    for (uint32_t i = 0; i < tx->count; i++) {
        const struct nmio_tx_desc *desc = &tx->desc[i];
        struct pcap_record record = {(uint32_t)now.tv_sec, (uint32_t)(now.tv_nsec / 1000), desc->head_bytes,
                                     desc->head_bytes};
        if (fwrite(&record, sizeof(record), 1, pcap->out) != 1 ||
            fwrite(desc->head, 1, desc->head_bytes, pcap->out) != desc->head_bytes)
            error = -EIO;
        base->counters.tx_frames++;
        base->counters.tx_bytes += desc->head_bytes;
        nmio_release(base->region, desc->chunk);
    }
    tx->count = tx->piece_count = 0;
    tx->space = tx->capacity;
    return error;
}

static int pcap_wait(struct nmio_port *base, int64_t timeout_ns, int wake_fd)
{
    (void)base;
    (void)timeout_ns;
    (void)wake_fd;
    return 0;
}

static void pcap_close(struct nmio_port *base)
{
    struct pcap_port *pcap = (struct pcap_port *)base;
    if (pcap->in != NULL)
        fclose(pcap->in);
    if (pcap->out != NULL)
        fclose(pcap->out);
    free(pcap->rx);
    nmio_free(pcap);
}

static const struct nmio_port_ops pcap_ops = {"pcap",    pcap_input, pcap_release, pcap_output,
                                              pcap_wait, pcap_close, NULL};

static int open_files(struct pcap_port *pcap, const char *in_path, const char *out_path)
{
    struct pcap_header header;
    pcap->in = fopen(in_path, "rbe");
    if (pcap->in == NULL)
        return -errno;
    if (fread(&header, sizeof(header), 1, pcap->in) != 1 || header.link_type != PCAP_ETHERNET ||
        (header.magic != PCAP_MAGIC_US && header.magic != PCAP_MAGIC_NS))
        return -EINVAL;
    pcap->out = fopen(out_path, "wbe");
    if (pcap->out == NULL)
        return -errno;
    header = (struct pcap_header){PCAP_MAGIC_US, 2, 4, 0, 0, PCAP_SNAP_BYTES, PCAP_ETHERNET};
    return fwrite(&header, sizeof(header), 1, pcap->out) == 1 ? 0 : -EIO;
}

int pcap_open(struct nmio_port **port, const char *in_path, const char *out_path, struct nmio_region *region,
              struct nmio_tx *tx)
{
    struct pcap_port *pcap = nmio_alloc(sizeof(*pcap));
    if (pcap == NULL)
        return -ENOMEM;
    pcap->port = (struct nmio_port){.ops = &pcap_ops, .region = region, .tx = tx, .gather_max = 1, .fd = -1};
    pcap->rx = malloc((size_t)PCAP_BATCH * PCAP_SNAP_BYTES);
    int error = pcap->rx == NULL ? -ENOMEM : open_files(pcap, in_path, out_path);
    if (error != 0) {
        pcap_close(&pcap->port);
        return error;
    }
    *port = &pcap->port;
    return 0;
}
