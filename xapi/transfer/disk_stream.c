#include "xapi/transfer/disk_stream.h"

#include <string.h>

#include "gen/errors.h"

#define NOTE_MS 1000

struct error *disk_stream_tick(struct disk_stream *s, double fraction)
{
    int64_t now = clock_ms(s->call->clock);

    if (call_cancelled(s->call))
        return error_make(s->call->arena, __FILE__, __LINE__, "TASK_CANCELLED", 0);
    if (now - s->noted_ms < NOTE_MS)
        return NULL;
    s->noted_ms = now;
    return s->note != NULL ? s->note(s->ctx, fraction) : NULL;
}

struct error *disk_failed(struct disk_stream *s, const char *what, int rc)
{
    struct error *e = err_vdi_io_error(s->call->arena);
    e->cause = arena_printf(s->call->arena, "%s: %s", what, strerror(-rc));
    return e;
}

struct error *stream_failed(struct disk_stream *s, const char *what, int rc)
{
    return err_internal(s->call->arena, "%s: the connection failed: %s", what, strerror(-rc));
}

struct error *stream_malformed(struct disk_stream *s, const char *what)
{
    return err_internal(s->call->arena, "the image that was sent is damaged: %s", what);
}

static bool is_zero(const char *bytes, size_t n)
{
    return n == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, n - 1) == 0);
}

#define ZERO_STEP 65536u

struct error *disk_put(struct disk_stream *s, const char *bytes, uint32_t length, int64_t offset)
{
    for (uint32_t at = 0; at < length;) { /* runs of blocks that are zero, or not */
        uint32_t n = length - at < ZERO_STEP ? length - at : ZERO_STEP;
        bool zero = is_zero(bytes + at, n);
        while (at + n < length) {
            uint32_t more = length - at - n < ZERO_STEP ? length - at - n : ZERO_STEP;
            if (is_zero(bytes + at + n, more) != zero)
                break;
            n += more;
        }
        int rc = zero ? nbd_zero(s->disk, n, (uint64_t)(offset + at), false) : nbd_write(s->disk, bytes + at, n, (uint64_t)(offset + at), false);
        if (rc != 0)
            return disk_failed(s, "writing the disk", rc);
        at += n;
    }
    return NULL;
}

/* --- raw ------------------------------------------------------------------------------------------------------ */
struct error *raw_export(struct disk_stream *s)
{
    for (int64_t at = 0; at < s->size;) {
        uint32_t n = s->size - at < DISK_STREAM_CHUNK ? (uint32_t)(s->size - at) : DISK_STREAM_CHUNK;
        int rc = nbd_read(s->disk, s->buffer, n, (uint64_t)at);
        if (rc != 0)
            return disk_failed(s, "reading the disk", rc);
        rc = bytes_write(s->stream, s->buffer, n);
        if (rc != 0)
            return stream_failed(s, "export", rc);
        at += n;
        TRY(disk_stream_tick(s, (double)at / (double)s->size));
    }
    return NULL;
}

/* As much as there is, up to a chunk. */
static int read_chunk(struct disk_stream *s, uint32_t *n_r)
{
    for (*n_r = 0; *n_r < DISK_STREAM_CHUNK;) {
        ssize_t got = bytes_read(s->stream, s->buffer + *n_r, DISK_STREAM_CHUNK - *n_r);
        if (got <= 0)
            return (int)got;
        *n_r += (uint32_t)got;
    }
    return 0;
}

struct error *raw_import(struct disk_stream *s)
{
    for (int64_t at = 0;;) {
        uint32_t n;
        int rc = read_chunk(s, &n);
        if (rc != 0)
            return stream_failed(s, "import", rc);
        if (n == 0)
            break;
        if (n % 512 != 0 && at + n < s->size) {
            memset(s->buffer + n, 0, 512 - n % 512); /* the last sector is filled up */
            n += 512 - n % 512;
        }
        if (at + n > s->size)
            return stream_malformed(s, "it is larger than the disk");
        TRY(disk_put(s, s->buffer, n, at));
        at += n;
        TRY(disk_stream_tick(s, (double)at / (double)s->size));
    }
    int rc = nbd_flush(s->disk);
    return rc == 0 ? NULL : disk_failed(s, "flushing the disk", rc);
}
