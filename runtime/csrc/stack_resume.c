/* Connections of a process that is gone, or goes: stack_resume and stack_records. */
#include "libtcpip/records.h"
#include "libtcpip/resume.h"
#include "stack.h"
#include "stack_state.h"

/* Counters of the application, which lie where they lay there. */
static void copy_app_counters(struct stack *stack, const struct stack *from)
{
    struct stack_view view;
    stack_view(stack, &view);
    if (view.app_counters == NULL)
        return;
    size_t offset = (size_t)((const uint8_t *)view.app_counters - (const uint8_t *)stack);
    memcpy((uint8_t *)stack + offset, (const uint8_t *)from + offset, view.app->counter_count * sizeof(uint64_t));
}

void stack_resume(struct stack *stack, const struct stack *from, uint32_t swaps)
{
    stack->eth.counters = from->eth.counters;
    copy_app_counters(stack, from);
    tcpip_resume(&stack->tcpip, &from->tcpip, swaps);
    stack_link_resumed(stack, &from->eth.config);
}

uint64_t stack_records_bytes(const struct stack *stack)
{
    return tcpip_records_bytes(&stack->tcpip);
}

uint64_t stack_records_write(const struct stack *stack, uint8_t *memory, uint64_t len_bytes)
{
    return tcpip_records_write(&stack->tcpip, memory, len_bytes);
}

bool stack_resume_records(struct stack *stack, const uint8_t *memory, uint64_t len_bytes)
{
    bool are_read = tcpip_resume_records(&stack->tcpip, memory, len_bytes);
    stack_link_resumed(stack, &stack->eth.config);
    return are_read;
}
