#define _GNU_SOURCE
#include "fault.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static char fault_line[FAULT_LINE_BYTES];

/* Only what signal-safety(7) allows. */
static void on_fault(int number)
{
    (void)number;
    ssize_t written = write(STDERR_FILENO, fault_line, strlen(fault_line));
    (void)written;
    _exit(1);
}

void fault_line_set(const char *line)
{
    size_t bytes = strlen(line);
    if (bytes > FAULT_LINE_BYTES - 1)
        bytes = FAULT_LINE_BYTES - 1;
    memcpy(fault_line, line, bytes);
    fault_line[bytes] = '\0';
}

int fault_guard(const char *line)
{
    struct sigaction action = {.sa_handler = on_fault};
    fault_line_set(line);
    return sigaction(SIGBUS, &action, NULL) < 0 ? -errno : 0;
}
