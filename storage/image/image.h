/* Image files: making, reading the head of, growing, linking. Synchronous; the I/O path is tapd's.
 *
 * raw: the bytes. vhd: Microsoft's Virtual Hard Disk Image Format Specification 1.0 as the field uses it
 * (dynamic and differencing, 2 MiB blocks; parent by unique id and by name in locators "MACX" (file URI),
 * "W2ku", "W2ru"; hidden images marked as blktap does, in the footer). qcow2: by qemu-img (a child process).
 * Used by the drivers (storage/drivers) and tapd. Every file is foreign input: nothing in it is believed.
 *
 * Errors: SR_BACKEND_FAILURE [status; ""; text with path and reason]; text for a damaged image starts with
 * "damaged image". All block; the call's cancel is watched by the long ones. */
#ifndef STORAGE_IMAGE_IMAGE_H
#define STORAGE_IMAGE_IMAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "rpc/base/call.h"
#include "rpc/base/error.h"

struct image_info {
    const char *format;       /* "raw", "vhd", "qcow2" */
    int64_t virtual_size, physical_size; /* bytes; physical: blocks of the file system */
    const char *parent;       /* path of the parent image, "" if none; relative names resolved against the image */
    const char *parent_format;
    bool hidden;              /* a base that is no VDI of its own */
    const char *uuid;         /* of the image, "" where the format has none */
};

struct image_ops {
    const char *format, *suffix; /* "vhd", ".vhd" */
    bool can_have_parent;
    int64_t size_max, size_step; /* of virtual sizes */
    /* A new image that reads as zeros, or as its parent (same size or larger). The path must not exist. fsynced. */
    struct error *(*create)(struct call *, const char *path, int64_t virtual_size, const char *parent, const char *parent_format);
    struct error *(*info)(struct call *, const char *path, struct image_info *);
    struct error *(*resize)(struct call *, const char *path, int64_t virtual_size); /* larger only; nobody has it open for writing but a paused tapd */
    struct error *(*set_parent)(struct call *, const char *path, const char *parent, const char *parent_format); /* contents must agree: the caller knows; NULL parent: none */
    struct error *(*set_hidden)(struct call *, const char *path, bool hidden); /* raw, qcow2: NULL, the driver's names tell */
    struct error *(*check)(struct call *, const char *path);   /* the whole structure */
};
extern const struct image_ops image_raw, image_vhd, image_qcow2;
const struct image_ops *image_ops_find(const char *format); /* NULL: unknown */

/* What a file is by its contents (vhd, qcow2, else raw). -errno of opening it as an error. */
NODISCARD struct error *image_detect(struct call *, const char *path, const struct image_ops **ops_r);

#endif
