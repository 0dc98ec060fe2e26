#define _GNU_SOURCE
#include "loop.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "libnmio/region.h"
#include "wire/probe.h"

#define LOOP_BATCH 64
/* Of so many received at once more are looked for before sleeping: of fewer that would most often be a call in vain. */
#define LOOP_BUSY 8
#define LOOP_SECRET_NS 120000000000ull /* a cookie is good for this long at least */

#define LOOP_COUNT_NS 20000000ull /* between two counts of what is unfinished */

#define LOOP_RESET_TRIES 1024 /* of a ring, for what is reset at the end */
#define LOOP_TIMER_SLACK_NS 1000 /* Linux would make a nap of 100 us half as long again */

/* What who steers the worker and who runs it tell each other. They may be two processes, and the one that steers does not trust the other:
 * nothing but numbers lies here, and none of them is the place of anything. */
struct worker_shared {
    struct wake wake;
    atomic_bool stop, drain, addresses_confirmed;
    atomic_bool drained; /* and what was idle has been told */
    atomic_bool woken; /* wake_fd has been written to, and is to be read */
    atomic_bool resumed; /* as after worker_restart */
    atomic_bool link_changed; /* link is the worker's to read; else its writer's */
    _Atomic uint32_t unfinished; /* once drained */
    struct stack_link link;
    struct nmio_port_counters port;
};

/* A process that is forked has one of its own. */
struct worker {
    struct nmio_port *port;
    struct stack *stack; /* in memory that is shared */
    size_t stack_bytes;
    enum wake_preference preference;
    struct stack_view view;
    struct worker_shared *shared;
    int wake_fd;
    struct stack *from; /* that of a process which is gone, whose connections go on; or NULL */
    size_t from_bytes;
    const uint8_t *left; /* instead, records that another build has left; or NULL */
    uint64_t left_bytes;
    uint64_t records_bytes; /* which ours would be at most */
    _Atomic(uint8_t *) records; /* where to leave them in the end; NULL: nobody goes on */
    uint32_t swaps; /* of the image, that have been taken up */
    bool drains; /* as has been asked */
    bool link_given; /* and which it was */
    struct stack_link link;
    uint64_t rotated_ns;
    uint64_t counted_ns; /* when unfinished was */
    _Atomic(struct generation *) next_generation; /* to be taken up, or NULL */
};

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

struct worker *worker_create(const struct stack_config *config, const struct image *image, struct nmio_port *port,
                             enum wake_preference preference)
{
    size_t bytes = stack_memory_bytes(config, image, port->region);
    struct worker *worker = bytes > 0 ? nmio_alloc(sizeof(*worker)) : NULL;
    if (worker == NULL)
        return NULL;
    void *memory = nmio_alloc_shared(bytes);
    worker->port = port;
    worker->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    worker->stack_bytes = bytes;
    worker->preference = preference;
    worker->shared = nmio_alloc_shared(sizeof(*worker->shared));
    if (memory != NULL)
        worker->stack = stack_init(memory, bytes, config, image, port->region, port->tx);
    if (worker->stack == NULL || worker->shared == NULL || worker->wake_fd < 0) {
        worker_destroy(worker);
        return NULL;
    }
    stack_view(worker->stack, &worker->view);
    worker->records_bytes = stack_records_bytes(worker->stack);
    worker->rotated_ns = monotonic_ns();
    wake_init(&worker->shared->wake, preference, worker->rotated_ns);
    return worker;
}

bool worker_restart(struct worker *worker, const struct stack_config *config, const struct image *image)
{
    size_t bytes = stack_memory_bytes(config, image, worker->port->region);
    void *memory = bytes > 0 ? nmio_alloc_shared(bytes) : NULL;
    if (memory == NULL)
        return false;
    struct worker_shared *shared = worker->shared;
    struct wake_counters waits = shared->wake.counters;
    struct nmio_port_counters port = shared->port;
    if ((worker->from != NULL || worker->left != NULL) && !worker_resumed(worker)) {
        nmio_free_shared(worker->stack, worker->stack_bytes); /* the one before has not come to take over */
    } else {
        worker_forget(worker);
        worker->from = worker->stack;
        worker->from_bytes = worker->stack_bytes;
    }
    worker->stack = stack_init(memory, bytes, config, image, worker->port->region, worker->port->tx);
    worker->stack_bytes = bytes;
    stack_view(worker->stack, &worker->view);
    if (worker->link_given)
        stack_link_change(worker->stack, &worker->link);
    memset(shared, 0, sizeof(*shared));
    wake_init(&shared->wake, worker->preference, monotonic_ns());
    shared->wake.counters = waits;
    shared->port = port;
    atomic_store(&shared->drain, worker->drains);
    return true;
}

void worker_forget(struct worker *worker)
{
    nmio_free_shared(worker->from, worker->from_bytes);
    worker->from = NULL;
    worker->left = NULL;
}

uint64_t worker_records_bytes(const struct worker *worker)
{
    return worker->records_bytes;
}

void worker_take_over(struct worker *worker, const uint8_t *records, uint64_t len_bytes)
{
    worker->left = records;
    worker->left_bytes = len_bytes;
}

void worker_leave(struct worker *worker, uint8_t *memory)
{
    atomic_store(&worker->records, memory);
    worker_stop(worker);
}

void worker_destroy(struct worker *worker)
{
    worker_forget(worker);
    nmio_free_shared(worker->stack, worker->stack_bytes);
    nmio_free_shared(worker->shared, sizeof(*worker->shared));
    if (worker->wake_fd >= 0)
        close(worker->wake_fd);
    nmio_free(worker);
}

static void rotate_secret(struct worker *worker, uint64_t now_ns)
{
    uint8_t secret[TCPIP_SECRET_BYTES];
    if (now_ns - worker->rotated_ns < LOOP_SECRET_NS)
        return;
    if (getrandom(secret, sizeof(secret), GRND_NONBLOCK) == sizeof(secret))
        stack_rotate_secret(worker->stack, secret);
    worker->rotated_ns = now_ns;
}

/* Sends what there is; goes on while the ring takes more and connections wait for it. */
static int send_all(struct worker *worker)
{
    for (;;) {
        stack_output(worker->stack);
        PROBE(port_output, worker->port, worker->port->tx->count);
        int error = worker->port->ops->output(worker->port);
        if (error != 0 || !stack_waits_for_space(worker->stack) || worker->port->tx->space == 0 ||
            worker->port->tx->count > 0)
            return error;
    }
}

static bool is_drained(const struct worker *worker)
{
    return atomic_load_explicit(&worker->shared->drained, memory_order_relaxed);
}

static void take_generation(struct worker *worker)
{
    if (atomic_load_explicit(&worker->next_generation, memory_order_relaxed) != NULL)
        stack_swap(worker->stack, atomic_exchange(&worker->next_generation, NULL));
}

/* Does what has been asked from outside. True: there is to be no idle connection from now on. */
static bool take_orders(struct worker *worker)
{
    struct worker_shared *shared = worker->shared;
    bool drains = atomic_load_explicit(&shared->drain, memory_order_relaxed) && !is_drained(worker);
    if (drains)
        stack_drain(worker->stack);
    if (atomic_load_explicit(&shared->addresses_confirmed, memory_order_relaxed)) {
        atomic_store(&shared->addresses_confirmed, false);
        stack_addresses_confirmed(worker->stack);
    }
    if (atomic_load_explicit(&shared->link_changed, memory_order_acquire)) {
        stack_link_change(worker->stack, &shared->link);
        atomic_store_explicit(&shared->link_changed, false, memory_order_release);
    }
    take_generation(worker);
    return drains;
}

/* Says how many connections are still to end, once draining has begun, and from then on while there are any. */
static void tell_unfinished(struct worker *worker, uint64_t now_ns, bool drains)
{
    struct worker_shared *shared = worker->shared;
    bool is_due = is_drained(worker) && atomic_load_explicit(&shared->unfinished, memory_order_relaxed) > 0 &&
                  now_ns - worker->counted_ns >= LOOP_COUNT_NS;
    if (!drains && !is_due)
        return;
    worker->counted_ns = now_ns;
    atomic_store_explicit(&shared->unfinished, stack_unfinished(worker->stack), memory_order_relaxed);
    atomic_store_explicit(&shared->drained, true, memory_order_release);
}

int worker_round(struct worker *worker)
{
    struct nmio_rx batch[LOOP_BATCH];
    struct nmio_port *port = worker->port;
    int received = port->ops->input(port, batch, LOOP_BATCH);
    PROBE(port_input, port, received);
    uint64_t now_ns = monotonic_ns();
    wake_round(&worker->shared->wake, now_ns, received > 0 ? (uint32_t)received : 0);
    stack_clock(worker->stack, now_ns, wall_s());
    rotate_secret(worker, now_ns);
    bool drains = take_orders(worker);
    if (received > 0)
        stack_input(worker->stack, batch, (uint32_t)received);
    int error = send_all(worker);
    tell_unfinished(worker, now_ns, drains);
    if (received > 0)
        port->ops->release(port, batch, (uint32_t)received);
    worker->shared->port = port->counters;
    return error != 0 ? error : received;
}

/* Until the time has passed or the worker is woken; frames wait in the port. */
static int nap(const struct worker *worker, int64_t timeout_ns)
{
    struct pollfd fd = {.fd = worker->wake_fd, .events = POLLIN};
    struct timespec limit = {timeout_ns / 1000000000, timeout_ns % 1000000000};
    return ppoll(&fd, 1, &limit, NULL) < 0 && errno != EINTR ? -errno : 0;
}

/* Space comes from the port, which must be asked for it. */
static bool waits_for_space(const struct worker *worker)
{
    return worker->port->tx->count > 0 || stack_waits_for_space(worker->stack);
}

/* When there is something to do, though nothing comes; UINT64_MAX: never. */
static uint64_t next_deadline_ns(const struct worker *worker)
{
    uint64_t deadline_ns = stack_deadline_ns(worker->stack), count_ns = worker->counted_ns + LOOP_COUNT_NS;
    bool counts = is_drained(worker) && atomic_load_explicit(&worker->shared->unfinished, memory_order_relaxed) > 0;
    return counts && count_ns < deadline_ns ? count_ns : deadline_ns;
}

/* Waits as is best for what comes, or not at all. 0 or -errno. */
static int wait_for_frames(struct worker *worker)
{
    struct nmio_port *port = worker->port;
    uint64_t deadline_ns = next_deadline_ns(worker), now_ns = monotonic_ns();
    struct wake_seen seen;
    if (deadline_ns <= now_ns)
        return 0;
    stack_seen(worker->stack, &seen);
    seen.frames = port->counters.rx_frames;
    struct wake_choice choice = wake_choose(&worker->shared->wake, now_ns, deadline_ns, &seen);
    if (choice.way == WAKE_SPIN)
        return 0;
    PROBE(port_wait, port, choice.timeout_ns);
    int error = choice.way == WAKE_NAP && !waits_for_space(worker)
                    ? nap(worker, choice.timeout_ns)
                    : port->ops->wait(port, choice.timeout_ns, worker->wake_fd);
    PROBE(port_awake, port, error);
    eventfd_t ignored;
    if (atomic_exchange_explicit(&worker->shared->woken, false, memory_order_relaxed))
        eventfd_read(worker->wake_fd, &ignored);
    return error;
}

/* Their peers learn that it is over; a port that takes nothing any more is not waited for. */
static void reset_unfinished(struct worker *worker)
{
    for (int tries = 0; tries < LOOP_RESET_TRIES && !stack_abort(worker->stack); tries++)
        if (worker->port->ops->output(worker->port) != 0)
            return;
    worker->port->ops->output(worker->port);
}

/* Goes on where another process has ended. */
static void resume(struct worker *worker)
{
    worker->port->counters = worker->shared->port;
    stack_clock(worker->stack, monotonic_ns(), wall_s());
    take_generation(worker); /* its image may be another than the one that all began with */
    if (worker->left != NULL)
        stack_resume_records(worker->stack, worker->left, worker->left_bytes);
    else
        stack_resume(worker->stack, worker->from, worker->swaps);
    worker_forget(worker);
    atomic_store(&worker->shared->resumed, true);
}

int worker_run(struct worker *worker)
{
    prctl(PR_SET_TIMERSLACK, LOOP_TIMER_SLACK_NS);
    if (worker->from != NULL || worker->left != NULL)
        resume(worker);
    while (!atomic_load_explicit(&worker->shared->stop, memory_order_relaxed)) {
        int received = worker_round(worker);
        if (received < 0)
            return received;
        if (received >= LOOP_BUSY || (received > 0 && stack_waits_for_space(worker->stack)))
            continue;
        int error = wait_for_frames(worker);
        if (error != 0)
            return error;
    }
    uint8_t *records = atomic_load(&worker->records);
    if (records != NULL)
        stack_records_write(worker->stack, records, worker->records_bytes);
    else
        reset_unfinished(worker);
    return 0;
}

/* In this order: once woken is seen there is something to read, so nobody is woken twice for the same. */
static void wake(struct worker *worker)
{
    eventfd_write(worker->wake_fd, 1);
    atomic_store(&worker->shared->woken, true);
}

void worker_poke(struct worker *worker)
{
    wake(worker);
}

void worker_stop(struct worker *worker)
{
    atomic_store(&worker->shared->stop, true);
    wake(worker);
}

void worker_drain(struct worker *worker)
{
    worker->drains = true;
    atomic_store(&worker->shared->drain, true);
    wake(worker);
}

uint32_t worker_unfinished(const struct worker *worker)
{
    const struct worker_shared *shared = worker->shared;
    return atomic_load_explicit(&shared->drained, memory_order_acquire) ? atomic_load(&shared->unfinished)
                                                                        : UINT32_MAX;
}

void worker_addresses_confirmed(struct worker *worker)
{
    atomic_store(&worker->shared->addresses_confirmed, true);
    wake(worker);
}

bool worker_link_taken(const struct worker *worker)
{
    return !atomic_load_explicit(&worker->shared->link_changed, memory_order_acquire);
}

bool worker_link_change(struct worker *worker, const struct stack_link *link)
{
    if (!worker_link_taken(worker))
        return false;
    worker->link = worker->shared->link = *link;
    worker->link_given = true;
    atomic_store_explicit(&worker->shared->link_changed, true, memory_order_release);
    wake(worker);
    return true;
}

bool worker_resumed(const struct worker *worker)
{
    return atomic_load(&worker->shared->resumed);
}

int worker_port_reopen(struct worker *worker)
{
    struct nmio_port *port = worker->port;
    return port->ops->reopen != NULL ? port->ops->reopen(port) : 0;
}

uint32_t worker_fds(const struct worker *worker, int *fds)
{
    uint32_t count = 0;
    fds[count++] = worker->wake_fd;
    if (worker->port->fd >= 0)
        fds[count++] = worker->port->fd;
    return count;
}

bool worker_swap(struct worker *worker, struct generation *generation)
{
    struct generation *none = NULL;
    if (!atomic_compare_exchange_strong(&worker->next_generation, &none, generation))
        return false;
    wake(worker);
    return true;
}

void worker_swapped(struct worker *worker, uint32_t swaps)
{
    worker->swaps = swaps;
}

struct stack *worker_stack(const struct worker *worker)
{
    return worker->stack;
}

const struct stack_view *worker_view(const struct worker *worker)
{
    return &worker->view;
}

const struct nmio_port_counters *worker_port_counters(const struct worker *worker)
{
    return &worker->shared->port;
}

const struct wake *worker_wake(const struct worker *worker)
{
    return &worker->shared->wake;
}

uint64_t worker_memory_bytes(const struct worker *worker)
{
    return worker->stack_bytes;
}

void nmio_port_close(struct nmio_port *port)
{
    port->ops->close(port);
}
