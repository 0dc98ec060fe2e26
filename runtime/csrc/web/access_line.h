/* The reader of an access log (access_log.h): lines of text, by a pattern as nginx's log_format has it. The log may lie in memory that
 * another process writes, and which is not to be trusted: nothing that is in it once a reader has been opened can do more than make
 * lines wrong. */
#ifndef SANDSTORM_ACCESS_LINE_H
#define SANDSTORM_ACCESS_LINE_H

#include <stdbool.h>
#include <stdint.h>

struct access_log;
struct access_entry;

#define ACCESS_PIECES_MAX 64
#define ACCESS_TEXT_BYTES 2048
#define ACCESS_OUT_BYTES_MIN 524288 /* no line is longer, however much of it has to be escaped */

/* A variable, or text as it stands. */
struct access_piece {
    uint32_t variable; /* its number, or ACCESS_TEXT */
    uint32_t text_at, text_bytes;
};
#define ACCESS_TEXT 0xffffffff

struct access_format {
    bool json; /* what is escaped is escaped for JSON */
    bool heads; /* something of requests' heads is in it */
    uint32_t piece_count, text_bytes;
    struct access_piece pieces[ACCESS_PIECES_MAX];
    uint8_t text[ACCESS_TEXT_BYTES];
};

/* Reads a pattern: text with $name or ${name}, and escape=json or escape=default and a blank in front if need be. Returns NULL, or what
 * is wrong with it; then *place is where. */
const char *access_format_read(struct access_format *format, const char *pattern, uint32_t *place);
/* A variable's name; NULL beyond the last. */
const char *access_variable_name(uint32_t index);

/* What a reader keeps: where everything is, and how far it has come. log itself is only written to and read from: no pointer in it is
 * followed. */
struct access_reader {
    struct access_log *log;
    const struct access_entry *entries; /* [entry_count] */
    const uint32_t *ended; /* [ended_mask + 1], numbers of entries */
    uint32_t *returned; /* [returned_mask + 1] */
    uint32_t entry_count, ended_mask, returned_mask;
    uint32_t ended_read, returned_written;
    int64_t wall_us; /* what must be added to the log's clock for the time of day; set before each read */
    int32_t utc_offset_s; /* of local time; likewise */
    uint32_t sample; /* one of so many answers is written; errors and those that did not arrive always are */
    uint32_t turn;
    uint64_t lines, left_out; /* so far */
    uint64_t damaged; /* how often the ring said what no worker of ours writes; what was in it is lost */
    uint32_t rest; /* of the entries those before have been looked at for answers that a worker's end cut short */
    uint64_t worker_ended_us; /* by the log's clock; 0: it goes on */
    int64_t shown_s; /* the second that date_text is of */
    uint8_t date_text[32];
};

/* Before anybody else may write where the log lies. It begins with nothing set, and sample 1. */
void access_reader_open(struct access_reader *reader, struct access_log *log);

/* The worker has ended, or is gone: access_log_read will have the answers that are under way too, as cut short. now_us: by the log's
 * clock. */
void access_reader_end(struct access_reader *reader, uint64_t now_us);

/* Writes a line for each answer that has ended, as many as there is room for, and gives their entries back. out_bytes must be
 * ACCESS_OUT_BYTES_MIN at least. Returns the bytes; 0: there is none. */
uint32_t access_log_read(struct access_reader *reader, const struct access_format *format, uint8_t *out,
                         uint32_t out_bytes);

#endif
