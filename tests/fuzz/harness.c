#include "harness.h"

#include "libtcpip/recovery.h"
#include "web/web.h"
#include "wire/seq.h"

/* So small that all of it runs out: TCBs, boards of the scoreboard, buffers, spare slots, descriptors. */
#define BOARDS 1
#define BUFFERS 24
#define SPARES 4
#define RING 32
#define CONNECTIONS 3
#define START_NS 4290000000000 /* 32-bit microseconds wrap five seconds later */

/* What the port holds, and what it was when it came. */
struct flight {
    struct nmio_tx_desc desc;
    struct nmio_piece piece[NMIO_PIECES_MAX];
    uint32_t len_bytes;
    uint8_t data[70000];
};

static struct flight flights[RING];
static uint32_t first_flight;
static uint8_t *chunks, *in_flight;
static size_t chunks_bytes;
static uint32_t free_buffers[BUFFERS];
static struct nmio_tx_desc descs[RING];
static struct nmio_piece pieces[RING * NMIO_PIECES_MAX];
static void *stack_memory;

uint16_t ones_sum(const uint8_t *data, size_t len_bytes, uint32_t sum)
{
    for (size_t i = 0; i + 1 < len_bytes; i += 2)
        sum += get16(data + i);
    if (len_bytes % 2 != 0)
        sum += (uint32_t)(data[len_bytes - 1] << 8);
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

static void make_region(struct host *host, const struct image *image)
{
    const struct ssi_header *h = image->header;
    uint32_t count = BUFFERS + h->slot_count + SPARES;
    size_t bytes = (size_t)count * h->slot_bytes;
    if (bytes != chunks_bytes) {
        free(chunks);
        chunks = malloc(bytes);
        chunks_bytes = bytes;
    }
    free(in_flight);
    in_flight = calloc(count, 1);
    CHECK(chunks != NULL && in_flight != NULL);
    memcpy(chunks + (size_t)BUFFERS * h->slot_bytes, image->slots, (size_t)h->slot_count * h->slot_bytes);
    for (uint32_t i = 0; i < BUFFERS; i++)
        free_buffers[i] = i;
    host->region = (struct nmio_region){.base = chunks,
                                        .chunk_bytes = h->slot_bytes,
                                        .slot_count = h->slot_count + SPARES,
                                        .resident_count = h->slot_count,
                                        .first_slot = BUFFERS,
                                        .buffer_count = BUFFERS,
                                        .chunk_count = count,
                                        .free_count = BUFFERS,
                                        .free_buffers = free_buffers,
                                        .in_flight = in_flight};
}

static void tell_time(struct host *host)
{
    stack_clock(host->stack, host->now_ns, 784111777 + (int64_t)((host->now_ns - START_NS) / 1000000000));
}

static struct stack_config configure(const struct host *host, uint32_t gather_max)
{
    struct stack_config config = {
        .app = &web_app,
        .eth = {.mac = {2, 0, 0, 0, 0, 1}, .own_address = true, .acd = host->acd, .address_count = 2},
        .tcpip = {.tcp_port = 80,
                  .reassemble = true,
                  .mtu_bytes = 1500,
                  .gather_max = gather_max,
                  .max_connections = CONNECTIONS,
                  .max_incomplete_requests = 2,
                  .keep_alive_ms = 300000,
                  .request_ms = 10000,
                  .send_ms = 300000,
                  .congestion = host->congestion,
                  .pacing = host->pacing}};
    config.eth.addresses[0] = (struct eth_address){IP_FAMILY_V4, 24, {192, 0, 2, 1}};
    config.eth.addresses[1] = (struct eth_address){IP_FAMILY_V6, 64, {0x20, 1, 0x0d, 0xb8, [15] = 1}};
    return config;
}

void host_start(struct host *host, const struct image *image, uint32_t gather_max)
{
    struct stack_config config = configure(host, gather_max);
    make_region(host, image);
    host->tx = (struct nmio_tx){
        .desc = descs, .piece = pieces, .capacity = RING, .piece_capacity = RING * NMIO_PIECES_MAX, .space = RING};
    size_t bytes = (stack_memory_bytes(&config, image, &host->region) + 63) & ~(size_t)63;
    CHECK(bytes > 0);
    free(stack_memory);
    stack_memory = aligned_alloc(64, bytes);
    CHECK(stack_memory != NULL);
    memset(stack_memory, 0, bytes);
    host->stack = stack_init(stack_memory, bytes, &config, image, &host->region, &host->tx);
    CHECK(host->stack != NULL);
    CHECK(host->stack->tcpip.overflow.pool.free_count >= BOARDS);
    host->stack->tcpip.overflow.pool.free_count = BOARDS;
    host->now_ns = START_NS;
    host->flying = first_flight = 0;
    host->slow = false;
    tell_time(host);
}

int fuzz_image_open(struct image *image, const struct image_sections *sections)
{
    uint32_t *work = malloc((sections->frames_bytes / sizeof(struct ssi_frame) + 1) * sizeof(*work));
    CHECK(work != NULL);
    int error = image_open(image, sections, work);
    free(work);
    return error;
}

void host_input(struct host *host, const uint8_t *frame, uint32_t len_bytes, bool checksum_ok)
{
    /* On the heap, exactly so long: a read beyond it is seen. */
    uint8_t *copy = malloc(len_bytes > 0 ? len_bytes : 1);
    CHECK(copy != NULL);
    memcpy(copy, frame, len_bytes);
    struct nmio_rx rx = {.data = copy, .len_bytes = len_bytes, .flags = checksum_ok ? NMIO_RX_CHECKSUM_OK : 0};
    stack_input(host->stack, &rx, 1);
    free(copy);
}

/* TCP or ICMP over addresses; sum: of the pseudo-header. */
static void judge_transport(const struct sent_frame *frame, const uint8_t *payload, uint32_t bytes, uint32_t sum)
{
    if (frame->checksum_partial)
        CHECK(get16(payload + 16) == ones_sum(NULL, 0, sum));
    else
        CHECK(ones_sum(payload, bytes, sum) == 0xffff);
}

static void judge_ipv4(const struct sent_frame *frame, const uint8_t *ip, bool untrusted)
{
    uint32_t bytes = get16(ip + 2) - 20;
    CHECK(bytes + 34 == frame->len_bytes && ip[0] == 0x45 && ones_sum(ip, 20, 0) == 0xffff);
    CHECK(ip[9] == 6 || ip[9] == 1);
    if (!untrusted)
        judge_transport(frame, ip + 20, bytes, ip[9] == 6 ? ones_sum(ip + 12, 8, 6 + bytes) : 0);
}

static void judge_ipv6(const struct sent_frame *frame, const uint8_t *ip, bool untrusted)
{
    /* Reports of what we listen to have a hop-by-hop header of 8 bytes. */
    uint32_t bytes = get16(ip + 4), before = ip[6] == 0 ? 8 : 0;
    uint8_t next = before > 0 ? ip[40] : ip[6];
    CHECK(bytes + 54 == frame->len_bytes && ip[0] >> 4 == 6 && (next == 6 || next == 58));
    CHECK(before == 0 || (bytes >= 16 && ip[41] == 0 && next == 58 && ip[48] == 143));
    if (!untrusted)
        judge_transport(frame, ip + 40 + before, bytes - before, ones_sum(ip + 8, 32, next + bytes - before));
}

static void judge(const struct sent_frame *frame, bool untrusted)
{
    CHECK(frame->len_bytes >= 42);
    uint32_t type = get16(frame->data + 12);
    if (type == 0x0800)
        judge_ipv4(frame, frame->data + 14, untrusted);
    else if (type == 0x86dd)
        judge_ipv6(frame, frame->data + 14, untrusted);
    else
        CHECK(type == 0x0806);
}

/* The bytes of a frame as they are now. */
static uint32_t gather(const struct flight *flight, uint8_t *to)
{
    uint32_t len = flight->desc.head_bytes;
    memcpy(to, flight->desc.head, len);
    for (uint32_t i = 0; i < flight->desc.piece_count; i++) {
        CHECK(len + flight->piece[i].len_bytes <= sizeof(flight->data));
        memcpy(to + len, flight->piece[i].data, flight->piece[i].len_bytes);
        len += flight->piece[i].len_bytes;
    }
    return len;
}

static void take(struct host *host, const struct nmio_tx_desc *desc)
{
    CHECK(host->flying < RING && host->region.in_flight[desc->chunk] != NMIO_FREE);
    struct flight *flight = &flights[(first_flight + host->flying++) % RING];
    flight->desc = *desc;
    memcpy(flight->piece, &host->tx.piece[desc->first_piece], desc->piece_count * sizeof(flight->piece[0]));
    flight->len_bytes = gather(flight, flight->data);
    struct sent_frame frame = {flight->data, flight->len_bytes, desc->gso_bytes, desc->checksum_partial};
    if (!host->unjudged)
        judge(&frame, host->untrusted);
    if (host->on_frame != NULL)
        host->on_frame(host->context, &frame);
}

void host_complete(struct host *host, uint32_t count)
{
    static uint8_t now[sizeof(flights[0].data)];
    for (; count > 0 && host->flying > 0; count--, host->flying--) {
        const struct flight *flight = &flights[first_flight];
        CHECK(gather(flight, now) == flight->len_bytes);
        CHECK(host->untrusted || memcmp(now, flight->data, flight->len_bytes) == 0);
        for (uint32_t i = 0; i < flight->desc.piece_count; i++)
            if (flight->piece[i].chunk != NMIO_NONE)
                nmio_release(&host->region, flight->piece[i].chunk);
        nmio_release(&host->region, flight->desc.chunk);
        first_flight = (first_flight + 1) % RING;
    }
    host->tx.space = RING - host->flying;
}

/* What must be true of a connection whenever the core is at rest. */
static void judge_connection(const struct tcb *tcb)
{
    CHECK(tcb->snd_una <= tcb->snd_nxt && tcb->snd_nxt <= tcb->snd_end + 1);
    CHECK(tcb->rto_us > 0 && tcb->rto_us <= TCP_RTO_MAX_US && tcb->mss > 0);
    /* What is in flight, or waits for the window, has a timer. */
    CHECK(tcb->rto_deadline_us != 0 || tcb->ready || (tcb->snd_nxt == tcb->snd_una && tcb->snd_nxt >= tcb->snd_end));
    uint32_t at = (uint32_t)tcb->snd_una;
    for (uint32_t i = 0; i < tcb->range_count; i++) {
        CHECK(tcb->ranges[i].start == at && seq_lt(at, tcb->ranges[i].end));
        at = tcb->ranges[i].end;
    }
    CHECK(tcb->range_count <= tcb->range_capacity && at == (uint32_t)tcb->snd_nxt);
}

void host_run(struct host *host)
{
    do {
        for (uint32_t i = 0; i < host->tx.count; i++)
            take(host, &host->tx.desc[i]);
        host->tx.count = host->tx.piece_count = 0;
        host_complete(host, host->slow ? 0 : RING);
        stack_output(host->stack);
    } while (host->tx.count > 0);
    if (host->flying > 0)
        return;
    CHECK(!stack_waits_for_space(host->stack));
    for (uint32_t i = 0; i < CONNECTIONS; i++) {
        struct tcb *tcb = &host->stack->tcpip.connections.tcbs[i];
        if (tcb->state == 0)
            continue;
        judge_connection(tcb);
        /* With duplicate ACKs counted instead of SACKs what is in flight is a guess, and the next look another. */
        if (tcb->sack || tcb->in_loss || tcb->dupacks == 0)
            ready_mark(&host->stack->tcpip.ready, tcb);
    }
    stack_output(host->stack);
    CHECK(host->tx.count == 0); /* nobody was forgotten */
}

void host_advance(struct host *host, uint64_t milliseconds)
{
    uint64_t until_ns = host->now_ns + milliseconds * 1000000;
    for (;;) {
        uint64_t due_ns = stack_deadline_ns(host->stack);
        uint64_t next_ns = due_ns < until_ns ? due_ns : until_ns;
        if (next_ns > host->now_ns)
            host->now_ns = next_ns;
        tell_time(host);
        host_run(host);
        if (host->now_ns >= until_ns)
            return;
    }
}

void host_end(struct host *host)
{
    host->slow = false;
    host_advance(host, 1000);
    for (int hour = 0; hour < 24 && stack_connections(host->stack) > 0; hour++)
        host_advance(host, 3600000);
    CHECK(stack_connections(host->stack) == 0);
    CHECK(host->region.free_count == BUFFERS && host->stack->tcpip.overflow.pool.free_count == BOARDS);
    for (uint32_t i = 0; i < host->region.chunk_count; i++)
        CHECK(host->region.in_flight[i] == NMIO_FREE);
    uint32_t unused = 0;
    for (uint32_t at = host->stack->tcpip.buffers.free; at != TCB_NONE;
         at = host->stack->tcpip.buffers.buffers[at].next)
        unused++;
    CHECK(unused == host->stack->tcpip.buffers.count);
    CHECK(host->stack->tcpip.rings.pool.free_count == host->stack->tcpip.rings.pool.count);
    CHECK(host->stack->tcpip.composed.pool.free_count == host->stack->tcpip.composed.pool.count);
}
