#define _GNU_SOURCE
#include "server.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "confine.h"
#include "loop.h"
#include "orders.h"

struct server_thread {
    struct worker *worker;
    uint32_t number;
};

/* Of the process that is the server. */
static struct server_thread threads[SERVER_WORKERS_MAX];
/* First all threads have started, which takes calls of its own; then the process is confined; then workers begin. */
static pthread_barrier_t barrier;
static atomic_uint running;
static int supervisor_fd;

static void tell(uint32_t kind, uint32_t number, int result, uint32_t confined_by)
{
    struct server_news news = {kind, number, result, confined_by};
    ssize_t sent = send(supervisor_fd, &news, sizeof(news), MSG_NOSIGNAL);
    (void)sent; /* it has gone: that is seen elsewhere */
}

static void tell_of_order(const struct swaps_news *news)
{
    tell(news->kind, news->number, news->result, 0);
}

static _Noreturn void refuse(int error)
{
    tell(SERVER_REFUSED, 0, error, 0);
    _exit(1);
}

static void *run(void *argument)
{
    const struct server_thread *thread = argument;
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    int result = worker_run(thread->worker);
    tell(SERVER_WORKER_ENDED, thread->number, result, 0);
    if (atomic_fetch_sub(&running, 1) == 1)
        _exit(0); /* the last one */
    return NULL;
}

static int compare(const void *a, const void *b)
{
    int one = *(const int *)a, other = *(const int *)b;
    return (one > other) - (one < other);
}

/* All that workers do not use: what the supervisor has open opens doors. Standard error stays for what is told of a fault. */
static void close_others(const struct server_options *options)
{
    static int kept[SERVER_WORKERS_MAX * WORKER_FDS + 2];
    size_t count = 0;
    kept[count++] = STDERR_FILENO;
    kept[count++] = supervisor_fd;
    for (uint32_t i = 0; i < options->worker_count; i++)
        count += worker_fds(options->workers[i], kept + count);
    qsort(kept, count, sizeof(*kept), compare);
    unsigned int first = 0;
    for (size_t i = 0; i < count; i++) {
        if ((unsigned int)kept[i] > first)
            close_range(first, (unsigned int)kept[i] - 1, 0);
        first = (unsigned int)kept[i] + 1;
    }
    close_range(first, ~0u, 0);
}

/* The supervisor says when to end: a terminal's Ctrl-C, or a service manager's word to all processes, is for it. */
static void leave_signals_to_supervisor(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGPIPE};
    sigset_t none;
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        signal(signals[i], SIG_IGN);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static int start_thread(const struct server_options *options, uint32_t number)
{
    pthread_t thread;
    pthread_attr_t attributes;
    threads[number] = (struct server_thread){options->workers[number], number};
    pthread_attr_init(&attributes);
    if (options->cpus[number] >= 0) {
        cpu_set_t cpus;
        CPU_ZERO(&cpus);
        CPU_SET((size_t)options->cpus[number], &cpus);
        pthread_attr_setaffinity_np(&attributes, sizeof(cpus), &cpus);
    }
    int error = pthread_create(&thread, &attributes, run, &threads[number]);
    pthread_attr_destroy(&attributes);
    return -error;
}

static int start_threads(const struct server_options *options)
{
    int error = -pthread_barrier_init(&barrier, NULL, options->worker_count + 1);
    atomic_store(&running, options->worker_count);
    for (uint32_t i = 0; i < options->worker_count && error == 0; i++)
        error = start_thread(options, i);
    return error;
}

static _Noreturn void serve(const struct server_options *options)
{
    uint32_t confined_by = 0;
    leave_signals_to_supervisor();
    close_others(options);
    const struct swaps_workers workers = {options->workers, NULL, options->worker_count, options->app};
    struct swaps *swaps = swaps_create(&workers, options->mappings);
    if (swaps == NULL)
        refuse(-errno);
    int error = 0;
    if (options->swapped != NULL)
        error = swaps_begin(swaps, options->swapped_number, options->swapped, options->swapped_mappings);
    if (error != 0)
        refuse(error);
    error = confine_identity(options->change_user, options->uid, options->gid);
    if (error != 0)
        refuse(error);
    if (confine_files() == 0)
        confined_by |= SERVER_FILES_CONFINED;
    error = start_threads(options);
    if (error != 0)
        refuse(error);
    pthread_barrier_wait(&barrier);
    if (confine_calls() == 0)
        confined_by |= SERVER_CALLS_CONFINED;
    tell(SERVER_READY, 0, 0, confined_by);
    pthread_barrier_wait(&barrier);
    orders_obey(&(struct orders){.fd = supervisor_fd,
                                 .workers = &workers,
                                 .swaps = swaps,
                                 .traces = options->traces,
                                 .trace_count = options->trace_count,
                                 .tell = tell_of_order});
    for (uint32_t i = 0; i < options->worker_count; i++)
        worker_stop(options->workers[i]);
    for (;;)
        ppoll(NULL, 0, NULL, NULL); /* the last worker ends the process */
}

int server_fork(const struct server_options *options, int *fd)
{
    int ends[2];
    if (options->worker_count == 0 || options->worker_count > SERVER_WORKERS_MAX)
        return -EINVAL;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return -errno;
    pid_t pid = fork();
    int error = pid < 0 ? -errno : 0;
    if (pid == 0) {
        supervisor_fd = ends[1];
        close(ends[0]);
        serve(options);
    }
    close(ends[1]);
    if (error != 0) {
        close(ends[0]);
        return error;
    }
    *fd = ends[0];
    return pid;
}
