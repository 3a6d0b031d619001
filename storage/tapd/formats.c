/* The formats there are; a file of its own, so that a program can link one of them without the others. */
#include <string.h>

#include "gen/errors.h"
#include "rpc/base/attributes.h"
#include "storage/tapd/block.h"

static const struct {
    const char *name;
    block_open_fn *open;
} formats[] = {
    { "raw", raw_open },
    { "vhd", vhd_open },
    { "qcow2", qcow2_open },
    { "nbd", nbd_open },
};

struct error *block_open(struct arena *a, const struct block_open *o, struct block **block_r)
{
    for (size_t i = 0; i < ARRAY_LEN(formats); i++)
        if (strcmp(formats[i].name, o->format) == 0)
            return formats[i].open(a, o, block_r);
    return err_sr_backend_failure(a, "tapd", "", arena_printf(a, "%s: no such format: %s", o->path, o->format));
}
