/* The guest's side of guest_protocol.h: one request at a time, in the main thread. */
#include "xenops/sim/guest/guest.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "rpc/base/memory.h"

#define PEER_TIMEOUT_S 10
#define LOOK_MS 50
#define LOOKS 4 /* in post-copy */

struct request {
    struct guest_request head;
    char payload[GUEST_PAYLOAD_MAX + 1];
};

static enum guest_state state_of(const struct guest *g) { return (enum guest_state)atomic_load(&g->control->state); }

static void state_set(struct guest *g, enum guest_state state)
{
    atomic_store(&g->control->state, state);
    publish(g);
}

static void answer(int fd, enum guest_answer a, const void *payload, size_t len)
{
    struct guest_reply r = { .magic = GUEST_REQUEST_MAGIC, .answer = a, .len = (uint32_t)len };

    if (unix_send_fds(fd, &r, sizeof(r), NULL, 0) == 0 && len > 0 && unix_send_fds(fd, payload, len, NULL, 0) < 0)
        fprintf(stderr, "xapi-guest: the toolstack hung up\n");
}

static void answer_ok(int fd) { answer(fd, GUEST_ANSWER_OK, NULL, 0); }
static void answer_text(int fd, enum guest_answer a, const char *text) { answer(fd, a, text, strlen(text)); }

static void answer_state(const struct guest *g, int fd)
{
    static const char *const names[] = { "empty", "paused", "running", "suspended", "ended" };

    answer_text(fd, GUEST_ANSWER_STATE, names[state_of(g)]);
}

/* Does not run on: the process ends as crashed. */
static void give_up(struct guest *g, int fd, const char *failed)
{
    g->verify = arena_printf(g->arena, "FAIL:%s", failed);
    publish(g);
    guest_end(g, GUEST_END_CRASH);
    answer_text(fd, GUEST_ANSWER_FAILED, failed);
}

/* Nothing runs any more, but vCPUs that wait for their page: these stand, too, and come to the gate once it is there. */
static void stand(struct guest *g)
{
    for (unsigned i = 0; !gate_close_within(&g->gate, LOOK_MS); i++)
        if (faults_pending(g) && (i >= LOOKS || faults_lost(g)))
            return;
}

static void on_fds(struct guest *g, int fd)
{
    const int fds[] = { g->ram_fd, g->shared_fd, g->event_fd };
    struct guest_reply r = { .magic = GUEST_REQUEST_MAGIC, .answer = GUEST_ANSWER_OK };

    if (unix_send_fds(fd, &r, sizeof(r), fds, ARRAY_LEN(fds)) < 0)
        fprintf(stderr, "xapi-guest: the toolstack hung up\n");
}

static void on_build(struct guest *g, int fd)
{
    const struct settings *s = &g->settings;

    if (state_of(g) != GUEST_EMPTY)
        return answer_state(g, fd);
    vcpus_boot(g);
    if (!witness_create(&g->witness, s->witness, s->uuid, g->boot, s->n_pages))
        return answer_text(fd, GUEST_ANSWER_FAILED, "the witness cannot be written");
    for (unsigned i = 0; i < s->n_disks; i++)
        disk_add(g, &s->disks[i], true);
    state_set(g, GUEST_PAUSED);
    answer_ok(fd);
}

static void on_unpause(struct guest *g, int fd)
{
    char failed[64];

    if (state_of(g) == GUEST_RUNNING)
        return answer_ok(fd);
    if (state_of(g) != GUEST_PAUSED)
        return answer_state(g, fd);
    disks_open(g);
    if (!verify_disks(g, true, failed))
        return give_up(g, fd, failed);
    if (!g->keep_tick)
        g->last_tick_us = 0;
    state_set(g, GUEST_RUNNING);
    gate_open(&g->gate);
    answer_ok(fd);
}

static void on_pause(struct guest *g, int fd)
{
    if (state_of(g) == GUEST_PAUSED)
        return answer_ok(fd);
    if (state_of(g) != GUEST_RUNNING)
        return answer_state(g, fd);
    stand(g);
    state_set(g, GUEST_PAUSED);
    answer_ok(fd);
}

/* The answer, or the one after the ACK, never comes: the connection stays open until the next like it. */
static void play_dead(int *fd, bool after_ack)
{
    static int held = -1;

    if (after_ack)
        answer(*fd, GUEST_ANSWER_ACK, NULL, 0);
    fd_close(&held);
    held = fd_steal(fd);
}

static bool hung_up(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLRDHUP };

    return poll(&p, 1, 0) > 0;
}

/* All threads at rest and the disks closed. False: a disk's server is away, and the toolstack did not wait for it. */
static bool come_to_rest(struct guest *g, int fd)
{
    while (!gate_close_within(&g->gate, LOOK_MS))
        if (hung_up(fd))
            return false;
    return disks_close(g, fd);
}

static void on_suspend(struct guest *g, int *fd)
{
    const struct settings *s = &g->settings;
    struct guest_context context;

    if (state_of(g) != GUEST_RUNNING)
        return answer_state(g, *fd);
    if (s->no_suspend_ack || s->suspend_hangs || s->cant_suspend_reason[0] != '\0')
        return play_dead(fd, s->suspend_hangs && !s->no_suspend_ack);
    answer(*fd, GUEST_ANSWER_ACK, NULL, 0);
    if (!come_to_rest(g, *fd)) {
        disks_open(g);
        gate_open(&g->gate);
        return;
    }
    context_save(g, &context);
    state_set(g, GUEST_SUSPENDED);
    answer(*fd, GUEST_ANSWER_OK, &context, sizeof(context));
}

static void on_resume(struct guest *g, int fd)
{
    if (state_of(g) == GUEST_RUNNING)
        return answer_ok(fd);
    if (state_of(g) != GUEST_SUSPENDED)
        return answer_state(g, fd);
    disks_open(g);
    g->keep_tick = true;
    state_set(g, GUEST_RUNNING);
    gate_open(&g->gate);
    answer_ok(fd);
}

static void on_shutdown(struct guest *g, int *fd, int64_t how)
{
    if (state_of(g) != GUEST_RUNNING)
        return answer_state(g, *fd);
    if (g->settings.no_shutdown_ack && how != GUEST_END_CRASH)
        return play_dead(fd, false);
    answer(*fd, GUEST_ANSWER_ACK, NULL, 0);
    guest_end(g, how == GUEST_END_REBOOT || how == GUEST_END_CRASH ? (enum guest_end)how : GUEST_END_POWEROFF);
}

/* Runs fn with the threads at rest. */
static void at_rest(struct guest *g, const struct request *r, void (*fn)(struct guest *, const struct request *))
{
    bool running = state_of(g) == GUEST_RUNNING;

    if (running)
        stand(g);
    fn(g, r);
    publish(g);
    if (running)
        gate_open(&g->gate);
}

static void do_balloon(struct guest *g, const struct request *r) { ram_balloon(g, (uint64_t)r->head.number / GUEST_PAGE); }

static void do_plug(struct guest *g, const struct request *r)
{
    const char *equals = strchr(r->payload, '=');
    struct disk_setting d;

    if (equals == NULL || strncmp(r->payload, "disk.", 5) != 0)
        return;
    const char *device = arena_strndup(g->arena, r->payload + 5, (size_t)(equals - r->payload) - 5);
    if (!settings_disk(g->arena, device, equals + 1, &d))
        return;
    if (state_of(g) == GUEST_EMPTY) {
        if (g->settings.n_disks < GUEST_DISKS)
            g->settings.disks[g->settings.n_disks++] = d; /* added with the others by BUILD or LOAD */
    } else {
        disk_add(g, &d, true);
        if (state_of(g) == GUEST_RUNNING)
            disks_open(g);
    }
}

static void do_unplug(struct guest *g, const struct request *r) { disk_remove(g, r->payload); }

/* A disk whose server is away must not keep the guest from letting go of it: said before anybody waits. */
static void on_unplug(struct guest *g, int fd, const struct request *r)
{
    disk_give_up(g, r->payload);
    at_rest(g, r, do_unplug);
    answer_ok(fd);
}

static void on_load(struct guest *g, int fd, const struct request *r)
{
    const char *why;

    if (state_of(g) != GUEST_EMPTY)
        return answer_state(g, fd);
    if (r->head.number == 1 && !faults_begin(g, &why))
        return answer_text(fd, GUEST_ANSWER_FAILED, why);
    if (!context_load(g, r->payload, r->head.len, &why)) {
        fprintf(stderr, "xapi-guest: the vCPU state %s\n", why);
        return answer_text(fd, GUEST_ANSWER_FAILED, why);
    }
    state_set(g, GUEST_PAUSED);
    answer_ok(fd);
}

static void on_verify(struct guest *g, int fd)
{
    int64_t began = clock_us(g->clock);
    char failed[64];

    if (state_of(g) != GUEST_PAUSED)
        return answer_state(g, fd);
    if (!verify_all(g, failed))
        return give_up(g, fd, failed);
    atomic_store(&g->control->verify_us, (uint64_t)(clock_us(g->clock) - began));
    g->verify = "ok";
    publish(g);
    answer_ok(fd);
}

static void on_faults(const struct guest *g, int fd)
{
    struct guest_reply r = { .magic = GUEST_REQUEST_MAGIC, .answer = GUEST_ANSWER_OK, .len = sizeof(uint64_t) };
    uint64_t ram = (uint64_t)(uintptr_t)g->ram;

    if (!faults_pending(g))
        return answer_state(g, fd);
    if (unix_send_fds(fd, &r, sizeof(r), &g->faults_fd, 1) < 0 || unix_send_fds(fd, &ram, sizeof(ram), NULL, 0) < 0)
        fprintf(stderr, "xapi-guest: the toolstack hung up\n");
}

static void on_filled(struct guest *g, int fd, bool verify)
{
    int64_t began = clock_us(g->clock);
    char failed[64];

    if (!faults_pending(g))
        return answer_state(g, fd);
    if (!faults_end(g, state_of(g) == GUEST_RUNNING, verify, failed))
        return give_up(g, fd, failed);
    if (verify) {
        atomic_store(&g->control->verify_us, (uint64_t)(clock_us(g->clock) - began));
        g->verify = "ok";
    }
    publish(g);
    answer_ok(fd);
}

static void dispatch(struct guest *g, int *fd, const struct request *r)
{
    switch ((enum guest_verb)r->head.verb) {
    case GUEST_VERB_STATUS: return answer_ok(*fd);
    case GUEST_VERB_FDS: return on_fds(g, *fd);
    case GUEST_VERB_BUILD: return on_build(g, *fd);
    case GUEST_VERB_UNPAUSE: return on_unpause(g, *fd);
    case GUEST_VERB_PAUSE: return on_pause(g, *fd);
    case GUEST_VERB_SUSPEND: return on_suspend(g, fd);
    case GUEST_VERB_RESUME: return on_resume(g, *fd);
    case GUEST_VERB_SHUTDOWN: return on_shutdown(g, fd, r->head.number);
    case GUEST_VERB_LOAD: return on_load(g, *fd, r);
    case GUEST_VERB_VERIFY: return on_verify(g, *fd);
    case GUEST_VERB_BALLOON: at_rest(g, r, do_balloon); return answer_ok(*fd);
    case GUEST_VERB_PLUG: at_rest(g, r, do_plug); return answer_ok(*fd);
    case GUEST_VERB_UNPLUG: return on_unplug(g, *fd, r);
    case GUEST_VERB_FAULTS: return on_faults(g, *fd);
    case GUEST_VERB_FILLED: return on_filled(g, *fd, r->head.number == 1);
    }
    answer_text(*fd, GUEST_ANSWER_FAILED, "no such verb");
}

static void serve_one(struct guest *g, int listen_fd)
{
    const struct timeval timeout = { .tv_sec = PEER_TIMEOUT_S };
    AUTO_FD fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
    AUTO_FREE struct request *r = xcalloc(1, sizeof(*r));

    if (fd < 0)
        return;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
    if (fd_read_all(fd, &r->head, sizeof(r->head)) < 0)
        return;
    if (r->head.magic != GUEST_REQUEST_MAGIC || r->head.len > GUEST_PAYLOAD_MAX)
        return;
    if (r->head.len > 0 && fd_read_all(fd, r->payload, r->head.len) < 0)
        return;
    dispatch(g, &fd, r);
}

/* The backend's word that it has recorded this guest; until then its death is ours too. */
static bool adopted(int *fd)
{
    char word;
    bool yes = fd_read_all(*fd, &word, 1) == 0 && word == 'A';

    fd_close(fd);
    return yes;
}

void control_serve(struct guest *g, int listen_fd)
{
    int parent = GUEST_ADOPT_FD;

    if (fd_write_all(parent, "R", 1) < 0)
        return;
    while (atomic_load(&g->ended) == GUEST_END_NONE) {
        struct pollfd p[] = { { .fd = g->end_fd, .events = POLLIN }, { .fd = listen_fd, .events = POLLIN }, { .fd = parent, .events = POLLIN } };
        if (poll(p, ARRAY_LEN(p), -1) < 0 && errno != EINTR)
            return;
        if (p[0].revents != 0)
            continue;
        if (p[2].revents != 0 && parent >= 0 && !adopted(&parent))
            return;
        if (p[1].revents != 0)
            serve_one(g, listen_fd);
    }
}
