#include "access_line.h"

#include <string.h>

#include "access_head.h"
#include "access_log.h"
#include "image/date.h"
#include "image/decimal.h"
#include "wire/ip_family.h"
#include "wire/wire.h"

#define ENDED_US_MAX (INT64_MAX / 4) /* what is later has not been written by a worker of ours */

/* Where a line is written; what has no room is left out. */
struct text_out {
    uint8_t *at, *end;
    bool json, full;
};

/* An answer, as a line says it. */
struct access_line {
    struct access_entry entry; /* a copy: what it is of may change */
    struct access_head head;
    struct access_reader *reader;
    int64_t ended_us; /* since 1970 */
};

static void put(struct text_out *out, const void *text, size_t bytes)
{
    if ((size_t)(out->end - out->at) < bytes) {
        out->full = true;
        return;
    }
    memcpy(out->at, text, bytes);
    out->at += bytes;
}

static void put_string(struct text_out *out, const char *text)
{
    put(out, text, strlen(text));
}

static void put_number(struct text_out *out, uint64_t number)
{
    uint8_t digits[DECIMAL_BYTES_MAX] = {0};
    put(out, digits, decimal_put(digits, number));
}

/* With zeros in front. */
static void put_digits(struct text_out *out, uint64_t number, uint32_t count)
{
    uint8_t digits[DECIMAL_BYTES_MAX];
    for (uint32_t i = count; i-- > 0; number /= 10)
        digits[i] = (uint8_t)('0' + number % 10);
    put(out, digits, count);
}

static void put_seconds(struct text_out *out, uint64_t us)
{
    put_number(out, us / 1000000);
    put_string(out, ".");
    put_digits(out, us % 1000000, 6);
}

/* A number that is not known. */
static void put_unknown(struct text_out *out)
{
    put_string(out, out->json ? "null" : "-");
}

/* A byte that could end a field or a line, or that a terminal would take for a command: as nginx writes it, or as JSON must have it.
 * Bytes that are not ASCII are written so too, each for itself: what clients send need not be UTF-8, and JSON must. */
static void put_escaped_byte(struct text_out *out, uint8_t byte)
{
    static const char hex[] = "0123456789ABCDEF";
    char text[6] = {'\\', 'x', hex[byte >> 4], hex[byte & 15]};
    if (!out->json) {
        put(out, text, 4);
    } else if (byte == '"' || byte == '\\') {
        text[1] = (char)byte;
        put(out, text, 2);
    } else {
        memcpy(text, (char[]){'\\', 'u', '0', '0', hex[byte >> 4], hex[byte & 15]}, 6);
        put(out, text, 6);
    }
}

static bool is_plain(uint8_t byte)
{
    return byte >= 0x20 && byte < 0x7f && byte != '"' && byte != '\\';
}

/* What a client has said. */
static void put_text(struct text_out *out, struct http_text text)
{
    if (text.len_bytes == 0 && !out->json)
        put_string(out, "-");
    for (uint32_t at = 0; at < text.len_bytes;) {
        uint32_t from = at;
        while (at < text.len_bytes && is_plain(text.data[at]))
            at++;
        put(out, text.data + from, at - from);
        if (at < text.len_bytes)
            put_escaped_byte(out, text.data[at++]);
    }
}

static void put_ipv4(struct text_out *out, const uint8_t *address)
{
    for (uint32_t i = 0; i < 4; i++) {
        if (i > 0)
            put_string(out, ".");
        put_number(out, address[i]);
    }
}

static void put_hex(struct text_out *out, uint32_t number)
{
    char text[4];
    uint32_t count = 0;
    for (uint32_t shift = 16; shift > 0; shift -= 4)
        if (count > 0 || shift == 4 || number >> (shift - 4) != 0)
            text[count++] = "0123456789abcdef"[number >> (shift - 4) & 15];
    put(out, text, count);
}

/* RFC 5952: the longest run of two zeros at least is "::", the first of several. */
static void put_ipv6(struct text_out *out, const uint8_t *address)
{
    uint32_t best = 0, best_count = 1;
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t count = 0;
        while (i + count < 8 && address[2 * (i + count)] == 0 && address[2 * (i + count) + 1] == 0)
            count++;
        if (count > best_count) {
            best = i;
            best_count = count;
        }
    }
    for (uint32_t i = 0; i < 8; i++) {
        if (best_count > 1 && i == best) {
            put_string(out, "::");
            i += best_count - 1;
            continue;
        }
        if (i > 0 && !(best_count > 1 && i == best + best_count))
            put_string(out, ":");
        put_hex(out, (uint32_t)address[2 * i] << 8 | address[2 * i + 1]);
    }
}

static void put_remote_addr(struct text_out *out, const struct access_line *line)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff}; /* RFC 4291 section 2.5.5.2 */
    const uint8_t *peer = line->entry.flow.peer;
    if (line->entry.flow.family == IP_FAMILY_V4)
        put_ipv4(out, peer);
    else if (memcmp(peer, mapped, sizeof(mapped)) == 0)
        put_ipv4(out, peer + sizeof(mapped));
    else
        put_ipv6(out, peer);
}

static void put_remote_port(struct text_out *out, const struct access_line *line)
{
    put_number(out, be16(line->entry.flow.peer_port));
}

static void put_remote_user(struct text_out *out, const struct access_line *line)
{
    (void)line;
    put_text(out, (struct http_text){0});
}

/* The second's date in local time, as IMF-fixdate has it: "Sun, 06 Nov 1994 08:49:37 GMT". */
static const uint8_t *date_of(const struct access_line *line)
{
    struct access_reader *reader = line->reader;
    int64_t shown_s = line->ended_us / 1000000 + reader->utc_offset_s;
    if (shown_s != reader->shown_s || reader->date_text[0] == 0) {
        date_format(shown_s, reader->date_text);
        reader->shown_s = shown_s;
    }
    return reader->date_text;
}

static void put_utc_offset(struct text_out *out, int32_t offset_s, const char *between)
{
    uint32_t minutes = (uint32_t)(offset_s < 0 ? -offset_s : offset_s) / 60;
    put_string(out, offset_s < 0 ? "-" : "+");
    put_digits(out, minutes / 60, 2);
    put_string(out, between);
    put_digits(out, minutes % 60, 2);
}

/* 06/Nov/1994:08:49:37 +0000 */
static void put_time_local(struct text_out *out, const struct access_line *line)
{
    const uint8_t *date = date_of(line);
    put(out, date + 5, 2);
    put_string(out, "/");
    put(out, date + 8, 3);
    put_string(out, "/");
    put(out, date + 12, 4);
    put_string(out, ":");
    put(out, date + 17, 8);
    put_string(out, " ");
    put_utc_offset(out, line->reader->utc_offset_s, "");
}

/* 1994-11-06T08:49:37+00:00 */
static void put_time_iso8601(struct text_out *out, const struct access_line *line)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    const uint8_t *date = date_of(line);
    uint32_t month = 0;
    while (month < 11 && memcmp(months + (size_t)3 * month, date + 8, 3) != 0)
        month++;
    put(out, date + 12, 4);
    put_string(out, "-");
    put_digits(out, month + 1, 2);
    put_string(out, "-");
    put(out, date + 5, 2);
    put_string(out, "T");
    put(out, date + 17, 8);
    put_utc_offset(out, line->reader->utc_offset_s, ":");
}

static void put_msec(struct text_out *out, const struct access_line *line)
{
    put_number(out, (uint64_t)line->ended_us / 1000000);
    put_string(out, ".");
    put_digits(out, (uint64_t)line->ended_us / 1000 % 1000, 3);
}

static void put_request(struct text_out *out, const struct access_line *line)
{
    put_text(out, line->head.line);
}

static void put_request_method(struct text_out *out, const struct access_line *line)
{
    put_text(out, line->head.method);
}

static void put_request_uri(struct text_out *out, const struct access_line *line)
{
    put_text(out, line->head.target);
}

static void put_args(struct text_out *out, const struct access_line *line)
{
    struct http_text target = line->head.target, args = {0};
    const uint8_t *mark = target.data != NULL ? memchr(target.data, '?', target.len_bytes) : NULL;
    if (mark != NULL)
        args = (struct http_text){mark + 1, (uint32_t)(target.data + target.len_bytes - mark - 1)};
    put_text(out, args);
}

static void put_server_protocol(struct text_out *out, const struct access_line *line)
{
    put_text(out, line->head.protocol);
}

static void put_http_host(struct text_out *out, const struct access_line *line)
{
    put_text(out, line->head.host);
}

/* Without its port; the colons of an IPv6 address are in brackets. */
static void put_host(struct text_out *out, const struct access_line *line)
{
    struct http_text host = line->head.host;
    for (uint32_t i = host.len_bytes; i-- > 0 && host.data[i] != ']';)
        if (host.data[i] == ':')
            host.len_bytes = i;
    put_text(out, host);
}

static void put_http_referer(struct text_out *out, const struct access_line *line)
{
    put_text(out, line->head.referer);
}

static void put_http_user_agent(struct text_out *out, const struct access_line *line)
{
    put_text(out, line->head.user_agent);
}

static void put_status(struct text_out *out, const struct access_line *line)
{
    if (line->entry.status == 0)
        put_string(out, out->json ? "0" : "000");
    else
        put_number(out, line->entry.status);
}

static void put_bytes_sent(struct text_out *out, const struct access_line *line)
{
    put_number(out, line->entry.acked_bytes);
}

static void put_body_bytes_sent(struct text_out *out, const struct access_line *line)
{
    uint64_t bytes = line->entry.acked_bytes, head_bytes = line->entry.response_head_bytes;
    put_number(out, bytes > head_bytes ? bytes - head_bytes : 0);
}

static void put_request_length(struct text_out *out, const struct access_line *line)
{
    put_number(out, line->entry.request_bytes);
}

static void put_request_time(struct text_out *out, const struct access_line *line)
{
    put_seconds(out, line->entry.ended_us - line->entry.begun_us);
}

static void put_first_byte_time(struct text_out *out, const struct access_line *line)
{
    if (line->entry.first_sent_us == 0)
        put_unknown(out);
    else
        put_seconds(out, line->entry.first_sent_us - line->entry.begun_us);
}

/* As nginx has it: OK, or nothing. */
static void put_request_completion(struct text_out *out, const struct access_line *line)
{
    struct http_text ok = {(const uint8_t *)"OK", line->entry.whole && line->entry.status != 0 ? 2 : 0};
    put_text(out, ok);
}

static void put_tcpinfo_rtt(struct text_out *out, const struct access_line *line)
{
    if (line->entry.rtt_us == 0)
        put_unknown(out);
    else
        put_number(out, line->entry.rtt_us);
}

static void put_retransmissions(struct text_out *out, const struct access_line *line)
{
    put_number(out, line->entry.resent_segments);
}

static void put_variant(struct text_out *out, const struct access_line *line)
{
    static const char *const names[SSI_ENCODING_COUNT] = {"identity", "gzip", "br", "zstd"};
    if (line->entry.encoding < SSI_ENCODING_COUNT)
        put_string(out, names[line->entry.encoding]);
    else
        put_text(out, (struct http_text){0});
}

static void put_level(struct text_out *out, const struct access_line *line)
{
    put_string(out, line->entry.status >= 500 ? "error" : "info");
}

/* What a pattern may name; head: it is read from the request's head. */
struct access_variable {
    const char *name;
    void (*put)(struct text_out *out, const struct access_line *line);
    bool head;
};

static const struct access_variable variables[] = {
    {"args", put_args, true},
    {"body_bytes_sent", put_body_bytes_sent, false},
    {"bytes_sent", put_bytes_sent, false},
    {"first_byte_time", put_first_byte_time, false},
    {"host", put_host, true},
    {"http_host", put_http_host, true},
    {"http_referer", put_http_referer, true},
    {"http_user_agent", put_http_user_agent, true},
    {"level", put_level, false},
    {"msec", put_msec, false},
    {"remote_addr", put_remote_addr, false},
    {"remote_port", put_remote_port, false},
    {"remote_user", put_remote_user, false},
    {"request", put_request, true},
    {"request_completion", put_request_completion, false},
    {"request_length", put_request_length, false},
    {"request_method", put_request_method, true},
    {"request_time", put_request_time, false},
    {"request_uri", put_request_uri, true},
    {"retransmissions", put_retransmissions, false},
    {"server_protocol", put_server_protocol, true},
    {"status", put_status, false},
    {"tcpinfo_rtt", put_tcpinfo_rtt, false},
    {"time_iso8601", put_time_iso8601, false},
    {"time_local", put_time_local, false},
    {"variant", put_variant, false},
};
#define VARIABLES ((uint32_t)(sizeof(variables) / sizeof(variables[0])))

const char *access_variable_name(uint32_t index)
{
    return index < VARIABLES ? variables[index].name : NULL;
}

static uint32_t variable_find(const char *name, size_t name_bytes)
{
    for (uint32_t i = 0; i < VARIABLES; i++)
        if (strlen(variables[i].name) == name_bytes && memcmp(variables[i].name, name, name_bytes) == 0)
            return i;
    return ACCESS_TEXT;
}

static const char *add_piece(struct access_format *format, struct access_piece piece)
{
    if (format->piece_count == ACCESS_PIECES_MAX)
        return "there are more than 64 parts";
    format->pieces[format->piece_count++] = piece;
    return NULL;
}

static const char *add_text(struct access_format *format, const char *text, size_t bytes)
{
    if (bytes > ACCESS_TEXT_BYTES - format->text_bytes)
        return "it is too long";
    struct access_piece piece = {ACCESS_TEXT, format->text_bytes, (uint32_t)bytes};
    memcpy(format->text + format->text_bytes, text, bytes);
    format->text_bytes += (uint32_t)bytes;
    return bytes > 0 ? add_piece(format, piece) : NULL;
}

static bool is_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
}

/* Of "$name" or "${name}" the end. NULL: it is neither. */
static const char *name_end(const char *dollar, const char **name, size_t *name_bytes)
{
    bool braced = dollar[1] == '{';
    const char *at = *name = dollar + 1 + braced;
    while (is_name(*at))
        at++;
    *name_bytes = (size_t)(at - *name);
    if (*name_bytes == 0 || (braced && *at != '}'))
        return NULL;
    return at + braced;
}

static const char *add_variable(struct access_format *format, const char **at)
{
    const char *name;
    size_t name_bytes;
    const char *end = name_end(*at, &name, &name_bytes);
    if (end == NULL)
        return "a dollar sign begins no name";
    uint32_t variable = variable_find(name, name_bytes);
    if (variable == ACCESS_TEXT)
        return "there is no such variable";
    format->heads = format->heads || variables[variable].head;
    const char *error = add_piece(format, (struct access_piece){variable, 0, 0});
    if (error == NULL)
        *at = end;
    return error;
}

/* Takes a word off the beginning of a text, if it is there. */
static bool take_word(const char **at, const char *word)
{
    size_t bytes = strlen(word);
    if (strlen(*at) < bytes || memcmp(*at, word, bytes) != 0)
        return false;
    *at += bytes;
    return true;
}

const char *access_format_read(struct access_format *format, const char *pattern, uint32_t *place)
{
    const char *at = pattern, *error = NULL;
    *format = (struct access_format){.json = take_word(&at, "escape=json ")};
    if (!format->json)
        take_word(&at, "escape=default ");
    while (error == NULL && *at != '\0') {
        const char *dollar = memchr(at, '$', strlen(at));
        size_t bytes = dollar != NULL ? (size_t)(dollar - at) : strlen(at);
        error = add_text(format, at, bytes);
        if (error == NULL)
            at += bytes;
        if (error == NULL && dollar != NULL)
            error = add_variable(format, &at);
    }
    if (error == NULL)
        error = format->piece_count == 0 ? "it is empty" : add_text(format, "\n", 1);
    *place = (uint32_t)(at - pattern);
    return error;
}

static void put_line(struct text_out *out, const struct access_format *format, const struct access_line *line)
{
    for (uint32_t i = 0; i < format->piece_count; i++) {
        const struct access_piece *piece = &format->pieces[i];
        if (piece->variable == ACCESS_TEXT)
            put(out, format->text + piece->text_at, piece->text_bytes);
        else
            variables[piece->variable].put(out, line);
    }
}

void access_reader_open(struct access_reader *reader, struct access_log *log)
{
    *reader = (struct access_reader){.log = log,
                                     .entries = log->entries,
                                     .ended = log->ended.numbers,
                                     .returned = log->returned.numbers,
                                     .entry_count = log->pool.count,
                                     .ended_mask = log->ended.mask,
                                     .returned_mask = log->returned.mask,
                                     .sample = 1};
}

/* A copy of what may change, within bounds. */
static void copy_entry(struct access_entry *copy, const struct access_entry *entry, bool heads)
{
    memcpy(copy, entry, offsetof(struct access_entry, head));
    if (!heads || copy->head_bytes > ACCESS_HEAD_BYTES)
        copy->head_bytes = 0;
    memcpy(copy->head, entry->head, copy->head_bytes);
    copy->whole = copy->whole != 0; /* nothing is worked out from what it is else */
    if (copy->ended_us > ENDED_US_MAX)
        copy->ended_us = 0;
    if (copy->begun_us > copy->ended_us)
        copy->begun_us = copy->ended_us;
    if (copy->first_sent_us < copy->begun_us)
        copy->first_sent_us = 0;
}

/* Is it one of those that are written? */
static bool is_wanted(struct access_reader *reader, const struct access_entry *entry)
{
    if (entry->status >= 400 || !entry->whole || entry->status == 0)
        return true;
    if (++reader->turn < reader->sample)
        return false;
    reader->turn = 0;
    return true;
}

/* False: there is no room for its line. */
static bool write_entry(struct access_reader *reader, const struct access_format *format, struct access_line *line,
                        struct text_out *out)
{
    uint8_t *from = out->at;
    uint32_t turn = reader->turn;
    if (!is_wanted(reader, &line->entry)) {
        reader->left_out++;
        return true;
    }
    line->ended_us = (int64_t)line->entry.ended_us + reader->wall_us;
    access_head_read(line->entry.head, line->entry.head_bytes, &line->head);
    put_line(out, format, line);
    if (out->full) {
        out->at = from;
        reader->turn = turn;
        return false;
    }
    reader->lines++;
    return true;
}

static bool read_entry(struct access_reader *reader, uint32_t number, const struct access_format *format,
                       struct text_out *out)
{
    struct access_line line = {.reader = reader};
    copy_entry(&line.entry, &reader->entries[number], format->heads);
    return write_entry(reader, format, &line, out);
}

void access_reader_end(struct access_reader *reader, uint64_t now_us)
{
    reader->worker_ended_us = now_us > 0 ? now_us : 1;
}

/* What is still in use will never end by itself. */
static void read_rest(struct access_reader *reader, const struct access_format *format, struct text_out *out)
{
    for (; reader->rest < reader->entry_count; reader->rest++) {
        struct access_line line = {.reader = reader};
        if (reader->entries[reader->rest].in_use == 0)
            continue;
        copy_entry(&line.entry, &reader->entries[reader->rest], format->heads);
        line.entry.ended_us = reader->worker_ended_us;
        line.entry.acked_bytes = 0;
        line.entry.whole = 0;
        if (line.entry.begun_us > line.entry.ended_us)
            line.entry.begun_us = line.entry.ended_us;
        if (!write_entry(reader, format, &line, out))
            break;
    }
}

/* How far the ring has been written. A worker of ours never has more in it than there are entries. */
static uint32_t ended_written(struct access_reader *reader)
{
    uint32_t written = atomic_load_explicit(&reader->log->ended.written, memory_order_acquire);
    if (written - reader->ended_read <= reader->entry_count)
        return written;
    reader->damaged++;
    return reader->ended_read = written;
}

uint32_t access_log_read(struct access_reader *reader, const struct access_format *format, uint8_t *out,
                         uint32_t out_bytes)
{
    struct text_out text = {.at = out, .end = out + out_bytes, .json = format->json};
    uint32_t written = ended_written(reader);
    for (; reader->ended_read != written; reader->ended_read++) {
        uint32_t number = reader->ended[reader->ended_read & reader->ended_mask];
        if (number < reader->entry_count && !read_entry(reader, number, format, &text))
            break;
        reader->returned[reader->returned_written++ & reader->returned_mask] = number;
    }
    atomic_store_explicit(&reader->log->returned.written, reader->returned_written, memory_order_release);
    if (reader->worker_ended_us != 0 && reader->ended_read == written)
        read_rest(reader, format, &text);
    return (uint32_t)(text.at - out);
}
