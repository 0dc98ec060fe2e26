/* Heads that have come before, and what they were answered with: most requests are the same bytes again, from the same browser
 * or program for the same file. What is found here is not parsed, and no route is looked for.
 *
 * Only such answers are kept as follow from the head and the image alone. A head is compared whole, so that whoever makes two
 * with one hash gains nothing but that neither is kept for long. It is kept when it comes to its place for the second time, with no
 * other that is not kept between: heads that never come again do not push out others. Where few are found, as with more files than places, looking
 * pauses. */
#ifndef SANDSTORM_HEAD_MEMO_H
#define SANDSTORM_HEAD_MEMO_H

#include <stdbool.h>
#include <stdint.h>

#include "wire/layout.h"

#define HEAD_MEMO_PLACES 1024 /* a power of two */
#define HEAD_MEMO_BYTES_MIN 16 /* of a head */
#define HEAD_MEMO_BYTES_MAX 992
#define HEAD_MEMO_TRIALS 4096 /* lookups, */
#define HEAD_MEMO_FOUND_MIN 512 /* of which so many must be found, */
#define HEAD_MEMO_PAUSE 65536 /* or so many are left out */

/* A response whole, or its head. */
struct head_answer {
    uint32_t response, variant; /* indices; variant: whose 304 it is */
    uint32_t site; /* that was asked */
    uint16_t path_at, path_bytes; /* in the head */
    bool head, close;
};

struct head_place {
    uint64_t missed_hash; /* of what came last and was not kept */
    uint64_t hash;
    uint32_t len_bytes; /* 0: nothing is kept */
    struct head_answer answer;
    uint8_t bytes[HEAD_MEMO_BYTES_MAX];
};

struct head_memo {
    struct head_place *places; /* [HEAD_MEMO_PLACES] */
    uint32_t looked, found; /* of HEAD_MEMO_TRIALS */
    uint32_t pause; /* lookups left out */
};

/* Places for heads, none of which is kept at first. */
struct head_place *head_memo_lay_out(struct layout *layout);

/* Where a head that is all of these bytes belongs; NULL: nowhere, or looking pauses. */
struct head_place *head_memo_place(struct head_memo *memo, const uint8_t *data, uint32_t len_bytes, uint64_t *hash);

/* Is it the one kept there? */
bool head_memo_has(struct head_memo *memo, const struct head_place *place, uint64_t hash, const uint8_t *data,
                   uint32_t len_bytes);

/* It was answered like this. */
void head_memo_keep(struct head_place *place, uint64_t hash, const uint8_t *data, uint32_t len_bytes,
                    const struct head_answer *answer);

#endif
