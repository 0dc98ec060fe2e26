#define _GNU_SOURCE
#include "sockets.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "accept.h"
#include "connection_io.h"
#include "libtcpip/swap.h"
#include "libtcpip/timeout.h"

const char *sockets_config_error(const struct sockets_config *config, const struct image *image)
{
    if (config->app == NULL)
        return "there is no application";
    if (config->listener_count == 0 || config->listener_count > SOCKETS_LISTENERS_MAX)
        return "the number of listening sockets is not from 1 to 64";
    if (image->slots == NULL)
        return "the image has no slots";
    return tcpip_config_error(&config->tcpip);
}

static struct tcpip_parts parts_of(const struct sockets_config *config, const struct image *image)
{
    return (struct tcpip_parts){.image = image, .app = config->app, .app_data = config->app_data};
}

/* A worker lies where the layout begins; s may be another while it only counts. */
static void lay_out(struct sockets *s, struct layout *layout, const struct sockets_config *config,
                    const struct image *image)
{
    struct tcpip_parts parts = parts_of(config, image);
    layout_take(layout, sizeof(*s));
    tcpip_lay_out_carried(&s->tcpip, layout, &config->tcpip, &parts);
    s->sockets = layout_take(layout, config->tcpip.max_connections * sizeof(*s->sockets));
    s->received = layout_take(layout, TCB_RECEIVE_BYTES);
    s->patched = layout_take(layout, (size_t)SOCKETS_PATCHED * image->header->segment_bytes);
}

/* 0: there is not even memory for counting, or the configuration is out of bounds. */
static size_t memory_bytes(const struct sockets_config *config, const struct image *image)
{
    struct layout layout = {NULL, 0};
    struct sockets *scratch = malloc(sizeof(*scratch)); /* too large for a thread's stack */
    if (scratch != NULL && sockets_config_error(config, image) == NULL)
        lay_out(scratch, &layout, config, image);
    free(scratch);
    return layout.used_bytes;
}

/* Its epoll, with what is always looked for. False: errno says why not. */
static bool open_descriptors(struct sockets *s)
{
    struct epoll_event wake = {.events = EPOLLIN, .data.u64 = SOCKETS_WAKE};
    s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    s->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return s->epoll_fd >= 0 && s->wake_fd >= 0 && epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, s->wake_fd, &wake) == 0 &&
           accept_resume(s);
}

struct sockets *sockets_create(const struct sockets_config *config, const struct image *image)
{
    size_t bytes = memory_bytes(config, image); /* mmap takes no 0 */
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    struct layout layout = {memory, 0};
    struct tcpip_parts parts = parts_of(config, image);
    struct sockets *s = memory;
    lay_out(s, &layout, config, image);
    tcpip_init_carried(&s->tcpip, &config->tcpip, &parts);
    s->tcpip.reset = socket_reset;
    s->memory_bytes = bytes;
    s->listener_count = config->listener_count;
    memcpy(s->listeners, config->listeners, sizeof(s->listeners));
    if (!open_descriptors(s)) {
        int error = errno;
        sockets_destroy(s);
        errno = error;
        return NULL;
    }
    return s;
}

void sockets_destroy(struct sockets *s)
{
    for (uint32_t i = 0; i < s->tcpip.connections.touched; i++)
        if (s->tcpip.connections.tcbs[i].state != 0)
            close(s->sockets[i].fd);
    if (s->epoll_fd >= 0)
        close(s->epoll_fd);
    if (s->wake_fd >= 0)
        close(s->wake_fd);
    munmap(s, s->memory_bytes);
}

int sockets_wait(struct sockets *s, int timeout_ms)
{
    int count = epoll_wait(s->epoll_fd, s->events, SOCKETS_EVENTS, timeout_ms);
    s->event_count = count > 0 ? (uint32_t)count : 0;
    return count < 0 && errno != EINTR ? -errno : 0;
}

static void take_events(struct sockets *s)
{
    for (uint32_t i = 0; i < s->event_count; i++) {
        uint64_t which = s->events[i].data.u64;
        eventfd_t ignored;
        if (which == SOCKETS_WAKE)
            eventfd_read(s->wake_fd, &ignored);
        else if (which >= SOCKETS_LISTENER)
            s->listeners_ready |= 1ull << (which - SOCKETS_LISTENER);
        else
            socket_event(s, (uint32_t)which, s->events[i].events);
    }
    s->event_count = 0;
}

static void run_timers(struct sockets *s)
{
    struct tcb *tcb;
    if (!timer_is_due(&s->tcpip.wheel, s->tcpip.now_us))
        return;
    s->in_timers = true;
    while ((tcb = timer_pop(&s->tcpip.wheel, s->tcpip.now_us)) != NULL) {
        socket_look_at_progress(s, tcb);
        tcp_timeout(&s->tcpip, tcb);
    }
    s->in_timers = false;
}

static void run_turns(struct sockets *s)
{
    struct tcb *tcb;
    for (uint32_t i = 0; i < SOCKETS_TURNS && s->error == 0 && (tcb = ready_front(&s->tcpip.ready)) != NULL; i++)
        ready_next(&s->tcpip.ready, tcb, socket_turn(s, tcb));
}

int sockets_round(struct sockets *s, uint64_t now_ns, int64_t wall_s)
{
    s->rounds++;
    tcpip_clock(&s->tcpip, now_ns / 1000, wall_s);
    if (atomic_load_explicit(&s->next_generation, memory_order_relaxed) != NULL)
        tcpip_swap(&s->tcpip, atomic_exchange(&s->next_generation, NULL));
    bool drains = atomic_load_explicit(&s->drain, memory_order_relaxed) && !s->drained;
    take_events(s);
    /* After all that epoll has said: what it has said of a connection must not be taken for another's. */
    accept_ready(s);
    if (drains) {
        accept_end(s);
        tcpip_drain(&s->tcpip);
        s->drained = true;
    }
    run_timers(s);
    run_turns(s);
    accept_try_again(s);
    return s->error;
}

static uint64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static int64_t wall_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    return now.tv_sec;
}

/* How long there is nothing to do unless something happens. */
static int sleep_ms(const struct sockets *s)
{
    uint64_t deadline_us = tcpip_deadline_us(&s->tcpip), now_us = monotonic_ns() / 1000;
    if (ready_front(&s->tcpip.ready) != NULL)
        return 0;
    if (!s->accepting && !s->drained && s->accept_at_us < deadline_us)
        deadline_us = s->accept_at_us;
    if (deadline_us == UINT64_MAX)
        return -1;
    return deadline_us <= now_us ? 0 : (int)((deadline_us - now_us + 999) / 1000);
}

int sockets_run(struct sockets *s)
{
    int error = 0;
    tcpip_clock(&s->tcpip, monotonic_ns() / 1000, wall_s());
    while (error == 0 && !atomic_load_explicit(&s->stop, memory_order_relaxed)) {
        error = sockets_wait(s, sleep_ms(s));
        if (error == 0)
            error = sockets_round(s, monotonic_ns(), wall_s());
    }
    if (error == 0)
        tcpip_abort(&s->tcpip);
    return error;
}

void sockets_poke(struct sockets *s)
{
    eventfd_write(s->wake_fd, 1);
}

uint64_t sockets_rounds(const struct sockets *s)
{
    return s->rounds;
}

bool sockets_swap(struct sockets *s, struct generation *generation)
{
    struct generation *none = NULL;
    if (!atomic_compare_exchange_strong(&s->next_generation, &none, generation))
        return false;
    sockets_poke(s);
    return true;
}

struct generation *sockets_generation(const struct sockets *s)
{
    return generation_newest(&s->tcpip.generations);
}

uint32_t sockets_need_older(const struct sockets *s)
{
    return tcpip_need_older(&s->tcpip);
}

void sockets_stop(struct sockets *s)
{
    atomic_store(&s->stop, true);
    eventfd_write(s->wake_fd, 1);
}

void sockets_drain(struct sockets *s)
{
    atomic_store(&s->drain, true);
    eventfd_write(s->wake_fd, 1);
}

uint32_t sockets_unfinished(const struct sockets *s)
{
    return s->drained ? tcpip_unfinished(&s->tcpip) : UINT32_MAX;
}

void *sockets_app_state(struct sockets *s)
{
    return s->tcpip.app_state;
}

uint64_t sockets_memory_bytes(const struct sockets *s)
{
    return s->memory_bytes;
}

uint32_t sockets_connections(const struct sockets *s)
{
    return tcb_table_count(&s->tcpip.connections);
}

uint32_t sockets_response_uses(const struct sockets *s, uint32_t response)
{
    const struct tcpip *tcpip = &s->tcpip;
    const struct image *image = &generation_newest(&tcpip->generations)->image;
    if (tcpip->app->response_uses == NULL || response >= image->header->response_count)
        return 0;
    return tcpip->app->response_uses(tcpip->app_state)[response];
}

/* What of libtcpip's counters is not about segments. */
#define CARRIED_COUNTERS(X)                                                                                          \
    X(tcp_opened)                                                                                                    \
    X(tcp_closed)                                                                                                    \
    X(tcp_rx_rst)                                                                                                    \
    X(tcp_tx_rst)                                                                                                    \
    X(tcp_timeout_idle)                                                                                              \
    X(tcp_timeout_request)                                                                                           \
    X(tcp_timeout_send)                                                                                              \
    X(tcp_timeout_fin_wait)                                                                                          \
    X(tcp_timeout_swap)                                                                                              \
    X(tcp_evicted_incomplete_requests)                                                                               \
    X(tcp_evicted_pipelined)                                                                                         \
    X(tcp_evicted_composed)                                                                                          \
    X(tcp_evicted_idle)                                                                                              \
    X(tcp_drop_after_close)                                                                                          \
    X(tcp_drop_linger)
#define CARRIED_OFFSET(name) offsetof(struct tcpip_counters, name),

static const char *const own_names[] = {SOCKETS_COUNTERS(COUNTER_NAME)};
static const char *const carried_names[] = {CARRIED_COUNTERS(COUNTER_NAME)};
static const size_t carried_offsets[] = {CARRIED_COUNTERS(CARRIED_OFFSET)};
#define OWN_COUNT ((uint32_t)(sizeof(own_names) / sizeof(own_names[0])))
#define CARRIED_COUNT ((uint32_t)(sizeof(carried_names) / sizeof(carried_names[0])))

uint32_t sockets_counter_count(const struct sockets *s)
{
    return OWN_COUNT + CARRIED_COUNT + s->tcpip.app->counter_count;
}

const char *sockets_counter_name(const struct sockets *s, uint32_t index)
{
    if (index < OWN_COUNT)
        return own_names[index];
    if (index < OWN_COUNT + CARRIED_COUNT)
        return carried_names[index - OWN_COUNT];
    return index < sockets_counter_count(s) ? s->tcpip.app->counter_names[index - OWN_COUNT - CARRIED_COUNT] : NULL;
}

uint64_t sockets_counter(const struct sockets *s, uint32_t index)
{
    if (index < OWN_COUNT)
        return ((const uint64_t *)&s->counters)[index];
    if (index < OWN_COUNT + CARRIED_COUNT) {
        const uint8_t *counters = (const uint8_t *)&s->tcpip.counters;
        return *(const uint64_t *)(const void *)(counters + carried_offsets[index - OWN_COUNT]);
    }
    if (index >= sockets_counter_count(s) || s->tcpip.app->counters == NULL)
        return 0;
    return s->tcpip.app->counters(s->tcpip.app_state)[index - OWN_COUNT - CARRIED_COUNT];
}
