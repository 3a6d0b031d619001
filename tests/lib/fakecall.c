#include "tests/lib/fakecall.h"

static void progress(struct call *c, double fraction)
{
    struct fakecall *f = c->progress_ctx;

    f->progress = fraction;
    f->n_progress++;
}

void fakecall_init(struct fakecall *f)
{
    *f = (struct fakecall){ .n_progress = 0 };
    f->call = (struct call){
        .arena = arena_new(),
        .clock = &f->clock.clock,
        .cancel = cancel_new(),
        .id = "R:test",
        .progress = progress,
        .progress_ctx = f,
    };
    clock_fake_init(&f->clock, FAKECALL_WALL_AT);
    call_enter(&f->call);
}

void fakecall_release(struct fakecall *f)
{
    if (call_current() == &f->call)
        call_enter(NULL);
    cancel_unref(f->call.cancel);
    arena_free(f->call.arena);
}
