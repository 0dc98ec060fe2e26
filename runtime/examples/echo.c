/* A TCP server that answers whatever it is sent with one line, of wire, libnmio, libeth, frames and libtcpip, over the memory port:
 * no image file, no web. It is port 7 of 192.0.2.1. Frames come by standard input and go by standard output, each behind its
 * length in two bytes, the low one first; a frame is a millisecond. */
#include <stdio.h>

#include "libeth/neighbour.h"
#include "libnmio/memory.h"
#include "libnmio/region.h"
#include "libtcpip/tcpip.h"

/* Makes the answer in a buffer of the library's, which it gives back when all of it is acknowledged. */
static uint32_t echo_receive(struct tcpip *tcpip, struct tcb *tcb, const uint8_t *data, uint32_t len_bytes)
{
    uint32_t buffer = tcpip_compose(tcpip, tcb);
    if (buffer == NMIO_NONE || data == NULL)
        return 0;
    const struct response_slice slice = composed_slice(buffer);
    memcpy(composed_bytes(&tcpip->composed, buffer), "hello\n", 6);
    tcpip_write(tcpip, tcb, &slice, 6);
    tcpip_finish(tcpip, tcb);
    return len_bytes;
}

static const struct tcpip_app app = {.receive = echo_receive};
static const struct eth_config link = {
    {2, 0, 0, 0, 0, 1}, true, ETH_ACD_NONE, 1, {{IP_FAMILY_V4, 24, {192, 0, 2, 1}}}};
/* clang-format off */
static const struct tcpip_config config = {
    .tcp_port = 7, .mtu_bytes = 1500, .gather_max = 1, .max_connections = 8, .max_incomplete_requests = 8,
    .keep_alive_ms = 10000, .request_ms = 10000, .send_ms = 10000, .secret = "not random here"};
/* clang-format on */
static const struct ssi_header header = {.slot_bytes = 2048, .segment_bytes = 1448};
static struct image image = {.header = &header}; /* of no frames */
static struct eth eth;
static struct tcpip tcpip;

int main(void)
{
    struct nmio_region region;
    struct nmio_tx tx;
    struct nmio_rx frame;
    struct packet packet;
    struct tcpip_parts parts = {.image = &image, .region = &region, .tx = &tx, .eth = &eth, .app = &app};
    struct layout layout = {NULL, 0};
    uint8_t length[2], bytes[2048];
    if (nmio_region_create(&region, header.slot_bytes, 64, 0, 1) != 0 || nmio_tx_create(&tx, 64) != 0)
        return 1;
    struct memory_port *memory = memory_open(&region, &tx, 64, 0, 1, true);
    struct nmio_port *port = memory_as_port(memory);
    tcpip_lay_out(&tcpip, &layout, &config, &parts); /* counts what it takes */
    layout = (struct layout){nmio_alloc(layout.used_bytes), 0};
    tcpip_lay_out(&tcpip, &layout, &config, &parts);
    eth_init(&eth, &link, config.secret, &region, &tx);
    tcpip_init(&tcpip, &config, &parts);
    for (eth.now_us = 1000; fread(length, sizeof(length), 1, stdin) == 1; eth.now_us += 1000) {
        uint32_t bytes_count = length[0] | (uint32_t)length[1] << 8;
        if (bytes_count > sizeof(bytes) || fread(bytes, bytes_count, 1, stdin) != 1)
            return 1;
        memory_feed(memory, bytes, bytes_count, 0);
        port->ops->input(port, &frame, 1);
        tcpip_clock(&tcpip, eth.now_us, 0);
        enum eth_verdict verdict = eth_input(&eth, &frame);
        if (verdict == ETH_ARP)
            arp_input(&eth, frame.data, frame.len_bytes);
        else if (verdict == ETH_IP)
            tcpip_input(&tcpip, &frame, &packet);
        port->ops->release(port, &frame, 1);
        tcpip_output(&tcpip);
        port->ops->output(port);
        while ((bytes_count = memory_take(memory, bytes, sizeof(bytes))) > 0)
            printf("%c%c", bytes_count & 255, bytes_count >> 8), fwrite(bytes, bytes_count, 1, stdout);
        fflush(stdout);
    }
    return 0;
}
