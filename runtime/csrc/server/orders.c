#define _GNU_SOURCE
#include "orders.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "loop.h"

/* An order with its descriptors, -1 for those that it lacks. */
struct received {
    struct server_order order;
    int fds[SERVER_DESCRIPTORS];
    bool is_whole;
};

static void take_descriptors(struct msghdr *message, struct received *received)
{
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part != NULL; part = CMSG_NXTHDR(message, part))
        if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_RIGHTS &&
            part->cmsg_len == CMSG_LEN(sizeof(received->fds)))
            memcpy(received->fds, CMSG_DATA(part), sizeof(received->fds));
}

/* False: the other end is closed. */
static bool receive(int fd, struct received *received)
{
    union {
        struct cmsghdr header; /* for its alignment */
        char bytes[CMSG_SPACE(sizeof(received->fds))];
    } control;
    struct iovec into = {&received->order, sizeof(received->order)};
    struct msghdr message = {
        .msg_iov = &into, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    received->fds[0] = received->fds[1] = -1;
    ssize_t got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    received->is_whole = got == (ssize_t)sizeof(received->order);
    if (got > 0)
        take_descriptors(&message, received);
    return got > 0 || (got < 0 && errno != ECONNRESET);
}

/* Where a table is; NULL if that can't be. */
static const void *table_at(const struct server_order *order, uint8_t *tables, uint32_t index)
{
    const struct server_table *table = &order->tables[index];
    bool is_inside = table->offset <= order->tables_bytes && table->bytes <= order->tables_bytes - table->offset;
    return is_inside && table->offset % sizeof(uint64_t) == 0 ? tables + table->offset : NULL;
}

static bool set_image(struct image *image, const struct server_order *order, uint8_t *tables, const uint8_t *slots)
{
    const void *table[SERVER_TABLES] = {NULL};
    for (uint32_t i = 0; i < SERVER_TABLES; i++)
        if ((table[i] = table_at(order, tables, i)) == NULL)
            return false;
    *image = (struct image){table[0], table[1], table[2], table[3], table[4],  table[5],
                            table[6], table[7], table[8], table[9], table[10], slots};
    return true;
}

static int map(int fd, uint64_t offset, uint64_t bytes, struct swaps_mapping *mapping)
{
    if (fd < 0)
        return -EBADF;
    void *address = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE | MAP_NORESERVE, fd, (off_t)offset);
    if (address == MAP_FAILED)
        return -errno;
    *mapping = (struct swaps_mapping){address, bytes};
    return 0;
}

/* 0, and the image is its workers' to take up; or -errno. */
static int begin(const struct orders *orders, const struct received *received)
{
    const struct server_order *order = &received->order;
    struct swaps_mapping mappings[SWAPS_MAPPINGS] = {{NULL, 0}};
    struct image image;
    int error = map(received->fds[0], order->slots_offset, order->slots_bytes, &mappings[0]);
    if (error == 0)
        error = map(received->fds[1], 0, order->tables_bytes, &mappings[1]);
    if (error == 0 && !set_image(&image, order, mappings[1].address, mappings[0].address))
        error = -EINVAL;
    if (error == 0)
        error = swaps_begin(orders->swaps, order->number, &image, mappings);
    for (size_t i = 0; i < SWAPS_MAPPINGS && error != 0; i++)
        if (mappings[i].address != NULL)
            munmap(mappings[i].address, mappings[i].bytes);
    return error;
}

static void swap(const struct orders *orders, struct received *received)
{
    int error = begin(orders, received);
    if (error != 0) {
        orders->tell(&(struct swaps_news){SWAPS_REFUSED, received->order.number, error});
        return;
    }
    received->order.fault_line[FAULT_LINE_BYTES - 1] = '\0';
    fault_line_set(received->order.fault_line);
}

/* If the memory can't be had, who has asked finds no records in it. */
static void leave(const struct orders *orders, const struct received *received)
{
    const struct swaps_workers *workers = orders->workers;
    uint64_t each_bytes = received->order.records_bytes;
    void *memory = mmap(NULL, each_bytes * workers->count, PROT_READ | PROT_WRITE, MAP_SHARED, received->fds[0], 0);
    for (uint32_t i = 0; i < workers->count; i++)
        if (memory == MAP_FAILED || each_bytes < worker_records_bytes(workers->workers[i]))
            worker_stop(workers->workers[i]);
        else
            worker_leave(workers->workers[i], (uint8_t *)memory + i * each_bytes);
}

static void trace(const struct orders *orders, const struct trace_filter *filter)
{
    for (uint32_t i = 0; i < orders->trace_count; i++)
        trace_set(orders->traces[i], filter);
    orders->tell(&(struct swaps_news){SERVER_TRACED, filter->session, 0});
}

static bool obey(const struct orders *orders)
{
    static struct received received; /* large, and there is one thread that does this */
    if (!receive(orders->fd, &received))
        return false;
    if (received.is_whole && received.order.kind == SERVER_SWAP)
        swap(orders, &received);
    if (received.is_whole && received.order.kind == SERVER_END)
        swaps_end(orders->swaps, received.order.number);
    if (received.is_whole && received.order.kind == SERVER_LEAVE)
        leave(orders, &received);
    if (received.is_whole && received.order.kind == SERVER_TRACE)
        trace(orders, &received.order.trace);
    for (size_t i = 0; i < SERVER_DESCRIPTORS; i++)
        if (received.fds[i] >= 0)
            close(received.fds[i]);
    return true;
}

void orders_obey(const struct orders *orders)
{
    struct swaps_news news;
    for (;;) {
        /* What is asked meanwhile waits; that the other end is closed is seen. */
        struct pollfd ready = {.fd = orders->fd, .events = swaps_takes(orders->swaps) ? POLLIN : 0};
        int64_t ms = swaps_look_ms(orders->swaps);
        struct timespec limit = {0, ms * 1000000};
        int found = ppoll(&ready, 1, ms >= 0 ? &limit : NULL, NULL);
        if (found > 0 && !obey(orders))
            return;
        while (swaps_news(orders->swaps, &news))
            orders->tell(&news);
    }
}
