/* Reads IDL text into a model, line by line.
 *
 *   schema version 1 checksum 0123456789abcdef
 *   error CODE (param, another param) [added] ["doc"]
 *   alert NAME 5
 *   class NAME [words] [since R] [STATE] [role ROLES] "doc"
 *   enum NAME value value …
 *   field NAME TYPE rw|ro|constructor [words] [default V] [inverse C.F|mirrored_by C.F] [writers ROLES]
 *                   [since R] [STATE] "doc"
 *     protect "key*" ROLES                 who may change this key of a map field
 *   message NAME [words] [since R] [STATE] "doc"
 *     param NAME TYPE [nullable|secret|no_check|added] [default V]
 *     result TYPE · errors CODE … · role ROLES · operation NAME · runs_on coordinator|here|host_param
 *     code xapi/api/vm_lifecycle.c
 *
 * Words of a class: get_all name_label volatile no_events not_stored explicit added. Of a field:
 * required volatile nullable secret unpublished added. Of a message: missing removed implied
 * no_session sync_only internal emergency inline hidden no_task added. STATE: deprecated prototyped
 * removed (of a message 'removed' also means that it answers MESSAGE_REMOVED, 'retired' that it does
 * not although the datamodel calls it removed). '#' starts a comment; indentation is for the eye.
 *
 * Any bytes may be fed in: what is wrong becomes a complaint "file:line: text", the line is dropped. */
#ifndef DB_IDLC_PARSER_H
#define DB_IDLC_PARSER_H

#include "db/idlc/idl.h"

/* 'file' must live as long as the model; the text is copied where needed. A model may be put
 * together from several texts. */
void parser_read(struct idl *, const char *file, const char *text, size_t len);

#endif
