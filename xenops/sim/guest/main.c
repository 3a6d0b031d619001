/* xapi-guest DIRECTORY: one simulated guest (design §8). Started by xenops/sim/spawn.c in a session of
 * its own, with its directory as working directory; what it is stands in the file "settings". */
#include "xenops/sim/guest/guest.h"

#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "rpc/base/memory.h"

#define LOOK_MS 50
#define LAST_MS (2 * DISK_LAST_MS) /* in post-copy */

static const char *const end_names[] = GUEST_END_NAMES;

void guest_end(struct guest *g, enum guest_end how)
{
    int none = GUEST_END_NONE;

    if (atomic_compare_exchange_strong(&g->ended, &none, (int)how))
        eventfd_write(g->end_fd, 1);
}

/* Never returns: the threads stand at the gate, and wait for a disk's server only for a while. */
static void finish(struct guest *g)
{
    enum guest_end how = (enum guest_end)atomic_load(&g->ended);
    int64_t until = clock_ms(g->clock) + LAST_MS;

    disks_give_up(g);
    while (!gate_close_within(&g->gate, LOOK_MS))
        if (faults_lost(g) || (faults_pending(g) && (how == GUEST_END_CRASH || clock_ms(g->clock) >= until)))
            break; /* a vCPU stands at a page that does not come */
    if (atomic_load(&g->bad_page) != UINT64_MAX) {
        g->verify = arena_printf(g->arena, "FAIL:%llu", (unsigned long long)atomic_load(&g->bad_page));
        publish(g);
    }
    if (how != GUEST_END_CRASH)
        disks_close(g, -1);
    if (how != GUEST_END_NONE && file_replace("end", end_names[how], strlen(end_names[how]), 0600) < 0)
        fprintf(stderr, "xapi-guest: cannot record the end (%s)\n", end_names[how]);
    atomic_store(&g->control->state, GUEST_ENDED);
    eventfd_write(g->event_fd, 1);
    _exit(0);
}

int main(int argc, char **argv)
{
    const struct sigaction ignore = { .sa_handler = SIG_IGN };
    struct guest *g = xcalloc(1, sizeof(*g));

    if (argc != 2 || chdir(argv[1]) < 0) {
        fprintf(stderr, "usage: xapi-guest DIRECTORY\n");
        return 2;
    }
    sigaction(SIGPIPE, &ignore, NULL);
    sigaction(SIGHUP, &ignore, NULL);
    g->arena = arena_new();
    g->faults_fd = -1;
    atomic_init(&g->bad_page, UINT64_MAX);
    atomic_init(&g->looked_at, UINT64_MAX);
    g->clock = &clock_real;
    g->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    g->end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    for (unsigned i = 0; i < GUEST_DISKS; i++)
        g->disks[i].medium.fd = g->disks[i].medium.timer_fd = g->disks[i].medium.stop_fd = -1;
    gate_init(&g->gate);
    if (!settings_read(g->arena, "settings", &g->settings) || !ram_create(g))
        return 1;
    AUTO_FD listen_fd = unix_listen("control", 0600, 16);
    if (listen_fd < 0) {
        fprintf(stderr, "xapi-guest: control: %s\n", strerror(-listen_fd));
        return 1;
    }
    publish(g);
    vcpus_start(g);
    control_serve(g, listen_fd);
    finish(g);
}
