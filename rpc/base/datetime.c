/* Proleptic Gregorian calendar by counting days from 0000-03-01, so that the leap day ends the year. */
#include "rpc/base/datetime.h"

#include <stdio.h>

#include "rpc/base/check.h"

#define DAY 86400
#define DAYS_PER_ERA 146097      /* 400 years */
#define DAYS_TO_1970 719468      /* from 0000-03-01 */
#define EPOCH_MIN (-62167219200) /* 0000-01-01T00:00:00Z */
#define EPOCH_MAX 253402300799   /* 9999-12-31T23:59:59Z */

static int64_t days_from_date(int64_t year, int month, int day)
{
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    int64_t year_of_era = year - era * 400;
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * DAYS_PER_ERA + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - DAYS_TO_1970;
}

static void date_from_days(int64_t days, int *year_r, int *month_r, int *day_r)
{
    days += DAYS_TO_1970;
    int64_t era = (days >= 0 ? days : days - DAYS_PER_ERA + 1) / DAYS_PER_ERA;
    int64_t day_of_era = days - era * DAYS_PER_ERA;
    int64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t from_march = (5 * day_of_year + 2) / 153;

    *day_r = (int)(day_of_year - (153 * from_march + 2) / 5 + 1);
    *month_r = (int)(from_march < 10 ? from_march + 3 : from_march - 9);
    *year_r = (int)(year_of_era + era * 400 + (*month_r <= 2));
}

static char *put_digits(char *at, int n, int width)
{
    for (int i = width - 1; i >= 0; i--) {
        at[i] = (char)('0' + n % 10);
        n /= 10;
    }
    return at + width;
}

void datetime_format(int64_t epoch, char out[DATETIME_LEN + 1])
{
    int year, month, day;

    if (epoch < EPOCH_MIN)
        epoch = EPOCH_MIN;
    if (epoch > EPOCH_MAX)
        epoch = EPOCH_MAX;
    int64_t days = (epoch >= 0 ? epoch : epoch - DAY + 1) / DAY;
    int second = (int)(epoch - days * DAY);
    date_from_days(days, &year, &month, &day);

    char *at = put_digits(out, year, 4);
    at = put_digits(at, month, 2);
    at = put_digits(at, day, 2);
    *at++ = 'T';
    at = put_digits(at, second / 3600, 2);
    *at++ = ':';
    at = put_digits(at, second / 60 % 60, 2);
    *at++ = ':';
    at = put_digits(at, second % 60, 2);
    *at++ = 'Z';
    *at = '\0';
    CHECK(at - out == DATETIME_LEN);
}

struct cursor {
    const char *at, *end;
};

static bool take_byte(struct cursor *c, char byte)
{
    if (c->at == c->end || *c->at != byte)
        return false;
    c->at++;
    return true;
}

static bool take_digits(struct cursor *c, int width, int *n_r)
{
    int n = 0;

    if (c->end - c->at < width)
        return false;
    for (int i = 0; i < width; i++) {
        char d = c->at[i];
        if (d < '0' || d > '9')
            return false;
        n = n * 10 + (d - '0');
    }
    c->at += width;
    *n_r = n;
    return true;
}

/* yyyyMMdd or yyyy-MM-dd */
static bool take_date(struct cursor *c, int64_t *days_r)
{
    static const int lengths[] = { 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    int year, month, day;

    if (!take_digits(c, 4, &year))
        return false;
    bool dashed = take_byte(c, '-');
    if (!take_digits(c, 2, &month) || (dashed && !take_byte(c, '-')) || !take_digits(c, 2, &day))
        return false;
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    if (month < 1 || month > 12 || day < 1 || day > lengths[month - 1] - (month == 2 && !leap))
        return false;
    *days_r = days_from_date(year, month, day);
    return true;
}

/* HH:mm:ss or HHmmss, then perhaps a fraction, which is dropped; second 60 is a leap second */
static bool take_time(struct cursor *c, int *seconds_r)
{
    int hour, minute, second, digit;

    if (!take_digits(c, 2, &hour))
        return false;
    bool colons = take_byte(c, ':');
    if (!take_digits(c, 2, &minute) || (colons && !take_byte(c, ':')) || !take_digits(c, 2, &second))
        return false;
    if (hour > 23 || minute > 59 || second > 60)
        return false;
    if (take_byte(c, '.') || take_byte(c, ',')) {
        if (!take_digits(c, 1, &digit))
            return false;
        while (take_digits(c, 1, &digit))
            ;
    }
    *seconds_r = hour * 3600 + minute * 60 + second;
    return true;
}

/* Z, +hh:mm, -hhmm, +hh or nothing */
static bool take_zone(struct cursor *c, int *offset_r)
{
    int hours, minutes = 0;

    *offset_r = 0;
    if (c->at == c->end || take_byte(c, 'Z'))
        return true;
    bool west = take_byte(c, '-');
    if ((!west && !take_byte(c, '+')) || !take_digits(c, 2, &hours))
        return false;
    bool colon = take_byte(c, ':');
    if ((colon || c->at != c->end) && !take_digits(c, 2, &minutes))
        return false;
    if (hours > 23 || minutes > 59)
        return false;
    *offset_r = (hours * 3600 + minutes * 60) * (west ? -1 : 1);
    return true;
}

bool datetime_parse(const char *s, size_t len, int64_t *epoch_r)
{
    struct cursor c = { s, s + len };
    int64_t days;
    int seconds, offset;

    if (!take_date(&c, &days) || !take_byte(&c, 'T') || !take_time(&c, &seconds) || !take_zone(&c, &offset))
        return false;
    if (c.at != c.end)
        return false;
    *epoch_r = days * DAY + seconds - offset;
    return true;
}
