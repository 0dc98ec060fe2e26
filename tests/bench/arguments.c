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

/* Where targets go. */
struct taken {
    struct target *targets;
    uint32_t *count, max, programs;
};

static void take_path(const struct image *image, const char *path, const struct taken *taken)
{
    for (uint32_t program = 0; program < taken->programs; program++)
        if (*taken->count == taken->max || !target_make(&taken->targets[(*taken->count)++], image, path, program))
            stop("no route for a path, or too many");
}

uint64_t take_targets(const struct image *image, char *word, uint32_t programs, struct target *targets,
                      uint32_t *count, uint32_t max)
{
    const struct taken taken = {targets, count, max, programs};
    char *rest = strchr(word, ':');
    if (rest == NULL)
        stop("write REQUESTS:PATH[,PATH...]");
    unsigned first, last;
    if (sscanf(rest + 1, "%u-%u", &first, &last) == 2) {
        for (; first <= last; first++) {
            char path[16];
            snprintf(path, sizeof(path), "/%u", first);
            take_path(image, path, &taken);
        }
    } else {
        for (char *path = strtok(rest + 1, ","); path != NULL; path = strtok(NULL, ","))
            take_path(image, path, &taken);
    }
    return strtoull(word, NULL, 10);
}

void print_counters(const struct stack_view *views, uint32_t count)
{
    for (uint32_t i = 0; i < stack_counter_count(views); i++) {
        uint64_t value = 0;
        for (uint32_t s = 0; s < count; s++)
            value += stack_counter(&views[s], i);
        printf("%s\"%s\": %" PRIu64, i > 0 ? ", " : "", stack_counter_name(views, i), value);
    }
}
