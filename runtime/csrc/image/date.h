/* HTTP dates, RFC 9110 section 5.6.7. */
#ifndef SANDSTORM_DATE_H
#define SANDSTORM_DATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Writes the SSI_DATE_BYTES bytes of an IMF-fixdate, not terminated. unix_s: seconds since 1970-01-01 UTC. */
void date_format(int64_t unix_s, uint8_t *text);

/* Reads an IMF-fixdate, an RFC 850 date or an asctime date, as a recipient must. False if it is none. now_s decides
 * the century of RFC 850's two digits. */
bool date_parse(const uint8_t *text, size_t len_bytes, int64_t now_s, int64_t *unix_s);

#endif
