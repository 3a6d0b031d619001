#include "db/model.h"

#include <ctype.h>
#include <pthread.h>
#include <string.h>
#include <strings.h>

#include "rpc/base/attributes.h"
#include "rpc/base/memory.h"
#include "rpc/base/text.h"

/* Open addressing over the rows of one generated table, at most half full. A key is a name within a
 * scope (the class of a field or message; 0 elsewhere). Built once, then read without a lock. */
struct slot {
    uint32_t hash, row;
}; /* row + 1; 0: free */
struct name_table {
    struct slot *slots;
    uint32_t mask;
};

static struct {
    struct name_table classes, lower_classes, fields, messages, errors;
} look_up;
static pthread_once_t look_up_once = PTHREAD_ONCE_INIT;

static uint32_t hash_name(unsigned scope, const char *name, size_t len)
{
    uint32_t h = (0x811c9dc5u ^ scope) * 0x01000193u;

    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)name[i]) * 0x01000193u;
    return h ^ h >> 15;
}

static uint32_t hash_lower(const char *name, size_t len)
{
    uint32_t h = 0x811c9dc5u * 0x01000193u;

    for (size_t i = 0; i < len; i++)
        h = (h ^ (uint32_t)tolower((unsigned char)name[i])) * 0x01000193u;
    return h ^ h >> 15;
}

static void table_init(struct name_table *t, unsigned n)
{
    uint32_t size = 16;

    while (size < n * 2)
        size *= 2;
    t->slots = xcalloc(size, sizeof(*t->slots));
    t->mask = size - 1;
}

static void table_add(struct name_table *t, uint32_t hash, uint32_t row)
{
    uint32_t i = hash & t->mask;

    while (t->slots[i].row != 0)
        i = (i + 1) & t->mask;
    t->slots[i] = (struct slot){ hash, row + 1 };
}

static void build(void)
{
    unsigned n_fields = 0;

    table_init(&look_up.classes, model_n_classes);
    table_init(&look_up.lower_classes, model_n_classes);
    table_init(&look_up.messages, model_n_messages);
    table_init(&look_up.errors, model_n_errors);
    for (unsigned c = 0; c < model_n_classes; c++)
        n_fields += model_classes[c].n_fields;
    table_init(&look_up.fields, n_fields);
    for (unsigned c = 0; c < model_n_classes; c++) {
        const struct class_info *class = &model_classes[c];

        table_add(&look_up.classes, hash_name(0, class->name, strlen(class->name)), c);
        table_add(&look_up.lower_classes, hash_lower(class->name, strlen(class->name)), c);
        for (unsigned f = 0; f < class->n_fields; f++)
            table_add(&look_up.fields, hash_name(c, class->fields[f].name, strlen(class->fields[f].name)), f);
    }
    for (unsigned m = 0; m < model_n_messages; m++) {
        const struct message_info *message = &model_messages[m];

        table_add(&look_up.messages, hash_name(message->class->id, message->name, strlen(message->name)), m);
    }
    for (unsigned e = 0; e < model_n_errors; e++)
        table_add(&look_up.errors, hash_name(0, model_errors[e].code, strlen(model_errors[e].code)), e);
}

/* Walks the rows that may bear a name: for (i = start; …). Gives the row, or -1 at the end. */
struct probe {
    const struct name_table *table;
    uint32_t hash, at;
};

static struct probe probe_start(const struct name_table *table, uint32_t hash)
{
    return (struct probe){ table, hash, hash & table->mask };
}

static int probe_next(struct probe *p)
{
    const struct slot *s;

    do {
        s = &p->table->slots[p->at];
        p->at = (p->at + 1) & p->table->mask;
        if (s->row == 0)
            return -1;
    } while (s->hash != p->hash);
    return (int)s->row - 1;
}

static void need_tables(void) { pthread_once(&look_up_once, build); }

static const struct class_info *find_class(const char *name, size_t len)
{
    need_tables();
    struct probe p = probe_start(&look_up.classes, hash_name(0, name, len));

    for (int c = probe_next(&p); c >= 0; c = probe_next(&p))
        if (strlen(model_classes[c].name) == len && memcmp(model_classes[c].name, name, len) == 0)
            return &model_classes[c];
    return NULL;
}

const struct class_info *model_class(const char *name) { return find_class(name, strlen(name)); }

const struct class_info *model_class_nocase(const char *name, size_t len)
{
    need_tables();
    struct probe p = probe_start(&look_up.lower_classes, hash_lower(name, len));

    for (int c = probe_next(&p); c >= 0; c = probe_next(&p))
        if (strlen(model_classes[c].name) == len && strncasecmp(model_classes[c].name, name, len) == 0)
            return &model_classes[c];
    return NULL;
}

int model_field(const struct class_info *class, const char *name)
{
    need_tables();
    struct probe p = probe_start(&look_up.fields, hash_name(class->id, name, strlen(name)));

    for (int f = probe_next(&p); f >= 0; f = probe_next(&p))
        if ((unsigned)f < class->n_fields && strcmp(class->fields[f].name, name) == 0)
            return f;
    return -1;
}

const struct message_info *model_message(const struct class_info *class, const char *name)
{
    need_tables();
    struct probe p = probe_start(&look_up.messages, hash_name(class->id, name, strlen(name)));

    for (int m = probe_next(&p); m >= 0; m = probe_next(&p))
        if (model_messages[m].class == class && strcmp(model_messages[m].name, name) == 0)
            return &model_messages[m];
    return NULL;
}

/* With underscores the longest class name wins: VM_metrics_get_record is VM_metrics.get_record. */
const struct class_info *model_split(const char *wire_name, const char **rest_r)
{
    const char *dot = strchr(wire_name, '.');
    size_t len = dot != NULL ? (size_t)(dot - wire_name) : strlen(wire_name);
    const struct class_info *class = NULL;

    if (dot != NULL) {
        class = find_class(wire_name, len);
    } else {
        while (class == NULL && len > 0)
            if (wire_name[--len] == '_')
                class = find_class(wire_name, len);
    }
    if (class == NULL || wire_name[len + 1] == '\0')
        return NULL;
    *rest_r = wire_name + len + 1;
    return class;
}

bool model_enum_has(const struct enum_info *info, const char *value)
{
    for (unsigned i = 0; i < info->n_values; i++)
        if (strcmp(info->values[i], value) == 0)
            return true;
    return false;
}

const struct error_info *model_error(const char *code)
{
    need_tables();
    struct probe p = probe_start(&look_up.errors, hash_name(0, code, strlen(code)));

    for (int e = probe_next(&p); e >= 0; e = probe_next(&p))
        if (strcmp(model_errors[e].code, code) == 0)
            return &model_errors[e];
    return NULL;
}

void model_roles_text(unsigned roles, struct text *text)
{
    const char *between = "";

    for (unsigned i = 0; i < N_ROLES; i++)
        if (roles & 1u << i) {
            text_printf(text, "%s%s", between, role_names[i]);
            between = ", ";
        }
}
