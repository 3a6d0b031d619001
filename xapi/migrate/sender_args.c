/* What migrate.send was asked for, and what the destination can do. */
#include <string.h>
#include <unistd.h>

#include "rpc/base/text.h"
#include "xapi/migrate/sender.h"

static struct value set_of(const struct value *args, const char *name, struct value otherwise)
{
    const struct value *v = value_get(args, name);

    return v != NULL && v->kind == VALUE_SET ? *v : otherwise;
}

static struct error *bad(struct arena *a, const char *name, const char *value)
{
    return err_internal(a, "migrate.send: '%s' is no value of %s", value, name);
}

static struct error *read_compress(struct sender *s, const struct value *args)
{
    const char *word = value_get_string(args, "compress", "off");

    for (enum fan_compress i = FAN_OFF; i <= FAN_AUTO; i++)
        if (strcmp(word, fan_compress_name(i)) == 0) {
            s->compress = i;
            return NULL;
        }
    return bad(s->c->arena, "compress", word);
}

static struct error *read_deadline(struct sender *s, const struct value *args)
{
    static const char *const words[] = {
        [SAVE_DEADLINE_CONTINUE] = "continue", [SAVE_DEADLINE_ABORT] = "abort",
        [SAVE_DEADLINE_SUSPEND] = "suspend",   [SAVE_DEADLINE_POSTCOPY] = "postcopy",
    };
    const char *word = value_get_string(args, "on_timeout", "abort");
    int64_t seconds = value_get_int(args, "timeout_s", 0);

    if (seconds > 0)
        s->policy.deadline_ms = clock_ms(s->c->clock) + seconds * 1000;
    for (unsigned i = 0; i < ARRAY_LEN(words); i++)
        if (strcmp(word, words[i]) == 0) {
            s->policy.on_deadline = (enum save_deadline)i;
            return NULL;
        }
    return bad(s->c->arena, "on_timeout", word);
}

static struct error *read_postcopy(struct sender *s, const struct value *args)
{
    const char *word = value_get_string(args, "postcopy", "never");
    int64_t seconds;

    if (strcmp(word, "never") == 0)
        return NULL;
    s->policy.postcopy = true;
    if (strcmp(word, "allowed") == 0)
        return NULL;
    if (strncmp(word, "after:", 6) != 0 || !text_to_int(word + 6, &seconds) || seconds < 0)
        return bad(s->c->arena, "postcopy", word);
    s->policy.postcopy_after_ms = seconds > 0 ? seconds * 1000 : 1;
    return NULL;
}

static struct error *read_policy(struct sender *s, const struct value *args)
{
    s->policy = (struct save_policy){
        .live = value_get_bool(args, "live", true),
        .max_downtime_ms = (unsigned)value_get_int(args, "max_downtime_ms", 0),
        .bandwidth = value_get_int(args, "bandwidth", 0),
        .localhost = value_get_bool(args, "localhost", false),
        .fallback_stop = value_get_bool(args, "fallback_non_live", false),
        .auto_converge = value_get_bool(args, "auto_converge", false),
        .control = &s->control,
    };
    TRY(read_postcopy(s, args));
    TRY(read_deadline(s, args));
    bool at_deadline = s->policy.deadline_ms != 0 && s->policy.on_deadline == SAVE_DEADLINE_POSTCOPY;
    if ((s->policy.postcopy || at_deadline) && !xenops_can(s->m->xapi->xenops, XENOPS_POSTCOPY))
        return err_internal(s->c->arena, "post-copy is not possible on this host");
    atomic_store(&s->control.hold, value_get_bool(args, "hold", false));
    atomic_store(&s->paused, value_get_bool(args, "paused", false));
    return NULL;
}

static struct error *read_streams(struct sender *s, const struct value *args)
{
    int64_t n = value_get_int(args, "streams", 0);

    if (n < 0 || n > FAN_MAX)
        return err_internal(s->c->arena, "migrate.send: streams must be 1 to %u", FAN_MAX);
    if (n == 0) /* encryption is the work that is worth a second core */
        n = s->target.tls && !s->policy.localhost && sysconf(_SC_NPROCESSORS_ONLN) >= 2 ? 2 : 1;
    s->wanted_streams = (unsigned)n;
    return read_compress(s, args);
}

static struct error *read_target(struct sender *s, const struct value *args)
{
    TRY(migration_target(s->c->arena, args, &s->target));
    s->key = value_get_string(args, "key", NULL);
    if (s->key != NULL && s->key[0] == '\0')
        s->key = NULL;
    if (s->key != NULL && !uuid_valid(s->key))
        return err_internal(s->c->arena, "migrate.send: the key is no uuid");
    return NULL;
}

struct error *sender_init(struct sender *s, const struct value *args)
{
    struct arena *a = s->c->arena;
    s->id = value_get_string(args, "migration_id", NULL);
    s->vm_uuid = value_get_string(args, "vm", NULL);
    s->final_uuid = value_get_string(args, "final", s->vm_uuid);
    s->spec = value_get(args, "spec");
    if (s->id == NULL || s->vm_uuid == NULL || !uuid_valid(s->vm_uuid) || !uuid_valid(s->final_uuid) || s->spec == NULL)
        return err_internal(a, "migrate.send needs migration_id, vm and spec");
    s->disks = set_of(args, "disks", value_set(NULL, 0));
    s->destination_disks = set_of(args, "destination_disks", s->disks);
    s->vifs = set_of(args, "vifs", value_set(NULL, 0));
    s->report = value_void();
    s->silence_ms = config_int(s->m->xapi->config, "migration-silence-s") * 1000;
    migration_temp_uuid(s->vm_uuid, JOURNAL_SOURCE, s->source_temp);
    migration_temp_uuid(s->final_uuid, JOURNAL_DESTINATION, s->destination_temp);
    TRY(read_target(s, args));
    TRY(read_policy(s, args));
    return read_streams(s, args);
}

void sender_read_offer(struct sender *s, const struct value *answer)
{
    int64_t streams = value_get_int(answer, "streams", 1);
    const struct value *extras = value_get(answer, "extras"), *compress = value_get(answer, "compress");

    s->offer = (struct sender_offer){
        .streams = streams < 1 ? 1 : streams > FAN_MAX ? FAN_MAX : (unsigned)streams,
        .zstd = compress != NULL && value_set_has(compress, "zstd"),
        .confirm = extras != NULL && value_set_has(extras, "confirm"),
        .alive = extras != NULL && value_set_has(extras, "alive"),
        .report = extras != NULL && value_set_has(extras, "report"),
    };
    LOCK_SCOPE(&s->lock); /* migrate.status looks */
    s->n_streams = s->wanted_streams < s->offer.streams ? s->wanted_streams : s->offer.streams;
    if (!s->offer.zstd)
        s->compress = FAN_OFF;
}
