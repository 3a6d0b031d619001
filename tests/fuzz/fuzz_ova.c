/* libFuzzer target: archives and ova.xml of VM metadata. No crash; what is accepted has the frame that importers rely on, every
 * field that is handed out is one that a row takes, and what we write we find again.
 *
 * Input: a byte: bit 0: an archive whose checksum is put right; bit 1: an archive as it stands; else ova.xml. */
#include <stdio.h>
#include <string.h>

#include "db/types.h"
#include "rpc/base/check.h"
#include "rpc/wire/xmlrpc.h"
#include "xapi/metadata/ova.h"

#define SUM_AT 148

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    xmlrpc_setup(1u << 20);
    return 0;
}

static void look_at(struct arena *a, const struct ova *ova, const struct ova_object *o)
{
    const struct class_info *class = model_class(o->class_name);

    CHECK(o->record->kind == VALUE_MAP && o->id[0] != '\0');
    CHECK(ova_find(ova, o->id) == o);
    (void)ova_map(o, "other_config", "maps_to", NULL);
    (void)ova_bool(o, "is_a_snapshot");
    (void)ova_int(o, "version", 0);
    for (unsigned i = 0; class != NULL && i < class->n_fields; i++) {
        struct value v;
        if (ova_field(a, o, &class->fields[i], &v))
            CHECK(type_takes(class->fields[i].type, &v));
    }
}

static void read_xml(struct arena *a, const char *xml, size_t len)
{
    struct ova ova;

    if (ova_read(a, xml, len, &ova) != NULL)
        return;
    for (unsigned i = 0; i < ova.n; i++)
        look_at(a, &ova, &ova.objects[i]);
}

static void fix_checksum(unsigned char *block)
{
    unsigned sum = 8 * ' ';

    for (unsigned i = 0; i < OVA_BLOCK; i++)
        sum += i >= SUM_AT && i < SUM_AT + 8 ? 0 : block[i];
    snprintf((char *)block + SUM_AT, 8, "%06o", sum);
}

static void read_tar(struct arena *a, const char *bytes, size_t size)
{
    const char *xml;
    size_t len;

    if (ova_tar_xml(a, bytes, size, &xml, &len) != NULL)
        return;
    CHECK(len <= OVA_XML_MAX && xml >= bytes && xml + len <= bytes + size);
    read_xml(a, xml, len);
}

static void write_and_find(struct arena *a, const char *bytes, size_t size)
{
    AUTO_TEXT tar = TEXT_INIT;
    const char *xml;
    size_t len;

    ova_tar_write(&tar, bytes, size, (int64_t)size * 1000000);
    CHECK(tar.len % OVA_BLOCK == 0 && ova_tar_xml(a, tar.bytes, tar.len, &xml, &len) == NULL);
    CHECK(len == size && memcmp(xml, bytes, len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO_ARENA a = arena_new();

    if (size < 1)
        return 0;
    char *bytes = arena_memdup(a, data + 1, size - 1); /* its exact size: reading beyond is seen */
    size--;
    if ((data[0] & 1) != 0 && size >= OVA_BLOCK)
        fix_checksum((unsigned char *)bytes);
    if ((data[0] & 3) != 0)
        read_tar(a, bytes, size);
    else {
        read_xml(a, bytes, size);
        write_and_find(a, bytes, size);
    }
    return 0;
}
