/* How this folder says what went wrong: SR_BACKEND_FAILURE [status; ""; text with path and reason]. */
#ifndef STORAGE_IMAGE_IMAGE_ERROR_H
#define STORAGE_IMAGE_IMAGE_ERROR_H

#include "rpc/base/arena.h"
#include "rpc/base/error.h"

struct error *image_failed(struct arena *, const char *what, const char *path, int error); /* error: an errno, of either sign */
struct error *image_damaged(struct arena *, const char *path, const char *fmt, ...) PRINTF(3, 4);
struct error *image_refused(struct arena *, const char *fmt, ...) PRINTF(2, 3);

#endif
