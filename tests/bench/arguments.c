#include "arguments.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Noreturn void stop(const char *why)
{
    fprintf(stderr, "%s\n", why);
    exit(2);
}

void take_option(const struct number_option *known, size_t count, const char *word)
{
    const char *equals = strchr(word, '=');
    size_t name_bytes = equals != NULL ? (size_t)(equals - word) : strlen(word);
    for (size_t i = 0; equals != NULL && i < count; i++) {
        if (strlen(known[i].name) == name_bytes && strncmp(word, known[i].name, name_bytes) == 0) {
            *known[i].value = strtoull(equals + 1, NULL, 10);
            return;
        }
    }
    stop("no such option");
}

static void take_target(const struct image *image, const char *path, struct target *targets, uint32_t *count,
                        uint32_t max)
{
    if (*count == max || !target_make(&targets[(*count)++], image, path))
        stop("no route for a path");
}

uint64_t take_targets(const struct image *image, char *word, struct target *targets, uint32_t *count, uint32_t max)
{
    char *rest = strchr(word, ':');
    if (rest == NULL)
        stop("write REQUESTS:PATH[,PATH...]");
    unsigned first, last;
    if (sscanf(rest + 1, "%u-%u", &first, &last) == 2) {
        for (; first <= last; first++) {
            char path[16];
            snprintf(path, sizeof(path), "/%u", first);
            take_target(image, path, targets, count, max);
        }
    } else {
        for (char *path = strtok(rest + 1, ","); path != NULL; path = strtok(NULL, ","))
            take_target(image, path, targets, count, max);
    }
    return strtoull(word, NULL, 10);
}

void print_counters(struct stack *const *stacks, uint32_t count)
{
    for (uint32_t i = 0; i < stack_counter_count(stacks[0]); i++) {
        uint64_t value = 0;
        for (uint32_t s = 0; s < count; s++)
            value += stack_counter(stacks[s], i);
        printf("%s\"%s\": %" PRIu64, i > 0 ? ", " : "", stack_counter_name(stacks[0], i), value);
    }
}
