/* The files idlc reads and writes. */
#ifndef DB_IDLC_FILES_H
#define DB_IDLC_FILES_H

#include "db/idlc/idl.h"
#include "rpc/base/text.h"

/* Parses every *.idl of a folder, in the order of their names. A file that holds a class is named
 * after it: VM.idl. Trouble is noted as a complaint. */
void files_read(struct idl *, const char *dir);

/* Writes dir/name unless it already holds exactly this text, so that make rebuilds no more than it
 * must. False, with a message on stderr, when that fails. */
bool files_write(struct arena *, const char *dir, const char *name, const struct text *);

#endif
