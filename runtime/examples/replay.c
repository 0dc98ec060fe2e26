/* A capture sent again, through libnmio alone: what comes in by one side of a port goes out by the other.
 *
 *   replay IN.pcap OUT.pcap
 *
 * Each frame takes a buffer of the region, is appended to tx, and is the port's until it has been sent. So with any port of the
 * library: input, append, output. Prints how many frames went. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "libnmio/pcap.h"
#include "libnmio/region.h"

#define CHUNK_BYTES 4096 /* no frame is longer */
#define BUFFERS 64

/* Appends a copy of a frame to tx. False: it is too long. */
static bool append(struct nmio_port *port, const struct nmio_rx *frame)
{
    struct nmio_tx *tx = port->tx;
    if (frame->len_bytes > CHUNK_BYTES)
        return false;
    uint32_t chunk = nmio_buffer_take(port->region);
    uint8_t *copy = nmio_chunk(port->region, chunk);
    memcpy(copy, frame->data, frame->len_bytes);
    tx->desc[tx->count++] = (struct nmio_tx_desc){.head = copy, .head_bytes = frame->len_bytes, .chunk = chunk};
    tx->space--;
    return true;
}

int main(int argc, char **argv)
{
    struct nmio_region region;
    struct nmio_tx tx;
    struct nmio_port *port;
    struct nmio_rx batch[BUFFERS];
    int count = argc == 3 ? 0 : -EINVAL;
    if (count == 0 &&
        (nmio_region_create(&region, CHUNK_BYTES, BUFFERS, 0, 1) != 0 || nmio_tx_create(&tx, BUFFERS) != 0))
        count = -ENOMEM;
    if (count == 0)
        count = pcap_open(&port, argv[1], argv[2], &region, &tx);
    if (count != 0) {
        fprintf(stderr, "usage: replay IN.pcap OUT.pcap (%s)\n", strerror(-count));
        return 1;
    }
    tx.space = tx.capacity;
    while ((count = port->ops->input(port, batch, BUFFERS)) >= 0) {
        for (int i = 0; i < count; i++)
            if (!append(port, &batch[i]))
                fprintf(stderr, "a frame of %u bytes is left out\n", batch[i].len_bytes);
        port->ops->release(port, batch, (uint32_t)count);
        if (port->ops->output(port) != 0)
            break;
    }
    printf("%" PRIu64 " of %" PRIu64 " frames\n", port->counters.tx_frames, port->counters.rx_frames);
    port->ops->close(port);
    nmio_tx_destroy(&tx);
    nmio_region_destroy(&region);
    return count == -ENODATA ? 0 : 1;
}
