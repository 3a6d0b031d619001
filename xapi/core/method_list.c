#include "xapi/core/method_list.h"

#include "xapi/core/generic.h"

struct list_ctx { struct arena *arena; struct value_list list; };

/* Removed messages are left out: clients make a list of classes from the names, and call what they find. */
static void list_add(void *ctx, const struct generic_method *m)
{
    struct list_ctx *l = ctx;

    if (m->message == NULL || (m->message->flags & MESSAGE_REMOVED) == 0)
        value_list_add(l->arena, &l->list, value_string(m->name));
}

struct value method_list(struct arena *arena)
{
    struct list_ctx l = { .arena = arena };

    generic_each_method(arena, list_add, &l);
    value_list_add(arena, &l.list, value_string("system.listMethods"));
    return value_list_value(&l.list);
}
