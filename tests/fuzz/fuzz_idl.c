/* The IDL compiler takes any bytes: it complains or emits, it never crashes. */
#include <stddef.h>
#include <stdint.h>

#include "db/idlc/check.h"
#include "db/idlc/emit.h"
#include "db/idlc/parser.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const emitters[])(struct idl *, struct text *) = {
        emit_model_tables, emit_model_ids, emit_errors, emit_api_proto, emit_api_table, emit_dump, emit_doc, emit_todo,
    };
    AUTO_ARENA arena = arena_new();
    struct idl *idl = idl_new(arena);

    parser_read(idl, "fuzz.idl", (const char *)data, size);
    if (!idl_check(idl))
        return 0;
    for (size_t i = 0; i < ARRAY_LEN(emitters); i++) {
        AUTO_TEXT text = TEXT_INIT;

        emitters[i](idl, &text);
    }
    emit_schema_checksum(idl);
    return 0;
}
