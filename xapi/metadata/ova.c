#include "xapi/metadata/ova.h"

#include <stdlib.h>
#include <string.h>

#include "db/types.h"
#include "gen/errors.h"
#include "rpc/base/datetime.h"
#include "rpc/base/uuid.h"
#include "rpc/wire/xmlrpc.h"

/* --- ustar: offsets and lengths of the header's fields (POSIX.1-1988, "Extended tar Format") ---------------------- */
enum {
    NAME_AT = 0, NAME_LEN = 100, MODE_AT = 100, UID_AT = 108, GID_AT = 116, ID_LEN = 8, SIZE_AT = 124, SIZE_LEN = 12,
    MTIME_AT = 136, SUM_AT = 148, SUM_LEN = 8, TYPE_AT = 156, MAGIC_AT = 257,
};

static size_t padded(size_t len) { return (len + OVA_BLOCK - 1) / OVA_BLOCK * OVA_BLOCK; }

/* Octal digits and a NUL. */
static void put_octal(char *at, unsigned len, uint64_t n)
{
    at[len - 1] = '\0';
    for (unsigned i = len - 1; i > 0; i--, n >>= 3)
        at[i - 1] = (char)('0' + (n & 7));
}

static uint64_t sum_of(const unsigned char *block)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < OVA_BLOCK; i++)
        sum += i >= SUM_AT && i < SUM_AT + SUM_LEN ? ' ' : block[i];
    return sum;
}

void ova_tar_write(struct text *tar, const char *xml, size_t len, int64_t mtime)
{
    static const char zeros[2 * OVA_BLOCK];
    char block[OVA_BLOCK] = OVA_XML;

    put_octal(block + MODE_AT, ID_LEN, 0644);
    put_octal(block + UID_AT, ID_LEN, 0);
    put_octal(block + GID_AT, ID_LEN, 0);
    put_octal(block + SIZE_AT, SIZE_LEN, len);
    put_octal(block + MTIME_AT, SIZE_LEN, mtime > 0 ? (uint64_t)mtime : 0);
    block[TYPE_AT] = '0';
    memcpy(block + MAGIC_AT, "ustar\00000", 8);
    put_octal(block + SUM_AT, SUM_LEN - 1, sum_of((const unsigned char *)block));
    block[SUM_AT + SUM_LEN - 1] = ' ';
    text_add_len(tar, block, sizeof(block));
    text_add_len(tar, xml, len);
    text_add_len(tar, zeros, padded(len) - len);
    text_add_len(tar, zeros, sizeof(zeros));
}

/* Digits between blanks and NULs. */
static bool get_octal(const char *at, unsigned len, uint64_t *n_r)
{
    unsigned i = 0, digits = 0;

    for (*n_r = 0; i < len && at[i] == ' '; i++)
        ;
    for (; i < len && at[i] >= '0' && at[i] <= '7'; i++, digits++)
        *n_r = *n_r << 3 | (uint64_t)(at[i] - '0');
    for (; i < len; i++)
        if (at[i] != ' ' && at[i] != '\0')
            return false;
    return digits > 0 && digits < 20;
}

static bool all_zeros(const char *block)
{
    static const char zeros[OVA_BLOCK];
    return memcmp(block, zeros, OVA_BLOCK) == 0;
}

/* The name as it may be shown: it is anything at all. */
static const char *shown(struct arena *a, const char *name)
{
    char *s = arena_strndup(a, name, NAME_LEN);

    for (char *p = s; *p != '\0'; p++)
        if ((unsigned char)*p < 0x20 || (unsigned char)*p > 0x7e)
            *p = '?';
    return s;
}

struct error *ova_tar_header(struct arena *a, const void *bytes, size_t *len_r)
{
    const char *block = bytes;
    uint64_t sum, size;

    if (all_zeros(block))
        return err_import_error_premature_eof(a);
    if (!get_octal(block + SUM_AT, SUM_LEN, &sum) || sum != sum_of(bytes))
        return err_import_error(a, "this is no tar archive");
    if (strncmp(block + NAME_AT, OVA_XML, NAME_LEN) != 0)
        return err_import_error_unexpected_file(a, OVA_XML, shown(a, block + NAME_AT));
    if ((block[TYPE_AT] != '0' && block[TYPE_AT] != '\0') || !get_octal(block + SIZE_AT, SIZE_LEN, &size))
        return err_import_error(a, OVA_XML " is no plain file");
    if (size > OVA_XML_MAX)
        return err_import_error(a, OVA_XML " is larger than 16 MiB");
    *len_r = (size_t)size;
    return NULL;
}

struct error *ova_tar_xml(struct arena *a, const void *tar, size_t len, const char **xml_r, size_t *len_r)
{
    if (len < OVA_BLOCK)
        return err_import_error_premature_eof(a);
    TRY(ova_tar_header(a, tar, len_r));
    if (*len_r > len - OVA_BLOCK)
        return err_import_error_premature_eof(a);
    *xml_r = (const char *)tar + OVA_BLOCK;
    return NULL;
}

/* --- the frame -------------------------------------------------------------------------------------------------- */
static const struct value *member(const struct value *map, const char *name, enum value_kind kind)
{
    const struct value *v = map->kind == VALUE_MAP ? value_get(map, name) : NULL;
    return v != NULL && v->kind == kind ? v : NULL;
}

static struct error *read_object(struct arena *a, const struct value *v, struct ova *o)
{
    const struct value *class_name = member(v, "class", VALUE_STRING), *id = member(v, "id", VALUE_STRING), *record = member(v, "snapshot", VALUE_MAP);

    if (class_name == NULL || id == NULL || record == NULL || ref_is_null(id->s))
        return err_import_error(a, "an object without class, id or snapshot");
    if (!name_index_add(&o->by_id, id->s, o->n))
        return err_import_error(a, "two objects with one id");
    o->objects[o->n++] = (struct ova_object) { class_name->s, id->s, record };
    return NULL;
}

static const char *without_prologue(const char *xml, size_t *len)
{
    const char *end = xml + *len, *p = xml;

    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
        p++;
    if (end - p > 5 && memcmp(p, "<?xml", 5) == 0) {
        const char *close = memchr(p, '>', (size_t)(end - p));
        p = close != NULL ? close + 1 : p;
        while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
            p++;
    }
    *len = (size_t)(end - p);
    return p;
}

struct error *ova_read(struct arena *a, const char *xml, size_t len, struct ova *o)
{
    struct value *all = arena_alloc(a, sizeof(*all));

    xml = without_prologue(xml, &len);
    if (!xmlrpc_parse_fragment(a, xml, len, all))
        return err_import_error(a, OVA_XML " is no XML-RPC value");
    const struct value *version = member(all, "version", VALUE_MAP), *objects = member(all, "objects", VALUE_SET);
    if (objects == NULL)
        return err_import_error(a, OVA_XML " has no objects");
    int64_t export_vsn = version != NULL ? value_get_int(version, "export_vsn", 0) : 0;
    if (export_vsn < 0 || export_vsn > OVA_EXPORT_VERSION)
        return err_import_incompatible_version(a);
    *o = (struct ova) { .objects = arena_calloc(a, objects->len + 1u, sizeof(*o->objects)) };
    name_index_init(&o->by_id, a);
    for (unsigned i = 0; i < objects->len; i++)
        TRY(read_object(a, &objects->items[i], o));
    return NULL;
}

const struct ova_object *ova_find(const struct ova *o, const char *id)
{
    unsigned i;
    return !ref_is_null(id) && name_index_find(&o->by_id, id, &i) ? &o->objects[i] : NULL;
}

/* --- members ------------------------------------------------------------------------------------------------------ */
static bool convert(struct arena *, const struct type_info *, const struct value *in, struct value *out);

/* XML-RPC as xapi writes it leaves ints bare; old exports have floats and datetimes so, too. */
static bool convert_text(const struct type_info *type, const struct value *in, struct value *out)
{
    int64_t n;
    char *end;

    if (type->kind == TYPE_INT && text_to_int(in->s, &n))
        *out = value_int(n);
    else if (type->kind == TYPE_DATETIME && datetime_parse(in->s, in->len, &n))
        *out = value_datetime(n);
    else if (type->kind == TYPE_BOOL && (strcmp(in->s, "true") == 0 || strcmp(in->s, "false") == 0))
        *out = value_bool(in->s[0] == 't');
    else if (type->kind == TYPE_FLOAT && in->len > 0) {
        *out = value_float(strtod(in->s, &end));
        return *end == '\0';
    } else if (type->kind == TYPE_REF && in->len == 0)
        *out = value_string(REF_NULL);
    return type->kind != TYPE_ENUM || model_enum_has(type->enum_info, in->s);
}

static bool convert_scalar(const struct type_info *type, const struct value *in, struct value *out)
{
    *out = *in;
    if (in->kind == VALUE_STRING && !convert_text(type, in, out))
        return false;
    if (type->kind == TYPE_FLOAT && in->kind == VALUE_INT)
        *out = value_float((double)in->i);
    return type_takes(type, out);
}

static bool convert_set(struct arena *a, const struct type_info *type, const struct value *in, struct value *out)
{
    struct value_list list = { 0 };
    struct value item;

    if (in->kind != VALUE_SET)
        return false;
    for (unsigned i = 0; i < in->len; i++)
        if (convert(a, type->item, &in->items[i], &item))
            value_list_add(a, &list, item);
    *out = value_list_value(&list);
    return type_takes(type, out);
}

static bool convert_map(struct arena *a, const struct type_info *type, const struct value *in, struct value *out)
{
    struct value_dict d = { 0 };
    struct value item;

    if (in->kind != VALUE_MAP)
        return false;
    for (unsigned i = 0; i < in->len; i++) {
        bool key = type->key->kind != TYPE_ENUM || model_enum_has(type->key->enum_info, in->members[i].name);
        if (key && convert(a, type->item, &in->members[i].value, &item))
            value_dict_add(a, &d, in->members[i].name, item);
    }
    *out = value_dict_value(&d);
    return type_takes(type, out);
}

static bool convert(struct arena *a, const struct type_info *type, const struct value *in, struct value *out)
{
    if (type->kind == TYPE_SET)
        return convert_set(a, type, in, out);
    if (type->kind == TYPE_MAP)
        return convert_map(a, type, in, out);
    return convert_scalar(type, in, out);
}

bool ova_field(struct arena *a, const struct ova_object *o, const struct field_info *field, struct value *value_r)
{
    const struct value *v = value_get(o->record, field->name);

    if (v == NULL || !convert(a, field->type, v, value_r))
        return false;
    *value_r = type_convert(field->type, *value_r);
    return true;
}

const char *ova_string(const struct ova_object *o, const char *name, const char *fallback) { return value_get_string(o->record, name, fallback); }
int64_t ova_int(const struct ova_object *o, const char *name, int64_t fallback) { return value_get_int(o->record, name, fallback); }
bool ova_bool(const struct ova_object *o, const char *name) { return value_get_bool(o->record, name, false); }

const char *ova_map(const struct ova_object *o, const char *name, const char *key, const char *fallback)
{
    const struct value *map = member(o->record, name, VALUE_MAP);
    return map != NULL ? value_get_string(map, key, fallback) : fallback;
}
