/* What of a core is left over: spare CORE FILE. A loop that runs when nothing else wants the core (SCHED_IDLE) and reads
 * the clock: where more than GAP_NS lie between two readings, something else had the core, be it a thread, a softirq, an
 * interrupt or the host. The sum of the shorter steps is in the file's first eight bytes, for who has mapped it too: the
 * loop makes no system call. It ends with its parent. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "../clock.h"

#define GAP_NS 500 /* the loop's own steps are some 30 ns, an interrupt on a virtual machine is above 1,000 */

static void check(int failed, const char *what)
{
    if (!failed)
        return;
    fprintf(stderr, "spare: %s: %s\n", what, strerror(errno));
    exit(1);
}

int main(int argc, char **argv)
{
    cpu_set_t core;
    if (argc != 3) {
        fputs("usage: spare CORE FILE\n", stderr);
        return 2;
    }
    CPU_ZERO(&core);
    CPU_SET((size_t)atoi(argv[1]), &core);
    check(prctl(PR_SET_PDEATHSIG, SIGKILL) != 0, "prctl");
    check(sched_setaffinity(0, sizeof(core), &core) != 0, argv[1]);
    check(sched_setscheduler(0, SCHED_IDLE, &(struct sched_param){0}) != 0, "SCHED_IDLE");
    int fd = open(argv[2], O_RDWR | O_CLOEXEC);
    check(fd < 0 || ftruncate(fd, sizeof(uint64_t)) != 0, argv[2]);
    uint64_t *left_ns = mmap(NULL, sizeof(*left_ns), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    check(left_ns == MAP_FAILED, argv[2]);
    for (uint64_t last_ns = clock_ns();;) {
        uint64_t now_ns = clock_ns(), step_ns = now_ns - last_ns;
        if (step_ns < GAP_NS)
            __atomic_store_n(left_ns, *left_ns + step_ns, __ATOMIC_RELAXED);
        last_ns = now_ns;
    }
}
