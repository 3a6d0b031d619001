#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "db/idlc/check.h"

/* A name and where it stands; names of one kind in one place must differ. */
struct name {
    const char *text;
    struct idl_pos pos;
    unsigned order;
};
struct names {
    struct idl *idl;
    const char *what;
    struct name *all;
    unsigned n, cap;
};

static void names_start(struct names *names, struct idl *idl, const char *what)
{
    *names = (struct names){ .idl = idl, .what = what };
}

static void names_add(struct names *names, const char *text, struct idl_pos pos)
{
    if (names->n == names->cap) {
        unsigned cap = names->cap ? names->cap * 2 : 64;
        struct name *all = arena_calloc(names->idl->arena, cap, sizeof(*all));

        if (names->n > 0)
            memcpy(all, names->all, names->n * sizeof(*all));
        names->all = all;
        names->cap = cap;
    }
    names->all[names->n] = (struct name){ text, pos, names->n };
    names->n++;
}

static int by_text(const void *a, const void *b)
{
    const struct name *x = a, *y = b;
    int order = strcmp(x->text, y->text);

    return order != 0 ? order : (x->order > y->order) - (x->order < y->order);
}

static void names_complain(struct names *names)
{
    if (names->n > 1)
        qsort(names->all, names->n, sizeof(*names->all), by_text);
    for (unsigned i = 1; i < names->n; i++)
        if (strcmp(names->all[i - 1].text, names->all[i].text) == 0)
            idl_complain(names->idl, names->all[i].pos, "duplicate %s '%s'", names->what, names->all[i].text);
}

static const char *lower(struct idl *idl, const char *text)
{
    char *out = arena_strdup(idl->arena, text);

    for (char *s = out; *s != '\0'; s++)
        *s = (char)tolower((unsigned char)*s);
    return out;
}

static void check_enum_values(struct idl *idl, const struct idl_enum *e)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
    struct names names;

    names_start(&names, idl, "enum value");
    IDL_EACH(const char, v, &e->values) {
        names_add(&names, v, e->pos);
        if (strspn(v, allowed) != strlen(v))
            idl_complain(idl, e->pos, "enum value '%s' holds more than letters, digits, _ and -", v);
    }
    names_complain(&names);
}

static void check_params(struct idl *idl, const struct idl_message *m)
{
    struct names names;

    names_start(&names, idl, "parameter");
    IDL_EACH(const struct idl_param, p, &m->params)
        names_add(&names, idl_c_name(idl->arena, p->name), p->pos);
    names_complain(&names);
}

static void check_class(struct idl *idl, const struct idl_class *c)
{
    struct names names;

    names_start(&names, idl, "enum");
    IDL_EACH(const struct idl_enum, e, &c->enums) {
        names_add(&names, e->name, e->pos);
        check_enum_values(idl, e);
    }
    names_complain(&names);
    names_start(&names, idl, "field");
    IDL_EACH(const struct idl_field, f, &c->fields)
        names_add(&names, f->name, f->pos);
    names_complain(&names);
    names_start(&names, idl, "message");
    IDL_EACH(const struct idl_message, m, &c->messages) {
        names_add(&names, m->name, m->pos);
        check_params(idl, m);
    }
    names_complain(&names);
}

/* F_VM_metrics_x could be VM.metrics_x or VM_metrics.x: refuse what meets in C. */
static void check_c_names(struct idl *idl)
{
    static const char *const taken[] = {
        "CLASS_VOLATILE",  "CLASS_GET_ALL",    "CLASS_NAME_LABEL", "CLASS_CREATE",   "CLASS_DESTROY",
        "CLASS_NO_EVENTS", "CLASS_NOT_STORED", "CLASS_ADDED",      "CLASS_EXPLICIT",
    };
    struct names names;

    names_start(&names, idl, "C name");
    for (size_t i = 0; i < ARRAY_LEN(taken); i++)
        names_add(&names, taken[i], (struct idl_pos){ "db/model.h", 1 });
    IDL_EACH(const struct idl_class, c, &idl->classes) {
        names_add(&names, arena_printf(idl->arena, "CLASS_%s", c->name), c->pos);
        IDL_EACH(const struct idl_enum, e, &c->enums)
            names_add(&names, arena_printf(idl->arena, "enum_%s_%s", c->name, e->name), e->pos);
        IDL_EACH(const struct idl_field, f, &c->fields)
            names_add(&names, arena_printf(idl->arena, "F_%s_%s", c->name, f->name), f->pos);
        IDL_EACH(const struct idl_message, m, &c->messages)
            names_add(&names, arena_printf(idl->arena, "M_%s_%s", c->name, m->name), m->pos);
    }
    IDL_EACH(const struct idl_error, error, &idl->errors)
        names_add(&names, arena_printf(idl->arena, "err_%s", idl_c_lower(idl->arena, error->code)), error->pos);
    names_complain(&names);
}

static void check_errors(struct idl *idl)
{
    struct names names;

    names_start(&names, idl, "error");
    IDL_EACH(const struct idl_error, e, &idl->errors) {
        struct names params;

        names_add(&names, e->code, e->pos);
        names_start(&params, idl, "parameter");
        IDL_EACH(const char, p, &e->params)
            names_add(&params, idl_c_lower(idl->arena, p), e->pos);
        names_complain(&params);
    }
    names_complain(&names);
}

void idl_check_names(struct idl *idl)
{
    struct names names;

    names_start(&names, idl, "class");
    IDL_EACH(const struct idl_class, c, &idl->classes) {
        names_add(&names, lower(idl, c->name), c->pos);
        check_class(idl, c);
    }
    names_complain(&names);
    names_start(&names, idl, "alert");
    IDL_EACH(const struct idl_alert, a, &idl->alerts)
        names_add(&names, a->name, a->pos);
    names_complain(&names);
    check_errors(idl);
    check_c_names(idl);
}
