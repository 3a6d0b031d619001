#include "xapi/core/method.h"

#include <string.h>

static bool strip(const char **name, const char *prefix)
{
    size_t len = strlen(prefix);

    if (strncmp(*name, prefix, len) != 0)
        return false;
    *name += len;
    return true;
}

static struct method system_method(const char *name)
{
    struct method m = { .kind = METHOD_UNKNOWN };

    if (strcmp(name, "system.listMethods") == 0 || strcmp(name, "system_listMethods") == 0)
        m.kind = METHOD_LIST_METHODS;
    else if (strncmp(name, "system.isAlive:", 15) == 0)
        m.kind = METHOD_IS_ALIVE;
    return m;
}

struct method method_find(const char *wire_name)
{
    struct method m = { .kind = METHOD_UNKNOWN };
    const char *name = wire_name, *rest;

    if (strncmp(name, "system", 6) == 0)
        return system_method(name);
    m.async = strip(&name, "Async.") || strip(&name, "InternalAsync.");
    const struct class_info *class = model_split(name, &rest);
    if (class == NULL)
        return m;
    m.message = model_message(class, rest);
    if (m.message != NULL)
        m.kind = METHOD_MESSAGE;
    else if (accessor_find(class, rest, &m.accessor))
        m.kind = METHOD_ACCESSOR;
    return m;
}

/* Classes without Async forms (specs §3). */
static bool class_is_sync(const struct class_info *class)
{
    return class->id == CLASS_session || class->id == CLASS_event || class->id == CLASS_task ||
           class->id == CLASS_data_source || class->id == CLASS_blob;
}

bool method_has_async(const struct method *m)
{
    return m->kind == METHOD_MESSAGE && (m->message->flags & (MESSAGE_SYNC_ONLY | MESSAGE_NO_SESSION)) == 0 &&
           !class_is_sync(m->message->class);
}

bool method_is_inline(const struct method *m)
{
    switch (m->kind) {
    case METHOD_MESSAGE:
        return !m->async && (m->message->flags & (MESSAGE_INLINE | MESSAGE_MISSING | MESSAGE_REMOVED)) != 0;
    case METHOD_ACCESSOR:
        return !accessor_writes(&m->accessor);
    case METHOD_UNKNOWN: case METHOD_LIST_METHODS: case METHOD_IS_ALIVE:
        break;
    }
    return true;
}

bool method_is_login(const struct method *m)
{
    return m->kind == METHOD_MESSAGE && m->message->class->id == CLASS_session &&
           ((m->message->flags & MESSAGE_NO_SESSION) != 0 || m->message->id == M_session_change_password);
}

unsigned method_roles(const struct method *m)
{
    switch (m->kind) {
    case METHOD_MESSAGE:
        return m->message->roles;
    case METHOD_ACCESSOR:
        return m->accessor.roles;
    case METHOD_UNKNOWN: case METHOD_LIST_METHODS: case METHOD_IS_ALIVE:
        break;
    }
    return ~0u;
}

static const char *accessor_verb(enum accessor_kind kind)
{
    static const char *const verbs[] = {
        [ACCESSOR_GET_RECORD] = "get_record",
        [ACCESSOR_GET_BY_UUID] = "get_by_uuid",
        [ACCESSOR_GET_BY_NAME_LABEL] = "get_by_name_label",
        [ACCESSOR_GET_ALL] = "get_all",
        [ACCESSOR_GET_ALL_RECORDS] = "get_all_records",
        [ACCESSOR_GET_ALL_RECORDS_WHERE] = "get_all_records_where",
        [ACCESSOR_GET] = "get_",
        [ACCESSOR_SET] = "set_",
        [ACCESSOR_ADD_TO] = "add_to_",
        [ACCESSOR_REMOVE_FROM] = "remove_from_",
        [ACCESSOR_ADD] = "add_",
        [ACCESSOR_REMOVE] = "remove_",
    };

    return verbs[kind];
}

const char *method_name(struct arena *arena, const struct method *m, const char *wire_name)
{
    const struct accessor *a = &m->accessor;

    if (m->kind == METHOD_MESSAGE)
        return m->message->full_name;
    if (m->kind == METHOD_ACCESSOR)
        return arena_printf(arena, "%s.%s%s", a->class->name, accessor_verb(a->kind), a->field != NULL ? a->field->name : "");
    return wire_name;
}
