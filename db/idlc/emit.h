/* What idlc prints from a checked model. All append to a text; nothing here touches a file. */
#ifndef DB_IDLC_EMIT_H
#define DB_IDLC_EMIT_H

#include "db/idlc/idl.h"
#include "rpc/base/text.h"

/* gen/model_tables.c, gen/model_ids.h, gen/errors.h, gen/api_proto.h, gen/api_table.c */
void emit_model_tables(struct idl *, struct text *);
void emit_model_ids(struct idl *, struct text *);
void emit_errors(struct idl *, struct text *);
void emit_api_proto(struct idl *, struct text *);
void emit_api_table(struct idl *, struct text *);

/* --dump: one canonical line per item, sorted by bytes (tests/golden/api.txt). */
void emit_dump(struct idl *, struct text *);
/* --doc: the reference in Markdown. */
void emit_doc(struct idl *, struct text *);
/* --todo: missing messages by class and in total. */
void emit_todo(struct idl *, struct text *);

/* 16 hexadecimal digits over what reaches the disk: classes, their stored fields and types. */
const char *emit_schema_checksum(struct idl *);

/* Pieces shared by the emitters. */
void emit_banner(struct text *, const char *about);
/* "text" as a C string literal, quotes included. */
void emit_c_string(struct text *, const char *);
/* The part of gen/model_tables.c that comes first: enums, then types (numbers them). */
void emit_types(struct idl *, struct text *);
/* Defines what sets and maps in the literal need as 'name', before emit_value refers to it. */
void emit_value_items(struct text *, const struct idl_type *, const struct idl_literal *, const char *name);
/* An initialiser for struct value: the literal, or the zero of the type when it is NULL. */
void emit_value(struct text *, const struct idl_type *, const struct idl_literal *, const char *name);

#endif
