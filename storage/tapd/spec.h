/* What a tapd serves: the file "spec" of its directory (storage/tapd/control_protocol.h). */
#ifndef STORAGE_TAPD_SPEC_H
#define STORAGE_TAPD_SPEC_H

#include <stdbool.h>
#include <stdint.h>

#include "rpc/base/arena.h"
#include "rpc/base/attributes.h"
#include "rpc/base/value.h"

enum spec_state { SPEC_INACTIVE, SPEC_ACTIVE, SPEC_PAUSED };
const char *spec_state_name(enum spec_state);

struct spec { /* strings are never NULL, and the spec's own: spec_set_string */
    char *key, *format, *path, *cbt, *mirror, *mirror_options, *users;
    bool read_only, cached, sealed; /* sealed: no more connections from outside */
    int64_t size;
    int64_t throttle_bytes, throttle_operations; /* a second; 0: unlimited */
    enum spec_state state;
};

/* 0, -errno of reading, or -EINVAL when it is malformed (*spec_r is empty then). */
NODISCARD int spec_read(const char *path, struct spec *spec_r);
/* One line, as in the file, from a message's arguments; missing words have their defaults but format and path. */
NODISCARD bool spec_from(const struct value *arguments, struct spec *spec_r);
struct value spec_value(struct arena *, const struct spec *); /* strings borrowed */
/* Replaces the file in one step. durable: also against a loss of power. 0 or -errno. */
NODISCARD int spec_write(const char *path, const struct spec *, bool durable);
void spec_set_string(char **, const char *);
void spec_copy(struct spec *to, const struct spec *from); /* 'to' is overwritten, not released */
void spec_release(struct spec *);

/* A word of arguments that may be missing: text as "0" "1" "true" "false", or a number. */
bool argument_bool(const struct value *arguments, const char *name, bool fallback);
int64_t argument_int(const struct value *arguments, const char *name, int64_t fallback); /* INT64_MIN: malformed */

#endif
