/* Filling an empty guest from an image. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "rpc/base/fault.h"
#include "rpc/base/log.h"
#include "xenops/sim/host.h"
#include "xenops/state_text.h"
#include "xenops/stream/input.h"

LOG_MODULE(sim);

/* Does this image fit the domain that was made for it? */
static struct error *accept_state(void *ctx, struct call *c, const char *state, size_t len)
{
    const struct sim_domain *d = ctx;
    struct value v;
    const char *why;

    if (!state_text_read(c->arena, state, len, &v, &why))
        return err_internal(c->arena, "image: its VM state is unreadable: %s", why);
    if (strcmp(value_get_string(&v, "format", ""), "xapi-sim-1") != 0)
        return err_internal(c->arena, "image: not of a simulated guest");
    int64_t pages = value_get_int(&v, "pages", 0);
    if (pages != (int64_t)d->n_pages)
        return err_internal(c->arena, "image: of a guest of %lld pages, the domain has %llu", (long long)pages, (unsigned long long)d->n_pages);
    return NULL;
}

/* Fault: one wrong bit in a page that holds data. */
static void flip_page(const struct sim_domain *d, uint8_t *memory)
{
    off_t data = lseek(d->ram_fd, 0, SEEK_DATA);

    if (data < 0)
        return;
    memory[data + GUEST_PAGE / 2] ^= 0x10;
    log_warn("fault: flipped a bit of page %lld of guest %d", (long long)data / GUEST_PAGE, d->domid);
}

static struct error *fill_memory(struct call *c, struct sim_domain *d, struct byte_stream *stream, struct input_result *r)
{
    size_t size = d->n_pages * GUEST_PAGE;
    const char *fault = fault_word("demo");
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, d->ram_fd, 0);

    if (memory == MAP_FAILED)
        return err_internal(c->arena, "guest %d: its memory cannot be mapped: %s", d->domid, strerror(errno));
    const struct input_target target = { .memory = memory, .n_pages = d->n_pages, .memory_fd = d->ram_fd, .accept = accept_state, .ctx = d };
    struct error *e = input_read(c, stream, &target, r);
    if (e == NULL && fault != NULL && strcmp(fault, "flip-page") == 0)
        flip_page(d, memory);
    atomic_store(&d->memory, memory); /* taking it down takes its time, too: not while the guest stands */
    return e;
}

static const char *name_of(struct call *c, const struct sim_domain *d)
{
    struct value spec;
    const char *why;

    return state_text_read(c->arena, d->spec, strlen(d->spec), &spec, &why) ? value_get_string(&spec, "uuid", "") : "";
}

struct error *sim_verify(struct call *c, struct sim_host *h, struct sim_domain *d, enum guest_verb verb)
{
    int64_t began = clock_ms(c->clock);

    if (!h->options.verify)
        return verb == GUEST_VERB_VERIFY ? NULL : sim_guest_call(c, d, verb, 0, NULL, 0, "paused");
    struct error *e = sim_guest_call(c, d, verb, 1, NULL, 0, "paused");
    if (e != NULL && e->cause != NULL) { /* the guest's own words: the page or block that is not as it was */
        log_err("VERIFY FAIL %s %s", name_of(c, d), e->cause);
        return err_internal(c->arena, "VERIFY FAIL %s %s", name_of(c, d), e->cause);
    }
    if (e == NULL)
        log_debug("guest %d verified %llu pages and %llu blocks in %lld ms", d->domid,
                  (unsigned long long)atomic_load(&d->control->pages_verified),
                  (unsigned long long)atomic_load(&d->control->blocks_verified), (long long)(clock_ms(c->clock) - began));
    return e;
}

struct error *sim_restore(struct call *c, void *host, const char *uuid, const struct vm_spec *s, struct byte_stream *stream)
{
    struct sim_host *h = host;
    struct input_result r;
    AUTO_DOMAIN *d = NULL;

    TRY(sim_domain_find_alive(c, h, uuid, &d));
    if ((enum guest_state)atomic_load(&d->control->state) != GUEST_EMPTY)
        return sim_bad_state(c, "halted", "running");
    TRY(fill_memory(c, d, stream, &r));
    log_debug("guest %d: %llu pages read, %llu empty, %llu bytes", d->domid, (unsigned long long)r.pages_read,
              (unsigned long long)r.pages_allocated, (unsigned long long)r.bytes);
    bool whole = r.outstanding == NULL;
    if (!whole)
        sim_postcopy_prepare(d, r.outstanding, r.n_outstanding);
    TRY(sim_guest_call(c, d, GUEST_VERB_LOAD, whole ? 0 : 1, r.context, r.context_len, "halted"));
    sim_reserve_actual(c, h, d);
    return whole ? sim_verify(c, h, d, GUEST_VERB_VERIFY) : sim_postcopy_attach(c, d);
}
