/* What the simulated host pretends to be. Options (strings; default):
 *
 *   sim-guest-program     xapi-guest beside this program or in a directory above it
 *   sim-witness-dir       <state_dir>/witness; shared by hosts that move guests to each other
 *   sim-memory-mib        8192          sim-cpus, sim-sockets       4, 1
 *   sim-cpu-vendor, -model, -flags, -features, -mhz, sim-capabilities
 *   sim-verify            on; off: a restored guest does not check itself
 *   sim-suspend-ack-ms    30000 (also for shutdown), sim-suspend-ms 1200000, sim-start-ms 30000 */
#include <string.h>
#include <unistd.h>

#include "xenops/sim/host.h"

#define MIB (1ll << 20)

static const char *text_of(struct sim_host *h, const struct value *o, const char *key, const char *fallback)
{
    const char *s = value_get_string(o, key, NULL);

    return arena_strdup(h->arena, s != NULL && s[0] != '\0' ? s : fallback);
}

/* Also where the option is a number in a string. */
static int64_t int_of(const struct value *o, const char *key, int64_t fallback)
{
    int64_t i = value_get_int(o, key, fallback);

    return i > 0 ? i : fallback;
}

/* xapi-guest next to this program, or in the directory above (tests stand deeper), or in PATH. */
static const char *guest_program(struct sim_host *h)
{
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

    if (n <= 0)
        return "xapi-guest";
    self[n] = '\0';
    for (char *slash = strrchr(self, '/'); slash != NULL && slash != self; slash = strrchr(self, '/')) {
        *slash = '\0';
        const char *path = arena_printf(h->arena, "%s/xapi-guest", self);
        if (access(path, X_OK) == 0)
            return path;
    }
    return "xapi-guest";
}

void sim_options_read(struct sim_host *h, const struct value *o)
{
    const char *program = value_get_string(o, "sim-guest-program", "");
    const char *verify = value_get_string(o, "sim-verify", "on");

    h->options = (struct sim_options){
        .guest_program = program[0] != '\0' ? arena_strdup(h->arena, program) : guest_program(h),
        .witness_dir = text_of(h, o, "sim-witness-dir", arena_printf(h->arena, "%s/witness", h->state_dir)),
        .memory = int_of(o, "sim-memory-mib", 8192) * MIB,
        .cpus = (unsigned)int_of(o, "sim-cpus", 4),
        .sockets = (unsigned)int_of(o, "sim-sockets", 1),
        .cpu_vendor = text_of(h, o, "sim-cpu-vendor", "GenuineIntel"),
        .cpu_model = text_of(h, o, "sim-cpu-model", "Simulated CPU"),
        .cpu_flags = text_of(h, o, "sim-cpu-flags", "fpu de tsc msr pae mce cx8 apic mca cmov pat clflush mmx fxsr sse sse2 sse3 ssse3 "
                                                    "sse4_1 sse4_2 popcnt aes xsave avx hypervisor lahf_lm syscall nx lm constant_tsc"),
        .cpu_features = text_of(h, o, "sim-cpu-features",
                                "1fc9cbf5-f6fa3203-2991cbf5-00000123-00000001-000001ab-00000000-00000000-00001000-9c000000-00000000-00000000"),
        .capabilities = text_of(h, o, "sim-capabilities", "xen-3.0-x86_64 hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64"),
        .cpu_mhz = (double)int_of(o, "sim-cpu-mhz", 2400),
        .suspend_ack_ms = int_of(o, "sim-suspend-ack-ms", 30000),
        .suspend_ms = int_of(o, "sim-suspend-ms", 1200000),
        .start_ms = int_of(o, "sim-start-ms", 30000),
        .verify = strcmp(verify, "off") != 0,
    };
}

struct error *sim_facts(struct call *c, void *host, struct host_facts *f)
{
    struct sim_host *h = host;
    const struct sim_options *o = &h->options;

    *f = (struct host_facts){
        .memory_total = o->memory,
        .memory_free = sim_memory_free(h),
        .cpu_count = o->cpus,
        .socket_count = o->sockets,
        .cpu_vendor = arena_strdup(c->arena, o->cpu_vendor),
        .cpu_model = arena_strdup(c->arena, o->cpu_model),
        .cpu_flags = arena_strdup(c->arena, o->cpu_flags),
        .cpu_features = arena_strdup(c->arena, o->cpu_features),
        .cpu_mhz = o->cpu_mhz,
        .hypervisor = "sim",
        .capabilities = arena_strdup(c->arena, o->capabilities),
    };
    return NULL;
}
