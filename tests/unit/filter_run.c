/* The program of filter.bpf.c that ends frames' way (its verdict is the other's), as the kernel runs it: a line is a command, in hex what
 * it is about.
 *
 * load 0|1     for shared or own-address mode, served port 8080: 0 or -errno
 * address X    is ours now: 0 or -errno
 * forget X     is not: 0 or -errno
 * frame X      1: it is ours */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SANDSTORM_AFXDP
#include "libnmio/filter.c"

#define PORT 8080
#define LINE_BYTES 8192
#define TCX_DROP 2

static uint32_t from_hex(const char *text, uint8_t *bytes)
{
    uint32_t count = 0;
    unsigned value;
    while (sscanf(text + (size_t)2 * count, "%2x", &value) == 1)
        bytes[count++] = (uint8_t)value;
    return count;
}

static int verdict(const struct nmio_filter *filter, const uint8_t *frame, uint32_t len_bytes)
{
    LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = frame, .data_size_in = len_bytes);
    int program_fd = bpf_program__fd(bpf_object__find_program_by_name(filter->object, "filter_tcx"));
    int error = bpf_prog_test_run_opts(program_fd, &run);
    return error < 0 ? error : run.retval == TCX_DROP;
}

static int obey(struct nmio_filter *filter, const char *line)
{
    static uint8_t bytes[LINE_BYTES];
    const char *rest = strchr(line, ' ') + 1;
    uint32_t count = from_hex(rest, bytes);
    if (strncmp(line, "load", 4) == 0)
        return load(filter, "filter_tcx", PORT, *rest == '1');
    if (strncmp(line, "address", 7) == 0)
        return nmio_filter_address(filter, bytes, count);
    if (strncmp(line, "forget", 6) == 0)
        return nmio_filter_forget(filter, bytes, count);
    return verdict(filter, bytes, count);
}

int main(void)
{
    static char line[LINE_BYTES];
    static struct nmio_filter filter;
    while (fgets(line, sizeof(line), stdin) != NULL) {
        int answer = obey(&filter, line);
        printf("%d\n", answer);
        if (filter.config == NULL)
            return 1;
    }
    return 0;
}
