/* What the test programs on clients.h have in common of their command lines and of what they print. */
#ifndef BENCH_ARGUMENTS_H
#define BENCH_ARGUMENTS_H

#include "clients.h"
#include "stack.h"

struct number_option {
    const char *name;
    uint64_t *value;
};

/* Ends the program with a message. */
_Noreturn void stop(const char *why);

/* Sets an option from "NAME=VALUE"; ends the program if there is none of that name. */
void take_option(const struct number_option *known, size_t count, const char *word);

/* Takes "REQUESTS:PATH[,PATH...]", or "REQUESTS:FIRST-LAST" for paths that are numbers: appends to targets[max], of which
 * *count are there, each path as asked for by the first of so many programs, clients.h. Returns the requests. */
uint64_t take_targets(const struct image *image, char *word, uint32_t programs, struct target *targets,
                      uint32_t *count, uint32_t max);

/* Prints the sums of the stacks' counters as the members of a JSON object. */
void print_counters(const struct stack_view *views, uint32_t count);

#endif
