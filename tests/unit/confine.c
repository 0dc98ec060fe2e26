/* Gives up rights as the server does, and says after each step which of some things a stranger's code might try still succeed. A line
 * each: a step's name, then those that do. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "server/confine.h"

static int port; /* of a socket that listens on 127.0.0.1 */

static bool opens(const char *path, int flags)
{
    int fd = open(path, flags, 0600);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static bool reads_a_file(void)
{
    return opens("/etc/passwd", O_RDONLY);
}

static bool writes_a_file(void)
{
    return opens("/tmp", O_TMPFILE | O_RDWR);
}

static bool opens_a_device(void)
{
    return opens("/dev/null", O_RDWR);
}

static bool makes_a_socket(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static bool connects(void)
{
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    there.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    bool done = fd >= 0 && connect(fd, (struct sockaddr *)&there, sizeof(there)) == 0;
    if (fd >= 0)
        close(fd);
    return done;
}

static bool forks(void)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    if (pid > 0)
        waitpid(pid, NULL, 0);
    return pid > 0;
}

static bool signals_its_parent(void)
{
    return kill(getppid(), 0) == 0;
}

static bool is_root_again(void)
{
    return setresuid(0, 0, 0) == 0;
}

static bool makes_a_raw_socket(void)
{
    int fd = socket(AF_INET, SOCK_RAW, IPPROTO_TCP);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static bool makes_code(void)
{
    void *memory = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory != MAP_FAILED;
}

static bool traces(void)
{
    return ptrace(PTRACE_SEIZE, getppid(), NULL, NULL) == 0 && ptrace(PTRACE_DETACH, getppid(), NULL, NULL) == 0;
}

static bool reads_time(void)
{
    struct timespec now;
    return syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now) == 0;
}

static bool has_memory(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED;
}

static bool sets_timer_slack(void)
{
    return prctl(PR_SET_TIMERSLACK, 1000) == 0;
}

static const struct {
    const char *name;
    bool (*works)(void);
} attempts[] = {
    {"reads-a-file", reads_a_file},
    {"writes-a-file", writes_a_file},
    {"opens-a-device", opens_a_device},
    {"makes-a-socket", makes_a_socket},
    {"connects", connects},
    {"forks", forks},
    {"signals-its-parent", signals_its_parent},
    {"is-root-again", is_root_again},
    {"makes-a-raw-socket", makes_a_raw_socket},
    {"makes-code", makes_code},
    {"traces", traces},
    {"reads-time", reads_time},
    {"has-memory", has_memory},
    {"sets-timer-slack", sets_timer_slack},
};

static void try_all(const char *step, int error)
{
    char line[1024];
    int used = snprintf(line, sizeof(line), "%s %d", step, error);
    for (size_t i = 0; i < sizeof(attempts) / sizeof(attempts[0]); i++)
        if (attempts[i].works())
            used += snprintf(line + used, sizeof(line) - (size_t)used, " %s", attempts[i].name);
    line[used++] = '\n';
    if (write(STDOUT_FILENO, line, (size_t)used) != used)
        _exit(3);
}

static int listen_somewhere(void)
{
    struct sockaddr_in here = {.sin_family = AF_INET};
    socklen_t bytes = sizeof(here);
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&here, sizeof(here)) < 0 || listen(fd, 100) < 0 ||
        getsockname(fd, (struct sockaddr *)&here, &bytes) < 0)
        return -errno;
    port = ntohs(here.sin_port);
    return 0;
}

int main(void)
{
    if (listen_somewhere() != 0)
        return 2;
    try_all("before", 0);
    try_all("identity", confine_identity(geteuid() == 0, 65534, 65534));
    try_all("files", confine_files());
    try_all("calls", confine_calls());
    return 0;
}
