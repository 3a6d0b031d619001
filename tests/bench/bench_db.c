/* How fast the database starts, reads and commits: bench_db [-d directory] [-n VMs] [-s seconds] [-c checkpoint pages]
 *
 * Prints, for 1, 16 and 64 threads that each write one field of a random VM and wait until that is
 * durable: operations per second, CPU per operation, commits in a batch. */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "db/change_log.h"
#include "db/db.h"
#include "db/txn.h"
#include "gen/model_ids.h"
#include "rpc/base/check.h"
#include "rpc/base/uuid.h"
#include "rpc/base/work.h"

struct bench {
    struct db *db;
    const char *path;
    unsigned n_vms, checkpoint_pages;
    double seconds;
    const char **vms;
    struct arena *arena;
};

static double cpu_seconds(void)
{
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return (double)r.ru_utime.tv_sec + (double)r.ru_utime.tv_usec / 1e6 + (double)r.ru_stime.tv_sec +
           (double)r.ru_stime.tv_usec / 1e6;
}

static double now(void) { return (double)clock_us(&clock_real) / 1e6; }

static void need(const struct error *error)
{
    if (error == NULL)
        return;
    fprintf(stderr, "%s: %s\n", error->code, error->n_params > 0 ? error->params[0] : "");
    exit(1);
}

/* --- filling it --------------------------------------------------------------------------------------- */

static struct value some_map(struct arena *arena, unsigned n, const char *what)
{
    struct value_dict dict = { 0 };
    for (unsigned i = 0; i < n; i++)
        value_dict_add(arena, &dict, arena_printf(arena, "%s-key-%u", what, i),
                       value_string(arena_printf(arena, "some value %u of it", i)));
    return value_dict_value(&dict);
}

static const char *make(struct txn *txn, unsigned class_id, const struct field_value *fields, unsigned n)
{
    const char *ref;
    need(txn_create(txn, class_id, NULL, NULL, fields, n, &ref));
    return ref;
}

static const char *make_vm(struct txn *txn, struct arena *a, unsigned i, const char *sr, const char *network)
{
    const char *metrics = make(txn, CLASS_VM_metrics, NULL, 0);
    struct field_value guest[] = { { F_VM_guest_metrics_os_version, some_map(a, 6, "os") },
                                   { F_VM_guest_metrics_networks, some_map(a, 4, "ip") } };
    struct field_value fields[] = {
        { F_VM_name_label, value_string(arena_printf(a, "Production virtual machine %u", i)) },
        { F_VM_name_description, value_string("Created from a template by somebody who writes long descriptions") },
        { F_VM_memory_static_max, value_int(4ll << 30) },
        { F_VM_memory_dynamic_max, value_int(4ll << 30) },
        { F_VM_platform, some_map(a, 12, "platform") },
        { F_VM_other_config, some_map(a, 8, "other") },
        { F_VM_xenstore_data, some_map(a, 5, "xenstore") },
        { F_VM_HVM_boot_params, some_map(a, 2, "boot") },
        { F_VM_metrics, value_string(metrics) },
        { F_VM_guest_metrics, value_string(make(txn, CLASS_VM_guest_metrics, guest, 2)) },
    };
    const char *vm = make(txn, CLASS_VM, fields, ARRAY_LEN(fields));
    for (int disk = 0; disk < 2; disk++) {
        struct field_value vdi[] = { { F_VDI_SR, value_string(sr) },
                                     { F_VDI_virtual_size, value_int(8ll << 30) },
                                     { F_VDI_sm_config, some_map(a, 2, "sm") } };
        struct field_value vbd[] = { { F_VBD_VM, value_string(vm) },
                                     { F_VBD_VDI, value_string(make(txn, CLASS_VDI, vdi, 3)) } };
        make(txn, CLASS_VBD, vbd, 2);
    }
    struct field_value vif[] = { { F_VIF_VM, value_string(vm) },
                                 { F_VIF_network, value_string(network) },
                                 { F_VIF_MAC, value_string("00:16:3e:00:00:00") } };
    make(txn, CLASS_VIF, vif, 3);
    return vm;
}

static void fill(struct bench *b)
{
    const char *sr, *network;
    {
        AUTO_TXN txn = txn_begin(b->db, b->arena);
        sr = make(txn, CLASS_SR, NULL, 0);
        network = make(txn, CLASS_network, NULL, 0);
        need(txn_commit(txn, NULL));
    }
    for (unsigned i = 0; i < b->n_vms;) {
        AUTO_ARENA arena = arena_new();
        AUTO_TXN txn = txn_begin(b->db, arena);
        for (unsigned end = i + 500; i < end && i < b->n_vms; i++)
            b->vms[i] = arena_strdup(b->arena, make_vm(txn, arena, i, sr, network));
        need(txn_commit(txn, NULL));
    }
}

static void open_it(struct bench *b)
{
    struct db_options options = { .path = b->path, .checkpoint_pages = b->checkpoint_pages };
    need(db_open(b->arena, &options, &b->db));
}

static void bench_start(struct bench *b)
{
    double began = now();
    fill(b);
    printf("fill      %6u VMs (8 objects each)        %8.0f ms\n", b->n_vms, (now() - began) * 1e3);
    began = now();
    db_close(b->db);
    struct stat st;
    CHECK(stat(b->path, &st) == 0);
    printf("close                                        %8.0f ms, file %.1f MB\n", (now() - began) * 1e3,
           (double)st.st_size / 1e6);
    for (int i = 0; i < 3; i++) {
        double cpu = cpu_seconds();
        began = now();
        open_it(b);
        printf("start                                        %8.0f ms, CPU %.0f ms\n", (now() - began) * 1e3,
               (cpu_seconds() - cpu) * 1e3);
        if (i < 2)
            db_close(b->db);
    }
}

/* --- reading ------------------------------------------------------------------------------------------ */

static void bench_read(struct bench *b)
{
    enum { N = 200000 };
    double began = now();
    for (unsigned i = 0; i < N; i++) {
        AUTO_ARENA arena = arena_new();
        CHECK(db_get(b->db, arena, &model_classes[CLASS_VM], b->vms[(i * 7919u) % b->n_vms]) != NULL);
    }
    printf("db_get (with an arena each)                  %8.2f us\n", (now() - began) * 1e6 / N);
    began = now();
    for (unsigned i = 0; i < 50; i++) {
        AUTO_ARENA arena = arena_new();
        CHECK(db_all(b->db, arena, &model_classes[CLASS_VM]).n == b->n_vms);
    }
    printf("db_all of the VMs                            %8.2f ms\n", (now() - began) * 1e3 / 50);
    began = now();
    struct class_set all = { { ~0ull, ~0ull } };
    struct change_list list;
    for (unsigned i = 0; i < 10; i++) {
        AUTO_ARENA arena = arena_new();
        change_log_since(b->db, arena, 0, &all, &list);
    }
    printf("change_log_since(0), %u objects           %8.2f ms\n", list.n, (now() - began) * 1e3 / 10);
}

/* --- committing ---------------------------------------------------------------------------------------- */

struct worker {
    struct bench *b;
    pthread_t thread;
    unsigned seed;
    unsigned long done;
    bool volatile_field;
};

static atomic_bool stop;

static void *worker_run(void *arg)
{
    struct worker *w = arg;
    struct value operations[2] = { value_string("start"), value_string("clone") };
    while (!atomic_load(&stop)) {
        AUTO_ARENA arena = arena_new();
        const char *vm = w->b->vms[(w->seed = w->seed * 1664525u + 1013904223u) / 7 % w->b->n_vms];
        const char *text = arena_printf(arena, "Described by thread, %lu", w->done++);
        operations[1] = value_string(text);
        need(w->volatile_field
                 ? db_set(w->b->db, arena, CLASS_VM, vm, F_VM_allowed_operations, value_set(operations, 2))
                 : db_set(w->b->db, arena, CLASS_VM, vm, F_VM_name_description, value_string(text)));
    }
    return NULL;
}

static void bench_commit(struct bench *b, unsigned n_threads, bool volatile_field)
{
    struct worker *workers = arena_calloc(b->arena, n_threads, sizeof(*workers));
    struct db_stats before, after;
    unsigned long done = 0;

    atomic_store(&stop, false);
    db_stats(b->db, &before);
    double began = now(), cpu = cpu_seconds();
    for (unsigned i = 0; i < n_threads; i++) {
        workers[i] = (struct worker){ .b = b, .seed = i + 1, .volatile_field = volatile_field };
        workers[i].thread = thread_start("worker", worker_run, &workers[i]);
    }
    (void)poll(NULL, 0, (int)(b->seconds * 1e3));
    atomic_store(&stop, true);
    for (unsigned i = 0; i < n_threads; i++) {
        pthread_join(workers[i].thread, NULL);
        done += workers[i].done;
    }
    double took = now() - began;
    cpu = cpu_seconds() - cpu;
    db_stats(b->db, &after);
    uint64_t batches = after.batches - before.batches;
    printf("%-8s  %3u threads  %8.0f /s  CPU %5.1f us  batch %5.1f  sqlite %6.0f us a batch\n",
           volatile_field ? "volatile" : "durable", n_threads, (double)done / took, cpu * 1e6 / (double)done,
           batches > 0 ? (double)done / (double)batches : 0,
           batches > 0 ? (double)(after.sqlite_us - before.sqlite_us) / (double)batches : 0);
}

int main(int argc, char **argv)
{
    static const unsigned threads[] = { 1, 16, 64 };
    struct bench b = { .n_vms = 10000, .seconds = 3, .arena = arena_new() };
    const char *dir = "/tmp";

    for (int option; (option = getopt(argc, argv, "d:n:s:c:")) != -1;) {
        if (option == 'd')
            dir = optarg;
        else if (option == 'n')
            b.n_vms = (unsigned)strtoul(optarg, NULL, 10);
        else if (option == 'c')
            b.checkpoint_pages = (unsigned)strtoul(optarg, NULL, 10);
        else if (option == 's')
            b.seconds = strtod(optarg, NULL);
        else
            return 2;
    }
    b.path = arena_printf(b.arena, "%s/bench-%d.db", dir, (int)getpid());
    b.vms = arena_calloc(b.arena, b.n_vms, sizeof(*b.vms));
    open_it(&b);
    bench_start(&b);
    bench_read(&b);
    for (int volatile_field = 0; volatile_field < 2; volatile_field++)
        for (unsigned i = 0; i < ARRAY_LEN(threads); i++)
            bench_commit(&b, threads[i], volatile_field != 0);
    db_close(b.db);
    if (getenv("KEEP") == NULL)
        (void)unlink(b.path);
    (void)unlink(arena_printf(b.arena, "%s.lock", b.path));
    arena_free(b.arena);
    return 0;
}
