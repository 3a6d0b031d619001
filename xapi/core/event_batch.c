#include "xapi/core/event_batch.h"

#include <inttypes.h>

#include "gen/model_ids.h"
#include "rpc/wire/json.h"
#include "rpc/wire/xmlrpc.h"
#include "xapi/core/event.h"

static const char *const kind_names[] = { [CHANGE_ADD] = "add", [CHANGE_MOD] = "mod", [CHANGE_DEL] = "del" };

static bool is_message(const struct change *change) { return change->class->id == CLASS_message; }

static void take(struct event_batch *b, const struct event_filter *f, const struct change_list *list, bool messages)
{
    for (unsigned i = 0; i < list->n; i++) {
        const struct change *change = &list->changes[i];
        if (is_message(change) == messages && event_filter_wants(f, change->class, change->ref))
            b->changes[b->n++] = change;
    }
}

void event_batch_collect(struct db *db, struct arena *a, const struct event_filter *f, uint64_t since, uint64_t since_messages,
                         struct event_batch *b)
{
    struct class_set objects = f->touched, messages = { { 0 } };
    struct change_list list, of_messages = { 0 };

    if (since != since_messages && class_set_has(&objects, CLASS_message)) {
        class_set_add(&messages, CLASS_message);
        objects.bits[CLASS_message / 64] &= ~(1ull << (CLASS_message % 64));
        change_log_since(db, a, since_messages, &messages, &of_messages);
    }
    change_log_since(db, a, since, &objects, &list);
    b->changes = arena_calloc(a, list.n + of_messages.n + 1u, sizeof(*b->changes));
    b->n = 0;
    b->generation = of_messages.generation != 0 && of_messages.generation < list.generation ? of_messages.generation : list.generation;
    take(b, f, &of_messages, true);
    take(b, f, &list, true);
    take(b, f, &list, false);
}

/* --- as a value --------------------------------------------------------------------------------------- */

static struct value event_value(struct arena *a, const struct change *change)
{
    struct value_dict d = { 0 };

    value_dict_add(a, &d, "id", value_string(arena_printf(a, "%" PRIu64, change->generation)));
    value_dict_add(a, &d, "timestamp", value_string("0.0"));
    value_dict_add(a, &d, "class", value_string(change->class->lower));
    value_dict_add(a, &d, "operation", value_string(kind_names[change->kind]));
    value_dict_add(a, &d, "ref", value_string(change->ref));
    if (change->row != NULL)
        value_dict_add(a, &d, "snapshot", value_record(&change->row->record));
    return value_dict_value(&d);
}

static struct value counts_value(struct db *db, struct arena *a)
{
    struct value_dict d = { 0 };

    for (unsigned i = 0; i < model_n_classes; i++)
        if ((model_classes[i].flags & CLASS_NOT_STORED) == 0)
            value_dict_add(a, &d, model_classes[i].lower, value_int32((int32_t)db_count(db, &model_classes[i])));
    return value_dict_value(&d);
}

struct value event_batch_value(struct db *db, struct arena *a, const struct event_batch *b)
{
    struct value *events = arena_calloc(a, b->n + 1u, sizeof(*events));
    struct value_dict d = { 0 };

    for (unsigned i = 0; i < b->n; i++)
        events[i] = event_value(a, b->changes[i]);
    value_dict_add(a, &d, "events", value_set(events, b->n));
    value_dict_add(a, &d, "valid_ref_counts", counts_value(db, a));
    value_dict_add(a, &d, "token", value_string(event_token(a, b->generation, b->generation)));
    return value_dict_value(&d);
}

/* --- as bytes ------------------------------------------------------------------------------------------- */

static void add_snapshot(struct text *t, const struct row *row, enum wire_format format)
{
    struct blob *blob = record_snapshot(&row->record, format);

    text_add_len(t, blob->bytes, blob->len);
    blob_unref(blob);
}

/* Refs and class names hold nothing that XML or JSON would escape. */
static void xml_event(struct text *t, const struct change *change)
{
    text_printf(t,
                "<value><struct><member><name>id</name><value>%" PRIu64 "</value></member>"
                "<member><name>timestamp</name><value>0.0</value></member>"
                "<member><name>class</name><value>%s</value></member>"
                "<member><name>operation</name><value>%s</value></member>"
                "<member><name>ref</name><value>%s</value></member>",
                change->generation, change->class->lower, kind_names[change->kind], change->ref);
    if (change->row != NULL) {
        text_add(t, "<member><name>snapshot</name><value>");
        add_snapshot(t, change->row, WIRE_XMLRPC);
        text_add(t, "</value></member>");
    }
    text_add(t, "</struct></value>");
}

static void xml_batch(struct db *db, struct arena *a, const struct event_batch *b, struct text *t)
{
    struct value counts = counts_value(db, a);

    text_add(t, "<struct><member><name>events</name><value><array><data>");
    for (unsigned i = 0; i < b->n; i++)
        xml_event(t, b->changes[i]);
    text_add(t, "</data></array></value></member><member><name>valid_ref_counts</name>");
    xmlrpc_write_value(t, &counts);
    text_printf(t, "</member><member><name>token</name><value>%s</value></member></struct>",
                event_token(a, b->generation, b->generation));
}

static void json_event(struct text *t, const struct change *change, enum wire_format format)
{
    text_printf(t, "{\"id\":\"%" PRIu64 "\",\"timestamp\":\"0.0\",\"class\":\"%s\",\"operation\":\"%s\",\"ref\":\"%s\"",
                change->generation, change->class->lower, kind_names[change->kind], change->ref);
    if (change->row != NULL) {
        text_add(t, ",\"snapshot\":");
        add_snapshot(t, change->row, format);
    }
    text_add_byte(t, '}');
}

static void json_batch(struct db *db, struct arena *a, const struct event_batch *b, enum wire_format format, struct text *t)
{
    struct value counts = counts_value(db, a);

    text_add(t, "{\"events\":[");
    for (unsigned i = 0; i < b->n; i++) {
        if (i > 0)
            text_add_byte(t, ',');
        json_event(t, b->changes[i], format);
    }
    text_add(t, "],\"valid_ref_counts\":");
    json_write(t, &counts);
    text_printf(t, ",\"token\":\"%s\"}", event_token(a, b->generation, b->generation));
}

void event_batch_write(struct db *db, const struct event_batch *b, enum wire_format format, struct text *t)
{
    AUTO_ARENA a = arena_new();

    if (format == WIRE_XMLRPC)
        xml_batch(db, a, b, t);
    else
        json_batch(db, a, b, format, t);
}
