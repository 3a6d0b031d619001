/* SR.probe and probe_ext: what storage is there that could become an SR. */
#include <string.h>

#include "rpc/base/text.h"
#include "xapi/core/agent.h"
#include "xapi/core/allowed.h"
#include "xapi/pool/sr_rows.h"
#include "xapi/pool/storage_errors.h"

#define LIST(...) ((const char *const[]){ __VA_ARGS__, NULL })

static struct error *probe(struct api_call *c, const char *host, const char *type, const struct value *device_config, struct value *srs_r)
{
    const char *lower = sr_type_lower(c->arena, type);
    const struct member members[] = { member_of("type", value_string(lower)), member_of("device_config", *device_config) };
    struct value args = value_map(members, ARRAY_LEN(members));

    TRY(sr_driver_known(c, lower));
    TRY(storage_error(c, agent_call(c, host, "sr.probe", &args, srs_r), NULL, NULL));
    if (srs_r->kind != VALUE_SET)
        *srs_r = value_set(NULL, 0);
    return NULL;
}

/* --- the XML that clients of SR.probe read ------------------------------------------------------------------- */
static void xml_text(struct text *xml, const char *s)
{
    for (; *s != '\0'; s++) {
        if (*s == '<' || *s == '>' || *s == '&')
            text_add(xml, *s == '<' ? "&lt;" : *s == '>' ? "&gt;" : "&amp;");
        else
            text_add_byte(xml, *s);
    }
}

static const char *as_text(struct arena *arena, const struct value *v)
{
    return v->kind == VALUE_STRING ? v->s : v->kind == VALUE_INT ? arena_printf(arena, "%lld", (long long)v->i) : "";
}

static void xml_sr(struct arena *arena, struct text *xml, const struct value *sr)
{
    text_add(xml, "<SR>\n");
    for (unsigned i = 0; sr->kind == VALUE_MAP && i < sr->len; i++) {
        const char *name = strcmp(sr->members[i].name, "uuid") == 0 ? "UUID" : sr->members[i].name;

        text_printf(xml, "<%s>", name);
        xml_text(xml, as_text(arena, &sr->members[i].value));
        text_printf(xml, "</%s>\n", name);
    }
    text_add(xml, "</SR>\n");
}

struct error *api_SR_probe(struct api_call *c, const struct api_SR_probe_args *a, struct value *result_r)
{
    AUTO_TEXT xml = TEXT_INIT;
    struct value srs;

    TRY(probe(c, a->host, a->type, a->device_config, &srs));
    text_add(&xml, "<?xml version=\"1.0\" ?>\n<SRlist>\n");
    for (unsigned i = 0; i < srs.len; i++)
        xml_sr(c->arena, &xml, &srs.items[i]);
    text_add(&xml, "</SRlist>\n");
    *result_r = value_string(arena_strdup(c->arena, xml.bytes));
    return NULL;
}

/* --- probe_ext --------------------------------------------------------------------------------------------------- */
/* An option travels as a set of none or one. */
static struct value option(struct arena *arena, bool there, struct value v)
{
    struct value_list list = { 0 };

    if (there)
        value_list_add(arena, &list, v);
    return value_list_value(&list);
}

static struct value sr_stat_record(struct arena *arena, const struct value *sr)
{
    struct value_dict d = { 0 };
    const char *uuid = value_get_string(sr, "uuid", "");

    value_dict_add(arena, &d, "uuid", option(arena, uuid[0] != '\0', value_string(uuid)));
    value_dict_add(arena, &d, "name_label", value_string(value_get_string(sr, "name_label", "")));
    value_dict_add(arena, &d, "name_description", value_string(value_get_string(sr, "name_description", "")));
    value_dict_add(arena, &d, "free_space", value_int(value_get_int(sr, "free_space", 0)));
    value_dict_add(arena, &d, "total_space", value_int(value_get_int(sr, "size", 0)));
    value_dict_add(arena, &d, "clustered", value_bool(false));
    value_dict_add(arena, &d, "health", value_string("healthy"));
    return value_dict_value(&d);
}

/* What was asked with, and what the driver found out. */
static struct value configuration(struct arena *arena, const struct value *device_config, const struct value *sr)
{
    struct value_dict d = { 0 };

    for (unsigned i = 0; i < device_config->len; i++)
        value_dict_add(arena, &d, device_config->members[i].name, device_config->members[i].value);
    for (unsigned i = 0; sr->kind == VALUE_MAP && i < sr->len; i++)
        if (!one_of(sr->members[i].name, LIST("uuid", "size", "free_space", "name_label", "name_description")))
            value_dict_set(arena, &d, sr->members[i].name, value_string(as_text(arena, &sr->members[i].value)));
    return value_dict_value(&d);
}

struct error *api_SR_probe_ext(struct api_call *c, const struct api_SR_probe_ext_args *a, struct value *result_r)
{
    struct value_list results = { 0 };
    struct value srs;

    TRY(probe(c, a->host, a->type, a->device_config, &srs));
    for (unsigned i = 0; i < srs.len; i++) {
        const struct value *sr = &srs.items[i];
        struct value_dict d = { 0 };

        value_dict_add(c->arena, &d, "configuration", configuration(c->arena, a->device_config, sr));
        value_dict_add(c->arena, &d, "complete", value_bool(true));
        value_dict_add(c->arena, &d, "sr", option(c->arena, value_get(sr, "uuid") != NULL, sr_stat_record(c->arena, sr)));
        value_dict_add(c->arena, &d, "extra_info", value_map(NULL, 0));
        value_list_add(c->arena, &results, value_dict_value(&d));
    }
    *result_r = value_list_value(&results);
    return NULL;
}
