/* What the files of storage/tap*.c share. Private to storage/.
 *
 * A tap is in the table from the moment its first user comes. Whoever works on one has its turn (busy); the fields
 * marked * are changed with the turn and under the lock, and may be read with either; the others need the turn. */
#ifndef STORAGE_TAP_TABLE_H
#define STORAGE_TAP_TABLE_H

#include <sys/types.h>

#include "rpc/base/lock.h"
#include "rpc/base/text.h"
#include "storage/tap.h"

#define TAP_ANSWER_MS 10000
#define TAP_RESTART_MS 100   /* after it died */
#define TAP_AGAIN_MS 1000    /* between two starts */

struct tap {
    struct tap *next;
    unsigned refs;
    bool busy, gone;
    char *dir;                /* never changes */
    char *key;                /* * */
    char **users;             /* *, n_users of them */
    unsigned n_users;         /* * */
    char *lead_to, *lead_path; /* *, NULL: no mirror leads anywhere */
    char *from;               /* *, the key before the last rekey, or NULL */
    bool read_only;
    pid_t pid;                /* *, 0: none */
    unsigned long long start_time;
    int pidfd, control;       /* *, -1: none */
    struct text in;           /* bytes behind the last answer */
    bool down;                /* *, to be started again at due_ms */
    bool mirroring;           /* *, somebody may want to hear of its mirror */
    int64_t started_ms, died_ms, due_ms; /* *, 0: unknown */
    struct arena *said;       /* *, holds 'status' */
    struct value status;      /* *, the last one */
    struct arena *ended;      /* *, holds 'mirror' */
    struct value mirror;      /* *, the last status of a mirror that was done or had switched */
};

struct taps {
    struct lock lock;
    struct cond changed;
    struct tap *list;
    char *dir, *program;
    const struct clock *clock;
    bool allow_faults;
    int64_t answer_ms;
    unsigned next_dir;
    void (*watch)(void *ctx, const char *key);
    void *watch_ctx;
    pthread_t thread;
    int wake_fd;
    bool stopping;
    unsigned reviving; /* threads */
};

/* --- tap.c: turns --------------------------------------------------------------------------------------- */
/* NULL in *tap_r: no such key. make: then a new one is put into the table, with a directory name of its own. */
NODISCARD struct error *tap_turn(struct call *, struct taps *, const char *key, bool make, struct tap **tap_r);
void tap_leave(struct taps *, struct tap *);
void tap_remove(struct taps *, struct tap *); /* from the table; the caller still leaves */
struct tap *tap_find_locked(struct taps *, const char *key);
struct error *tap_failed(struct arena *, const char *fmt, ...) PRINTF(2, 3);
bool tap_is_ghost(const struct tap *); /* only remembers where its key went */
struct tap *tap_entry_new(const char *key, const char *dir);
void tap_entry_free(struct tap *);

/* --- tap_dir.c: the files ------------------------------------------------------------------------------- */
/* "owner": key, users, from, lead; ours, replaced durably. -errno. */
NODISCARD int tap_owner_write(const struct tap *);
struct tap *tap_owner_read(struct arena *, const char *dir); /* NULL: there is none */
NODISCARD int tap_spec_write(struct arena *, const char *dir, const struct tap_spec *);
bool tap_spec_read(struct arena *, const char *dir, struct value *spec_r);
/* Replaces words of the spec of a tapd that does not run. */
NODISCARD int tap_spec_patch(struct arena *, const char *dir, const struct member *words, unsigned n);
void tap_dir_remove(const char *dir);
const char *tap_log_tail(struct arena *, const char *dir);
const char *tap_users_text(struct arena *, const struct tap *); /* "a,b" */
bool tap_user_has(const struct tap *, const char *user);
void tap_user_add(struct taps *, struct tap *, const char *user);    /* takes the lock */
void tap_user_remove(struct taps *, struct tap *, const char *user);

/* --- tap_process.c ---------------------------------------------------------------------------------------- */
/* Starts it and waits until it answers. */
NODISCARD struct error *tap_start(struct call *, struct taps *, struct tap *);
/* When a process that died is to be started again. */
int64_t tap_due(const struct taps *, const struct tap *);
/* There is a connection, or the process is started again (when it is due). */
NODISCARD struct error *tap_revive(struct call *, struct taps *, struct tap *);
/* "quit", or the end by force; waits for it. */
NODISCARD struct error *tap_end(struct call *, struct taps *, struct tap *);
/* Its connection is lost: gives the process a moment to be gone, if that is why. */
void tap_await_end(const struct tap *);
/* Takes hold of one that runs (after a restart of ours); false when none does. */
bool tap_take_hold(struct arena *, struct taps *, struct tap *);

/* --- tap_control.c ----------------------------------------------------------------------------------------- */
/* 0 or -errno; fills control and, from the socket, pid and start_time. */
NODISCARD int tap_connect(struct taps *, struct tap *);
void tap_disconnect(struct taps *, struct tap *);
/* One request and its answer. *lost_r: the connection ended and the tapd may never have seen it. */
NODISCARD struct error *tap_talk(struct call *, struct taps *, struct tap *, const char *verb, const struct value *arguments, int fd,
                                 struct value *result_r, bool *lost_r);

/* --- tap_watch.c -------------------------------------------------------------------------------------------- */
void tap_watch_start(struct taps *);
void tap_watch_stop(struct taps *);
void tap_watch_wake(struct taps *);
void tap_find_all(struct taps *); /* those that run, and those that should */

#endif
