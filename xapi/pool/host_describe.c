/* What this host says of itself: facts of the machine, the hypervisor and the configuration. */
#include <string.h>
#include <unistd.h>

#include "rpc/base/datetime.h"
#include "rpc/base/fd.h"
#include "rpc/base/text.h"
#include "xapi/pool/boot_time.h"
#include "xapi/pool/host_record.h"
#include "xapi/pool/membership.h"
#include "xenops/xenops.h"

static struct value number_text(struct arena *arena, int64_t n)
{
    return value_string(arena_printf(arena, "%lld", (long long)n));
}

/* A file of one line, or "". */
static const char *line_of(struct arena *arena, const char *path)
{
    char *text;
    size_t len;

    if (file_read(arena, path, 65536, &text, &len) != 0)
        return "";
    text[strcspn(text, "\n")] = '\0';
    return text;
}

static struct value bios_strings(struct arena *arena)
{
    static const struct { const char *key, *file; } strings[] = {
        { "bios-vendor", "bios_vendor" },
        { "bios-version", "bios_version" },
        { "system-manufacturer", "sys_vendor" },
        { "system-product-name", "product_name" },
        { "system-version", "product_version" },
        { "system-serial-number", "product_serial" },
        { "baseboard-manufacturer", "board_vendor" },
        { "baseboard-product-name", "board_name" },
        { "baseboard-version", "board_version" },
        { "baseboard-serial-number", "board_serial" },
        { "enclosure-asset-tag", "chassis_asset_tag" },
    };
    struct value_dict d = { 0 };

    for (unsigned i = 0; i < ARRAY_LEN(strings); i++)
        value_dict_add(arena, &d, strings[i].key, value_string(line_of(arena, arena_printf(arena, "/sys/class/dmi/id/%s", strings[i].file))));
    value_dict_add(arena, &d, "oem-1", value_string("Xen"));
    value_dict_add(arena, &d, "hp-rombios", value_string(""));
    return value_dict_value(&d);
}

/* "model", "stepping" … of the first processor in /proc/cpuinfo. */
static const char *cpuinfo(struct arena *arena, const char *text, const char *key)
{
    size_t len = strlen(key);

    for (const char *line = text; line != NULL && *line != '\0'; line = strchr(line, '\n') == NULL ? NULL : strchr(line, '\n') + 1) {
        const char *after = line + len;

        if (strncmp(line, key, len) != 0)
            continue;
        after += strspn(after, " \t");
        if (*after == ':')
            return arena_strndup(arena, after + 2, strcspn(after + 2, "\n"));
    }
    return "";
}

static struct value cpu_info(struct arena *arena, const struct host_facts *facts)
{
    struct value_dict d = { 0 };
    const char *text = "";
    char *read;
    size_t len;

    if (file_read(arena, "/proc/cpuinfo", 4 << 20, &read, &len) == 0)
        text = read;
    value_dict_add(arena, &d, "cpu_count", number_text(arena, facts->cpu_count));
    value_dict_add(arena, &d, "socket_count", number_text(arena, facts->socket_count));
    value_dict_add(arena, &d, "threads_per_core", value_string("1"));
    value_dict_add(arena, &d, "vendor", value_string(facts->cpu_vendor));
    value_dict_add(arena, &d, "speed", value_string(arena_printf(arena, "%.3f", facts->cpu_mhz)));
    value_dict_add(arena, &d, "modelname", value_string(facts->cpu_model));
    value_dict_add(arena, &d, "family", value_string(cpuinfo(arena, text, "cpu family")));
    value_dict_add(arena, &d, "model", value_string(cpuinfo(arena, text, "model")));
    value_dict_add(arena, &d, "stepping", value_string(cpuinfo(arena, text, "stepping")));
    value_dict_add(arena, &d, "flags", value_string(facts->cpu_flags));
    value_dict_add(arena, &d, "features", value_string(facts->cpu_features));
    value_dict_add(arena, &d, "features_pv", value_string(facts->cpu_features));
    value_dict_add(arena, &d, "features_hvm", value_string(facts->cpu_features));
    value_dict_add(arena, &d, "features_pv_host", value_string(facts->cpu_features));
    value_dict_add(arena, &d, "features_hvm_host", value_string(facts->cpu_features));
    return value_dict_value(&d);
}

static struct value capabilities(struct arena *arena, const char *words)
{
    struct value_list list = { 0 };

    for (const char *at = words; *at != '\0';) {
        size_t len = strcspn(at, " ");

        if (len > 0)
            value_list_add(arena, &list, value_string(arena_strndup(arena, at, len)));
        at += len + strspn(at + len, " ");
    }
    return value_list_value(&list);
}

/* "8.3" of "8.3.0" */
static const char *two_parts(struct arena *arena, const char *version)
{
    size_t first = strcspn(version, ".");

    return version[first] == '\0' ? version : arena_strndup(arena, version, first + 1 + strcspn(version + first + 1, "."));
}

struct value software_version(struct arena *arena, const struct xapi *xapi, const char *hostname, const char *hypervisor)
{
    const char *product = config_string(xapi->config, "product-version"), *xapi_version = config_string(xapi->config, "xapi-version");
    const char *xen = strncmp(hypervisor, "xen-", 4) == 0 ? hypervisor + 4 : config_string(xapi->config, "xen-version");
    const char *const values[][2] = {
        { "product_brand", config_string(xapi->config, "product-brand") },
        { "product_version", product },
        { "product_version_text", two_parts(arena, product) },
        { "product_version_text_short", two_parts(arena, product) },
        { "platform_name", config_string(xapi->config, "platform-name") },
        { "platform_version", config_string(xapi->config, "platform-version") },
        { "build_number", config_string(xapi->config, "build-number") },
        { "git_id", "0" },
        { "hostname", hostname },
        { "date", config_string(xapi->config, "build-date") },
        { "dbv", "0.0.1" },
        { "db_schema", "5.780" },
        { "xapi", xapi_version },
        { "xapi_build", xapi_version },
        { "xen", xen },
        { "linux", line_of(arena, "/proc/sys/kernel/osrelease") },
        { "hypervisor", hypervisor },
        { "network_backend", config_string(xapi->config, "network-backend") },
    };
    struct value_dict d = { 0 };

    for (unsigned i = 0; i < ARRAY_LEN(values); i++)
        value_dict_add(arena, &d, values[i][0], value_string(values[i][1]));
    return value_dict_value(&d);
}

static struct value chipset_info(struct arena *arena)
{
    struct value_dict d = { 0 };

    value_dict_add(arena, &d, "iommu", value_string("false"));
    return value_dict_value(&d);
}

static const char *host_name(struct arena *arena, const struct xapi *xapi)
{
    const char *given = membership_read(arena, xapi, "hostname");
    char name[256] = "localhost";

    if (given != NULL)
        return given;
    if (gethostname(name, sizeof(name) - 1) != 0 || name[0] == '\0')
        return "localhost";
    return arena_strdup(arena, name);
}

struct error *host_describe(struct call *c, struct xapi *xapi, struct value *description_r)
{
    struct arena *arena = c->arena;
    struct value_dict d = { 0 };
    struct host_facts facts;
    const char *dom0, *hostname = host_name(arena, xapi);
    int64_t boot;

    TRY(xenops_facts(c, xapi->xenops, &facts));
    TRY(membership_control_domain(arena, xapi, &dom0));
    TRY(boot_time_of(arena, xapi, strcmp(facts.hypervisor, "sim") == 0, &boot));
    value_dict_add(arena, &d, "uuid", value_string(xapi->host_uuid));
    value_dict_add(arena, &d, "address", value_string(xapi->address));
    value_dict_add(arena, &d, "hostname", value_string(hostname));
    value_dict_add(arena, &d, "software_version", software_version(arena, xapi, hostname, facts.hypervisor));
    value_dict_add(arena, &d, "capabilities", capabilities(arena, facts.capabilities));
    value_dict_add(arena, &d, "cpu_info", cpu_info(arena, &facts));
    value_dict_add(arena, &d, "chipset_info", chipset_info(arena));
    value_dict_add(arena, &d, "bios_strings", bios_strings(arena));
    value_dict_add(arena, &d, "memory_total", value_int(facts.memory_total));
    value_dict_add(arena, &d, "memory_free", value_int(facts.memory_free));
    value_dict_add(arena, &d, "boot_time", value_int(boot));
    value_dict_add(arena, &d, "agent_start_time", value_int(boot_agent_start(xapi)));
    value_dict_add(arena, &d, "control_domain_uuid", value_string(dom0));
    value_dict_add(arena, &d, "certificate", value_string(xapi->certificate_fingerprint == NULL ? "" : xapi->certificate_fingerprint));
    value_dict_add(arena, &d, "https_only", value_bool(membership_https_only(arena, xapi)));
    value_dict_add(arena, &d, "api_major", value_int(API_MAJOR));
    value_dict_add(arena, &d, "api_minor", value_int(API_MINOR));
    *description_r = value_dict_value(&d);
    return NULL;
}
