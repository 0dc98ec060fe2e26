/* What to say when memory that is a file can't be read any more. */
#ifndef SANDSTORM_FAULT_H
#define SANDSTORM_FAULT_H

#define FAULT_LINE_BYTES 1024

/* From now on SIGBUS (mmap(2): a page behind the end of a file that was cut short, or one that its disk does not give) writes
 * this line to stderr and ends the process with status 1. A line that is too long is cut. Returns 0, or -errno. */
int fault_guard(const char *line);
/* Another line from now on. */
void fault_line_set(const char *line);

#endif
