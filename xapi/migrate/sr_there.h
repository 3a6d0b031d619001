/* The SRs at a move's destination as its checks see them: this pool's rows, or another pool's records. Private to
 * xapi/migrate. All in the call's arena. */
#ifndef XAPI_MIGRATE_SR_THERE_H
#define XAPI_MIGRATE_SR_THERE_H

#include "xapi/migrate/move.h"

struct sr_there {
    const char *ref, *uuid, *name, *type;
    int64_t physical_size, physical_utilisation; /* bytes; size 0: unknown */
    const char *pbd;               /* its link to the destination host; NULL: none */
    bool attached;                 /* that is plugged */
    const struct value *features;  /* map by name; NULL: the type has no driver there */
    const struct value *formats;   /* set of image formats; NULL: it does not say */
};
struct srs_there {
    struct sr_there *srs;
    unsigned n;
    const char *default_sr, *pool_suspend_sr, *host_suspend_sr; /* refs, perhaps null ones */
};

/* Reads them for move->destination (host, peer). May block: another pool is asked, once. */
NODISCARD struct error *srs_there_read(struct api_call *, const struct move *, struct srs_there *);
const struct sr_there *sr_there_by_ref(const struct srs_there *, const char *ref);   /* NULL: none, as below */
const struct sr_there *sr_there_by_uuid(const struct srs_there *, const char *uuid);
/* One of that name and type that is plugged. */
const struct sr_there *sr_there_like(const struct srs_there *, const char *name, const char *type);
bool sr_there_can(const struct sr_there *, const char *feature);
/* Plugs the SRs that the move's disks go to, where they are not. Blocks. PBD.plug's errors. */
NODISCARD struct error *srs_there_plug(struct api_call *, const struct move *);
/* Can a disk be of that format there? What the driver says, else what is known of SRs of its type. */
bool sr_there_takes(const struct sr_there *, const char *format);

#endif
