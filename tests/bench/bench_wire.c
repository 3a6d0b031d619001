/* How much slower than memcpy are replies made? 10,000 records like a VM, fresh and from snapshots, whole
 * and in pieces; each row is a number of interleaved pairs (make the reply, copy the same bytes).
 *
 * usage: bench_wire [records [pairs]]. The last line says how many rows missed their target. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "rpc/base/memory.h"
#include "rpc/wire/envelope.h"
#include "rpc/wire/json.h"
#include "rpc/wire/xmlrpc.h"
#include "tests/bench/row.h"

#define PIECE (200u * 1024)

/* name, and what the field holds: s text, S text to escape, e short word, r reference, R set of n references,
 * i int, b bool, f float, d datetime, O set of operations, M map of n pairs, 0 empty set, m empty map */
#define FIELDS(F)                                                                                                      \
    F(uuid, 'u', 0) F(allowed_operations, 'O', 14) F(current_operations, 'm', 0) F(name_label, 's', 0)                 \
    F(name_description, 'S', 0) F(power_state, 'e', 0) F(user_version, 'i', 1) F(is_a_template, 'b', 0)                \
    F(is_default_template, 'b', 0) F(suspend_VDI, 'r', 0) F(resident_on, 'r', 0)                                       \
    F(scheduled_to_be_resident_on, 'r', 0) F(affinity, 'r', 0) F(memory_overhead, 'i', 22020096)                       \
    F(memory_target, 'i', 0) F(memory_static_max, 'i', 4294967296) F(memory_dynamic_max, 'i', 4294967296)              \
    F(memory_dynamic_min, 'i', 4294967296) F(memory_static_min, 'i', 1073741824) F(VCPUs_params, 'M', 2)               \
    F(VCPUs_max, 'i', 4) F(VCPUs_at_startup, 'i', 4) F(actions_after_softreboot, 'e', 0)                               \
    F(actions_after_shutdown, 'e', 0) F(actions_after_reboot, 'e', 0) F(actions_after_crash, 'e', 0)                   \
    F(consoles, 'R', 1) F(VIFs, 'R', 2) F(VBDs, 'R', 3) F(VUSBs, '0', 0) F(crash_dumps, '0', 0) F(VTPMs, '0', 0)       \
    F(PV_bootloader, 'e', 0) F(PV_kernel, '-', 0) F(PV_ramdisk, '-', 0) F(PV_args, 's', 0)                             \
    F(PV_bootloader_args, '-', 0) F(PV_legacy_args, '-', 0) F(HVM_boot_policy, 's', 0) F(HVM_boot_params, 'M', 2)      \
    F(HVM_shadow_multiplier, 'f', 0) F(platform, 'M', 16) F(PCI_bus, '-', 0) F(other_config, 'M', 14)                  \
    F(domid, 'i', 17) F(domarch, 'e', 0) F(last_boot_CPU_flags, 'M', 2) F(is_control_domain, 'b', 0)                   \
    F(metrics, 'r', 0) F(guest_metrics, 'r', 0) F(last_booted_record, '-', 0) F(recommendations, 'X', 0)               \
    F(xenstore_data, 'M', 4) F(ha_always_run, 'b', 0) F(ha_restart_priority, 'e', 0) F(is_a_snapshot, 'b', 0)          \
    F(snapshot_of, 'r', 0) F(snapshots, 'R', 2) F(snapshot_time, 'd', 0) F(transportable_snapshot_id, '-', 0)          \
    F(blobs, 'm', 0) F(tags, 'R', 1) F(blocked_operations, 'm', 0) F(snapshot_info, 'm', 0)                            \
    F(snapshot_metadata, '-', 0) F(parent, 'r', 0) F(children, '0', 0) F(bios_strings, 'M', 18)                        \
    F(protection_policy, 'r', 0) F(is_snapshot_from_vmpp, 'b', 0) F(snapshot_schedule, 'r', 0)                         \
    F(is_vmss_snapshot, 'b', 0) F(appliance, 'r', 0) F(start_delay, 'i', 0) F(shutdown_delay, 'i', 0)                  \
    F(order, 'i', 0) F(VGPUs, '0', 0) F(attached_PCIs, '0', 0) F(suspend_SR, 'r', 0) F(version, 'i', 0)                \
    F(generation_id, 's', 0) F(hardware_platform_version, 'i', 0) F(has_vendor_device, 'b', 0)                         \
    F(requires_reboot, 'b', 0) F(reference_label, 's', 0) F(domain_type, 'e', 0) F(NVRAM, 'M', 1)                      \
    F(pending_guidances, '0', 0) F(pending_guidances_recommended, '0', 0) F(pending_guidances_full, '0', 0)            \
    F(groups, '0', 0)

#define NAME(n, kind, arg) #n,
#define XML_OPEN(n, kind, arg) "<member><name>" #n "</name><value>",
#define JSON_OPEN(n, kind, arg) "\"" #n "\":",
#define ONE(n, kind, arg) 1,
#define KIND(n, kind_, arg_) { kind_, arg_ },
static const char *const names[] = { FIELDS(NAME) };
static const char *const xml_open[] = { FIELDS(XML_OPEN) };
static const char *const json_open[] = { FIELDS(JSON_OPEN) };
static const uint8_t published[] = { FIELDS(ONE) };
static const struct {
    char kind;
    int64_t arg;
} kinds[] = { FIELDS(KIND) };
static const struct record_shape shape = {
    .class_name = "VM",
    .n_fields = ARRAY_LEN(names),
    .names = names,
    .xml_open = xml_open,
    .json_open = json_open,
    .published = published,
};

static unsigned seed = 1;
static unsigned next_random(void) { return seed = seed * 1664525u + 1013904223u; }

static struct value text_of(struct arena *a, const char *prefix)
{
    unsigned x = next_random(), y = next_random(), z = next_random();

    return value_string(arena_printf(a, "%s%08x-%04x-4%03x-8%03x-%08x%04x", prefix, x, y & 0xffff, y >> 20, z >> 20, x ^ z, z & 0xffff));
}

static struct value set_of(struct arena *a, int64_t n, const char *prefix)
{
    struct value_list list = { 0 };

    for (int64_t i = 0; i < n; i++)
        value_list_add(a, &list, text_of(a, prefix));
    return value_list_value(&list);
}

static struct value operations(struct arena *a, int64_t n)
{
    static const char *const words[] = { "snapshot", "clone", "copy", "create_template", "checkpoint", "pool_migrate",
                                         "migrate_send", "clean_shutdown", "clean_reboot", "hard_shutdown", "hard_reboot",
                                         "changing_memory_live", "changing_dynamic_range", "send_sysrq" };
    struct value_list list = { 0 };

    for (int64_t i = 0; i < n; i++)
        value_list_add(a, &list, value_string(words[(size_t)i % ARRAY_LEN(words)]));
    return value_list_value(&list);
}

static struct value pairs_of(struct arena *a, int64_t n)
{
    static const char *const texts[] = { "true", "false", "0", "std", "17179869184", "Xen", "xen-bios-vendor-string",
                                         "8.3.0", "XenServer HVM domU", "00000000-0000-0000-0000-000000000000" };
    struct value_dict dict = { 0 };

    for (int64_t i = 0; i < n; i++) { /* the VMs of a pool mostly agree */
        unsigned choice = (unsigned)i * 7 + (next_random() >> 29 == 0 ? next_random() >> 8 : 0);
        value_dict_add(a, &dict, arena_printf(a, "some-key-%u", (unsigned)i * 37), value_string(texts[choice % ARRAY_LEN(texts)]));
    }
    return value_dict_value(&dict);
}

static const char recommendations[] =
    "<restrictions><restriction field=\"memory-static-max\" max=\"1649267441664\"/><restriction field=\"vcpus-max\" max=\"32\"/>"
    "<restriction field=\"has-vendor-device\" value=\"true\"/><restriction max=\"255\" property=\"number-of-vbds\"/>"
    "<restriction max=\"7\" property=\"number-of-vifs\"/><restriction field=\"supports-uefi\" value=\"yes\"/></restrictions>";

static struct value value_of(struct arena *a, char kind, int64_t arg)
{
    switch (kind) {
    case 'u': return text_of(a, "");
    case 's': return text_of(a, "some name ");
    case 'S': return value_string("web front end & cache of the \"north\" site\nask <ops>");
    case 'X': return value_string(recommendations);
    case 'e': return value_string("Running");
    case 'r': return text_of(a, "OpaqueRef:");
    case 'R': return set_of(a, arg, "OpaqueRef:");
    case 'O': return operations(a, arg);
    case 'M': return pairs_of(a, arg);
    case 'i': return value_int(arg);
    case 'b': return value_bool(next_random() >> 29 == 0);
    case 'f': return value_float(1.0);
    case 'd': return value_datetime(1700000000 + (int64_t)(next_random() >> 8));
    case '0': return value_set(NULL, 0);
    case 'm': return value_map(NULL, 0);
    default: return value_string("");
    }
}

/* One block a record, as rows are. */
static struct record *record_new(void)
{
    AUTO_ARENA a = arena_new();
    struct value fields[ARRAY_LEN(names)];
    size_t size = 0;

    for (unsigned i = 0; i < shape.n_fields; i++) {
        fields[i] = value_of(a, kinds[i].kind, kinds[i].arg);
        size += value_pack_size(&fields[i]);
    }
    struct record *r = xcalloc(1, sizeof(*r) + sizeof(fields) + size);
    struct value *packed = (struct value *)(r + 1);
    char *block = (char *)(packed + shape.n_fields);
    for (unsigned i = 0; i < shape.n_fields; i++)
        packed[i] = value_pack(&fields[i], &block);
    r->shape = &shape;
    r->fields = packed;
    return r;
}

/* CPU time: other work on the machine must not count. */
static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* --- rows --------------------------------------------------------------------------------------- */

struct bench {
    struct wire_call call;
    struct value all;      /* map of reference -> record */
    struct text made;      /* where replies are made */
    struct text reference; /* the whole reply once, to copy from */
    char *copied;          /* where it is copied to */
};

static void make_whole(struct bench *b)
{
    text_clear(&b->made);
    wire_write_success(&b->made, &b->call, &b->all);
}

static void copy_whole(struct bench *b) { memcpy(b->copied, b->reference.bytes, b->reference.len); }

static void make_pieces(struct bench *b)
{
    struct wire_writer w;
    bool more = true;

    for (wire_writer_init(&w, &b->call, &b->all); more;) {
        text_clear(&b->made);
        more = wire_writer_fill(&w, &b->made, PIECE);
    }
}

static void copy_pieces(struct bench *b)
{
    for (size_t at = 0; at < b->reference.len; at += PIECE) {
        size_t left = b->reference.len - at;
        memcpy(b->copied, b->reference.bytes + at, left < PIECE ? left : PIECE);
        __asm__ volatile("" ::: "memory");
    }
}

/* True when the median meets the target (0: none). */
static bool row(const char *name, struct bench *b, void (*make)(struct bench *), void (*copy)(struct bench *), int n, double target)
{
    double made[ROW_PAIRS_MAX], copied[ROW_PAIRS_MAX];
    struct row r = row_of(name, "<=", target);

    make(b);
    copy(b);
    while (r.n < n) {
        int i = r.n;
        row_pair_begin(&r);
        double start = now_ms();
        make(b);
        double middle = now_ms();
        copy(b);
        made[i] = middle - start;
        copied[i] = now_ms() - middle;
        row_pair_end(&r, made[i] / copied[i]);
    }
    qsort(made, (size_t)n, sizeof(double), row_by_size);
    qsort(copied, (size_t)n, sizeof(double), row_by_size);
    printf("%.2f ms, memcpy %.2f ms\n", made[n / 2], copied[n / 2]);
    return row_end(&r);
}

static void parse_rows(void)
{
    static const char xml[] = "<?xml version='1.0'?>\n<methodCall>\n<methodName>VM.get_record</methodName>\n<params>\n<param>\n<value>"
                              "<string>OpaqueRef:9c5f4e1c-1c2a-4a55-8c0b-2f1d6d7e8a90</string></value>\n</param>\n<param>\n<value><string>"
                              "OpaqueRef:0a5f4e1c-1c2a-4a55-8c0b-2f1d6d7e8a91</string></value>\n</param>\n</params>\n</methodCall>\n";
    static const char json[] = "{\"jsonrpc\":\"2.0\",\"method\":\"VM.get_record\",\"params\":[\"OpaqueRef:9c5f4e1c-1c2a-4a55-8c0b-"
                               "2f1d6d7e8a90\",\"OpaqueRef:0a5f4e1c-1c2a-4a55-8c0b-2f1d6d7e8a91\"],\"id\":17}";
    const char *reason, *method;
    struct value params;
    struct wire_call call;
    enum { ROUNDS = 20000 };

    double start = now_ms();
    for (int i = 0; i < ROUNDS; i++) {
        AUTO_ARENA a = arena_new();
        if (!xmlrpc_parse_request(a, xml, sizeof(xml) - 1, &method, &params, &reason))
            exit(1);
    }
    double middle = now_ms();
    for (int i = 0; i < ROUNDS; i++) {
        AUTO_ARENA a = arena_new();
        if (!wire_parse_jsonrpc(a, json, sizeof(json) - 1, &call, &reason))
            exit(1);
    }
    printf("%-34s %8.0f ns a request of %zu bytes\n", "parse XML-RPC", (middle - start) * 1e6 / ROUNDS, sizeof(xml) - 1);
    printf("%-34s %8.0f ns a request of %zu bytes\n", "parse JSON-RPC", (now_ms() - middle) * 1e6 / ROUNDS, sizeof(json) - 1);
}

/* The bytes to copy, and room for the copy. */
static void prepare(struct bench *b)
{
    text_clear(&b->reference);
    wire_write_success(&b->reference, &b->call, &b->all);
    b->copied = xrealloc(b->copied, b->reference.len + 1);
    memset(b->copied, 1, b->reference.len);
}

static int format_rows(struct bench *b, const char *name, int pairs, double target)
{
    char label[64];
    int missed = 0;

    prepare(b);
    snprintf(label, sizeof(label), "wire %s, whole, %.1f MB", name, (double)b->reference.len / 1e6);
    missed += !row(label, b, make_whole, copy_whole, pairs, target);
    snprintf(label, sizeof(label), "wire %s, pieces of 200 KiB", name);
    missed += !row(label, b, make_pieces, copy_pieces, pairs, 0);
    return missed;
}

static int snapshot_row(struct bench *b, const char *name, int pairs, double target)
{
    char label[64];

    for (uint32_t i = 0; i < b->all.len; i++)
        blob_unref(record_snapshot(b->all.members[i].value.record, b->call.format));
    prepare(b);
    snprintf(label, sizeof(label), "wire %s, from snapshots", name);
    return !row(label, b, make_whole, copy_whole, pairs, target);
}

static void release(struct bench *b)
{
    for (uint32_t i = 0; i < b->all.len; i++) {
        struct record *r = (struct record *)(uintptr_t)b->all.members[i].value.record;
        for (unsigned k = 0; k < RECORD_FORMATS; k++)
            blob_unref(r->snapshots[k]);
        xfree(r);
    }
    text_release(&b->made);
    text_release(&b->reference);
    xfree(b->copied);
}

int main(int argc, char **argv)
{
    int64_t n = 10000, pairs = 15;
    int missed = 0;
    struct bench b = { .call = { .format = WIRE_XMLRPC } };
    AUTO_ARENA a = arena_new();
    struct value_dict all = { 0 };

    if ((argc > 1 && !text_to_int(argv[1], &n)) || (argc > 2 && !text_to_int(argv[2], &pairs)) || n < 1 || pairs < 1 ||
        pairs > ROW_PAIRS_MAX)
        return 2;
    xmlrpc_setup(1 << 20);
    for (int64_t i = 0; i < n; i++)
        value_dict_add(a, &all, text_of(a, "OpaqueRef:").s, value_record(record_new()));
    b.all = value_dict_value(&all);

    missed += format_rows(&b, "XML", (int)pairs, 3.0);
    b.call.format = WIRE_JSON2;
    b.call.id = value_int(1);
    missed += format_rows(&b, "JSON", (int)pairs, 8.0);
    b.call.format = WIRE_XMLRPC;
    missed += snapshot_row(&b, "XML", (int)pairs, 1.5);
    b.call.format = WIRE_JSON2;
    missed += snapshot_row(&b, "JSON", (int)pairs, 2.0);
    parse_rows();
    release(&b);
    printf("SHORT %d\n", missed);
    return missed > 0;
}
