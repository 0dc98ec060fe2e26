#include "date.h"

#include <string.h>

static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
static const char weekdays[] = "SunMonTueWedThuFriSat";

/* Days since 1970-01-01 of a Gregorian date; years begin in March, so that the leap day is the last. */
static int64_t days_from_civil(int64_t year, int64_t month, int64_t day)
{
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    int64_t year_of_era = year - era * 400;
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + day_of_era - 719468;
}

static void civil_from_days(int64_t days, int64_t *year, int64_t *month, int64_t *day)
{
    days += 719468;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    int64_t day_of_era = days - era * 146097;
    int64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t shifted = (5 * day_of_year + 2) / 153;
    *day = day_of_year - (153 * shifted + 2) / 5 + 1;
    *month = shifted + (shifted < 10 ? 3 : -9);
    *year = year_of_era + era * 400 + (*month <= 2);
}

static void two_digits(uint8_t *at, int64_t value)
{
    at[0] = (uint8_t)('0' + value / 10 % 10);
    at[1] = (uint8_t)('0' + value % 10);
}

void date_format(int64_t unix_s, uint8_t *text)
{
    int64_t days = (unix_s >= 0 ? unix_s : unix_s - 86399) / 86400;
    int64_t second = unix_s - days * 86400;
    int64_t year, month, day;
    civil_from_days(days, &year, &month, &day);
    memcpy(text, "Thu, 01 Jan 1970 00:00:00 GMT", 29);
    memcpy(text, weekdays + 3 * ((days % 7 + 11) % 7), 3);
    two_digits(text + 5, day);
    memcpy(text + 8, months + 3 * (month - 1), 3);
    two_digits(text + 12, year / 100);
    two_digits(text + 14, year);
    two_digits(text + 17, second / 3600);
    two_digits(text + 20, second / 60 % 60);
    two_digits(text + 23, second % 60);
}

struct date_fields {
    int64_t year, month, day, hour, minute, second;
};

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

/* Two digits, or a space and one. */
static bool take_number(const uint8_t *text, int64_t *number)
{
    if (!is_digit(text[1]) || (!is_digit(text[0]) && text[0] != ' '))
        return false;
    *number = (is_digit(text[0]) ? text[0] - '0' : 0) * 10 + text[1] - '0';
    return true;
}

static bool take_month(const uint8_t *text, int64_t *month)
{
    *month = 0;
    for (int m = 0; m < 12; m++)
        if (memcmp(months + 3 * m, text, 3) == 0)
            *month = m + 1;
    return *month != 0;
}

static bool take_year_digit(uint8_t c, int64_t *year)
{
    *year = *year * 10 + c - '0';
    return is_digit(c);
}

/* A pattern's letters: d two digits or, for asctime, a space and one; y a year's digits; m a month's name; w any letter;
 * all else stands for itself. */
static bool match(const char *pattern, const uint8_t *text, struct date_fields *fields)
{
    int64_t *numbers[4] = {&fields->day, &fields->hour, &fields->minute, &fields->second};
    int number = 0;
    for (const char *p = pattern; *p != '\0'; p++) {
        bool matches = false;
        uint32_t bytes = 1;
        if (*p == 'd') {
            matches = take_number(text, numbers[number++]);
            bytes = 2;
        } else if (*p == 'y') {
            matches = take_year_digit(*text, &fields->year);
        } else if (*p == 'm') {
            matches = take_month(text, &fields->month);
            bytes = 3;
        } else if (*p == 'w') {
            matches = (*text | 32) >= 'a' && (*text | 32) <= 'z';
        } else {
            matches = *text == (uint8_t)*p;
        }
        if (!matches)
            return false;
        text += bytes;
    }
    return true;
}

bool date_parse(const uint8_t *text, size_t len_bytes, int64_t now_s, int64_t *unix_s)
{
    struct date_fields f = {0};
    const uint8_t *comma = memchr(text, ',', len_bytes);
    bool read = false;
    if (len_bytes == 29) {
        read = match("www, d m yyyy d:d:d GMT", text, &f);
    } else if (len_bytes == 24) {
        read = match("www m d d:d:d yyyy", text, &f);
    } else if (comma != NULL && comma - text >= 6 && comma - text <= 9 && text + len_bytes - comma == 24) {
        read = match(", d-m-yy d:d:d GMT", comma, &f);
        int64_t year, month, day;
        civil_from_days(now_s / 86400, &year, &month, &day);
        f.year += year - year % 100;
        if (f.year > year + 50) /* RFC 9110: more than fifty years ahead is the past */
            f.year -= 100;
    }
    if (!read || f.day < 1 || f.day > 31 || f.hour > 23 || f.minute > 59 || f.second > 60)
        return false;
    *unix_s = days_from_civil(f.year, f.month, f.day) * 86400 + f.hour * 3600 + f.minute * 60 + f.second;
    return true;
}
