/* The container of VM metadata: a POSIX ustar archive whose first member is "ova.xml", and the objects in it. Pure: bytes
 * in, values out; everything that comes from outside is checked here (fuzzed: tests/fuzz/fuzz_ova.c).
 *
 * Archive: POSIX.1-1988 ustar header blocks of 512 bytes, two blocks of zeros at the end. Only the first member counts; what
 * follows it (the disks of a whole XVA) is not looked at. */
#ifndef XAPI_METADATA_OVA_H
#define XAPI_METADATA_OVA_H

#include "db/model.h"
#include "rpc/base/error.h"
#include "rpc/base/text.h"
#include "rpc/base/value.h"
#include "xapi/metadata/name_index.h"

#define OVA_XML "ova.xml"
#define OVA_XML_MAX ((size_t)16 << 20)
#define OVA_BLOCK 512u
#define OVA_EXPORT_VERSION 2

/* --- the archive ---------------------------------------------------------------------------------------------- */
/* Appends the whole archive. mtime: seconds since the epoch. */
void ova_tar_write(struct text *tar, const char *xml, size_t len, int64_t mtime);
/* The header block of ova.xml: how long it is. IMPORT_ERROR_PREMATURE_EOF [] for a block of zeros,
 * IMPORT_ERROR_UNEXPECTED_FILE ["ova.xml"; found], IMPORT_ERROR [text]. */
NODISCARD struct error *ova_tar_header(struct arena *, const void *block, size_t *len_r);
/* The member's bytes inside the archive; as above, and IMPORT_ERROR_PREMATURE_EOF [] where it ends early. */
NODISCARD struct error *ova_tar_xml(struct arena *, const void *tar, size_t len, const char **xml_r, size_t *len_r);

/* --- the objects ------------------------------------------------------------------------------------------------ */
struct ova_object {
    const char *class_name, *id; /* "VM", "Ref:3" */
    const struct value *record;  /* a map */
};
struct ova { struct ova_object *objects; unsigned n; struct name_index by_id; };

/* Strict about the frame: IMPORT_ERROR [text], IMPORT_INCOMPATIBLE_VERSION [] for formats to come. Classes and fields that
 * are not known are kept and looked at by nobody. */
NODISCARD struct error *ova_read(struct arena *, const char *xml, size_t len, struct ova *);
const struct ova_object *ova_find(const struct ova *, const char *id); /* NULL: none, also for a null reference */

/* A member of the object's record as the field has it, references as they stand ("Ref:n"). False where it is missing or is
 * nothing that the field takes: then the field's default counts. */
bool ova_field(struct arena *, const struct ova_object *, const struct field_info *, struct value *value_r);
const char *ova_string(const struct ova_object *, const char *name, const char *fallback);
int64_t ova_int(const struct ova_object *, const char *name, int64_t fallback);
bool ova_bool(const struct ova_object *, const char *name);
/* An entry of a map of the record. */
const char *ova_map(const struct ova_object *, const char *name, const char *key, const char *fallback);

#endif
