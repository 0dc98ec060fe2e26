#include "kv.h"

#include <string.h>

#include "libtcpip/tcpip.h"
#include "wire/counters.h"

#define KV_COUNTERS(X)                                                                                               \
    X(kv_requests)                                                                                                   \
    X(kv_hits)                                                                                                       \
    X(kv_misses)                                                                                                     \
    X(kv_bad_commands)                                                                                               \
    X(kv_bad_keys)                                                                                                   \
    X(kv_bad_lines)                                                                                                  \
    X(kv_refused_writes)

_Static_assert(KV_LINE_BYTES_MAX <= TCB_RECEIVE_BYTES, "a line that is allowed must fit where it is collected");

/* What would change the store. */
static const char *const writing_commands[] = {"set",  "add",  "replace", "append", "prepend", "cas",      "delete",
                                               "incr", "decr", "touch",   "gat",    "gats",    "flush_all"};

struct text {
    const uint8_t *data;
    uint32_t len_bytes;
};

struct kv_counters COUNTERS_DEFINE(KV_COUNTERS);

struct kv {
    const struct kv_store *store;
    struct tcpip *tcpip;
    struct kv_counters counters;
};

static bool text_is(struct text text, const char *word)
{
    return text.len_bytes == strlen(word) && memcmp(text.data, word, text.len_bytes) == 0;
}

static void skip(struct text *text, uint32_t len_bytes)
{
    text->data += len_bytes;
    text->len_bytes -= len_bytes;
}

/* Takes the next word off a line. False: there is none. */
static bool take_word(struct text *line, struct text *word)
{
    while (line->len_bytes > 0 && line->data[0] == ' ')
        skip(line, 1);
    if (line->len_bytes == 0)
        return false;
    const uint8_t *space = memchr(line->data, ' ', line->len_bytes);
    *word = (struct text){line->data, space != NULL ? (uint32_t)(space - line->data) : line->len_bytes};
    skip(line, word->len_bytes);
    return true;
}

/* The first line of data, without its end and without spaces there. Returns the bytes it took; 0: it is not whole. */
static uint32_t take_line(const uint8_t *data, uint32_t len_bytes, struct text *line)
{
    uint32_t most = len_bytes < KV_LINE_BYTES_MAX ? len_bytes : KV_LINE_BYTES_MAX;
    const uint8_t *end = memchr(data, '\n', most);
    if (end == NULL)
        return 0;
    *line = (struct text){data, (uint32_t)(end - data)};
    if (line->len_bytes > 0 && data[line->len_bytes - 1] == '\r')
        line->len_bytes--;
    while (line->len_bytes > 0 && data[line->len_bytes - 1] == ' ')
        line->len_bytes--;
    return (uint32_t)(end - data) + 1;
}

/* Queues the first len_bytes of an answer. */
static void kv_write(struct kv *kv, struct tcb *tcb, const struct kv_answer *answer, uint32_t len_bytes)
{
    struct response_slice slice = {.first_frame = answer->first_frame};
    tcpip_write(kv->tcpip, tcb, &slice, len_bytes);
}

static void write_text(struct kv *kv, struct tcb *tcb, enum kv_text text)
{
    const struct kv_answer *answer = &kv->store->texts[text];
    kv_write(kv, tcb, answer, answer->stream_bytes);
}

static bool keys_fit(struct text keys)
{
    struct text key;
    while (take_word(&keys, &key))
        if (key.len_bytes > KV_KEY_BYTES_MAX)
            return false;
    return true;
}

/* The answers to a line of keys, as many as there is room for. tcb->app: bytes of keys that have been answered. What a
 * peer sends again needn't be what it sent before, so that may be more than there are now. False: more is to be written
 * when a slice is free. */
static bool answer_keys(struct kv *kv, struct tcb *tcb, struct text keys)
{
    struct text key;
    uint32_t all_bytes = keys.len_bytes;
    skip(&keys, tcb->app < all_bytes ? (uint32_t)tcb->app : all_bytes);
    while (tcpip_can_write(tcb) && take_word(&keys, &key)) {
        bool last = keys.len_bytes == 0;
        const struct kv_answer *answer = kv_store_find(kv->store, key.data, key.len_bytes);
        if (answer != NULL) {
            COUNT(kv, kv_hits);
            kv_write(kv, tcb, answer, last ? answer->stream_bytes : answer->stream_bytes - KV_END_BYTES);
        } else {
            COUNT(kv, kv_misses);
            if (last)
                write_text(kv, tcb, KV_TEXT_END);
        }
        tcb->app = all_bytes - keys.len_bytes;
    }
    return keys.len_bytes == 0;
}

/* False: more is to be written when a slice is free. */
static bool answer_get(struct kv *kv, struct tcb *tcb, struct text keys)
{
    if (keys.len_bytes == 0) {
        COUNT(kv, kv_bad_commands);
        write_text(kv, tcb, KV_TEXT_ERROR);
        return true;
    }
    if (tcb->app == 0 && !keys_fit(keys)) {
        COUNT(kv, kv_bad_keys);
        write_text(kv, tcb, KV_TEXT_BAD_KEY);
        return true;
    }
    return answer_keys(kv, tcb, keys);
}

static bool is_writing_command(struct text command)
{
    for (size_t i = 0; i < sizeof(writing_commands) / sizeof(writing_commands[0]); i++)
        if (text_is(command, writing_commands[i]))
            return true;
    return false;
}

/* False: more is to be written when a slice is free. */
static bool answer_line(struct kv *kv, struct tcb *tcb, struct text line)
{
    struct text command = {line.data, 0};
    take_word(&line, &command);
    if (tcb->app == 0)
        COUNT(kv, kv_requests);
    if (text_is(command, "get"))
        return answer_get(kv, tcb, line);
    if (text_is(command, "version")) {
        write_text(kv, tcb, KV_TEXT_VERSION);
    } else if (text_is(command, "quit")) {
        tcpip_finish(kv->tcpip, tcb);
    } else if (is_writing_command(command)) {
        COUNT(kv, kv_refused_writes);
        write_text(kv, tcb, KV_TEXT_READ_ONLY);
        tcpip_finish(kv->tcpip, tcb);
    } else {
        COUNT(kv, kv_bad_commands);
        write_text(kv, tcb, KV_TEXT_ERROR);
    }
    return true;
}

static uint32_t kv_receive(struct tcpip *tcpip, struct tcb *tcb, const uint8_t *data, uint32_t len_bytes)
{
    struct kv *kv = tcpip->app_state;
    uint32_t taken = 0;
    while (taken < len_bytes && tcpip_can_write(tcb)) {
        struct text line;
        uint32_t line_bytes = take_line(data + taken, len_bytes - taken, &line);
        if (line_bytes == 0 && len_bytes - taken >= KV_LINE_BYTES_MAX) {
            COUNT(kv, kv_bad_lines);
            write_text(kv, tcb, KV_TEXT_LINE_TOO_LONG);
            tcpip_finish(kv->tcpip, tcb);
        }
        if (line_bytes == 0 || !answer_line(kv, tcb, line))
            break;
        taken += line_bytes;
        tcb->app = 0;
        if (kv->tcpip->draining)
            tcpip_finish(kv->tcpip, tcb);
    }
    return taken;
}

static bool kv_has_pending_response(const struct tcb *tcb)
{
    return tcb->app > 0;
}

static void *kv_lay_out(struct layout *layout, const void *data)
{
    (void)data;
    return layout_take(layout, sizeof(struct kv));
}

static void kv_init(void *state, struct tcpip *tcpip, const void *data)
{
    struct kv *kv = state;
    kv->tcpip = tcpip;
    kv->store = data;
}

static const uint64_t *kv_counters(const void *state)
{
    return (const uint64_t *)&((const struct kv *)state)->counters;
}

static const char *const counter_names[] = {KV_COUNTERS(COUNTER_NAME)};

/* A client that is silent gets no answer: it expects none unasked. */
/* Frames are all that its slices say, and more keys than a line has are none. */
static bool kv_resume(void *state, struct tcb *tcb, uint32_t from)
{
    (void)state;
    (void)tcb;
    (void)from;
    return true;
}

const struct tcpip_app kv_app = {.lay_out = kv_lay_out,
                                 .resume = kv_resume,
                                 .init = kv_init,
                                 .counters = kv_counters,
                                 .counter_names = counter_names,
                                 .counter_count = sizeof(counter_names) / sizeof(counter_names[0]),
                                 .receive = kv_receive,
                                 .has_pending_response = kv_has_pending_response};
