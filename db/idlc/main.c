/* idlc: compiles db/model/<class>.idl into the tables, headers and documents made of it.
 *
 *   idlc --out DIR MODEL          gen/model_tables.c, model_ids.h, errors.h, api_proto.h, api_table.c
 *   idlc --dump MODEL             one canonical line per item, sorted
 *   idlc --doc MODEL              the reference in Markdown
 *   idlc --todo MODEL             messages without code
 *   idlc --schema-checksum MODEL  the checksum for 'schema version N checksum X'
 *
 * Exit: 0, 1 where the model is refused ("file:line: text" on stderr) or a file cannot be written,
 * 2 for wrong usage. */
#include <stdio.h>
#include <string.h>

#include "db/idlc/check.h"
#include "db/idlc/emit.h"
#include "db/idlc/files.h"

static int usage(void)
{
    fprintf(stderr, "usage: idlc --out DIR MODEL | idlc --dump|--doc|--todo|--schema-checksum MODEL\n");
    return 2;
}

static bool print_complaints(const struct idl *idl)
{
    IDL_EACH(const char, c, &idl->complaints)
        fprintf(stderr, "%s\n", c);
    return idl->complaints.n == 0;
}

/* The layout on disk may change only together with the number that upgrades go by. */
static void check_schema(struct idl *idl)
{
    const char *checksum = emit_schema_checksum(idl);

    if (!idl->has_schema)
        idl_complain(idl, (struct idl_pos){ "schema.idl", 0 }, "no line 'schema version N checksum %s'", checksum);
    else if (strcmp(checksum, idl->schema_checksum) != 0)
        idl_complain(idl, idl->schema_pos,
                     "the layout on disk has changed (checksum %s): raise the version, put the new checksum here and "
                     "write the step in db/upgrade.c",
                     checksum);
}

static const struct {
    const char *name;
    void (*emit)(struct idl *, struct text *);
} outputs[] = {
    { "model_tables.c", emit_model_tables }, { "model_ids.h", emit_model_ids }, { "errors.h", emit_errors },
    { "api_proto.h", emit_api_proto },       { "api_table.c", emit_api_table },
};

static int generate(struct idl *idl, const char *dir)
{
    check_schema(idl);
    if (!print_complaints(idl))
        return 1;
    for (size_t i = 0; i < ARRAY_LEN(outputs); i++) {
        AUTO_TEXT text = TEXT_INIT;

        outputs[i].emit(idl, &text);
        if (!files_write(idl->arena, dir, outputs[i].name, &text))
            return 1;
    }
    return 0;
}

static int print(struct idl *idl, const char *what)
{
    AUTO_TEXT text = TEXT_INIT;

    if (strcmp(what, "--dump") == 0)
        emit_dump(idl, &text);
    else if (strcmp(what, "--doc") == 0)
        emit_doc(idl, &text);
    else if (strcmp(what, "--todo") == 0)
        emit_todo(idl, &text);
    else if (strcmp(what, "--schema-checksum") == 0)
        text_printf(&text, "%s\n", emit_schema_checksum(idl));
    else
        return usage();
    return fwrite(text.bytes, 1, text.len, stdout) == text.len && fflush(stdout) == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    AUTO_ARENA arena = arena_new();
    struct idl *idl = idl_new(arena);
    bool out = argc == 4 && strcmp(argv[1], "--out") == 0;

    if (!out && argc != 3)
        return usage();
    files_read(idl, argv[argc - 1]);
    if (!idl_check(idl)) {
        print_complaints(idl);
        return 1;
    }
    return out ? generate(idl, argv[2]) : print(idl, argv[1]);
}
