#include "xapi/core/event_filter.h"

#include <string.h>

#include "rpc/base/memory.h"

bool event_class(const struct class_info *c)
{
    return (c->flags & (CLASS_NO_EVENTS | CLASS_NOT_STORED)) == 0;
}

static void add_all(struct event_filter *f)
{
    for (unsigned i = 0; i < model_n_classes; i++)
        if (event_class(&model_classes[i]))
            class_set_add(&f->classes, i);
}

static void add_object(struct event_filter *f, const struct class_info *class, const char *ref)
{
    f->objects = xrealloc(f->objects, (f->n_objects + 1) * sizeof(*f->objects));
    f->objects[f->n_objects++] = (struct event_object){ .class = class, .ref = xstrdup(ref) };
    class_set_add(&f->touched, class->id);
}

static void add_name(struct event_filter *f, const char *name)
{
    const char *slash = strchr(name, '/');
    size_t len = slash != NULL ? (size_t)(slash - name) : strlen(name);

    if (strcmp(name, "*") == 0) {
        add_all(f);
        return;
    }
    const struct class_info *class = model_class_nocase(name, len);
    if (class == NULL || !event_class(class))
        return;
    if (slash != NULL)
        add_object(f, class, slash + 1);
    else
        class_set_add(&f->classes, class->id);
}

struct event_filter *event_filter_new(const struct value *names)
{
    struct event_filter *f = xcalloc(1, sizeof(*f));

    atomic_init(&f->refs, 1);
    for (uint32_t i = 0; i < names->len; i++)
        add_name(f, names->items[i].s);
    for (unsigned i = 0; i < CLASS_SET_WORDS; i++)
        f->touched.bits[i] |= f->classes.bits[i];
    return f;
}

struct event_filter *event_filter_ref(struct event_filter *f)
{
    atomic_fetch_add(&f->refs, 1);
    return f;
}

void event_filter_unref(struct event_filter *f)
{
    if (f == NULL || atomic_fetch_sub(&f->refs, 1) > 1)
        return;
    for (unsigned i = 0; i < f->n_objects; i++)
        xfree(f->objects[i].ref);
    xfree(f->objects);
    xfree(f);
}

bool event_filter_wants(const struct event_filter *f, const struct class_info *class, const char *ref)
{
    if (class_set_has(&f->classes, class->id))
        return true;
    for (unsigned i = 0; i < f->n_objects; i++)
        if (f->objects[i].class == class && strcmp(f->objects[i].ref, ref) == 0)
            return true;
    return false;
}

bool event_filter_equal(const struct event_filter *a, const struct event_filter *b)
{
    if (a == b)
        return true;
    if (memcmp(&a->classes, &b->classes, sizeof(a->classes)) != 0 || a->n_objects != b->n_objects)
        return false;
    for (unsigned i = 0; i < a->n_objects; i++)
        if (a->objects[i].class != b->objects[i].class || strcmp(a->objects[i].ref, b->objects[i].ref) != 0)
            return false;
    return true;
}
