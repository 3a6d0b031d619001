/* Words are kept for ever once seen, so that fault_word can hand them out. The lock is a plain mutex:
 * a fault point may stand anywhere, also where our locks are held. */
#include "rpc/base/fault.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/memory.h"

#define POINTS_MAX 256u

bool fault_armed_;

struct point {
    char *name;
    const char *word;
    unsigned long nth; /* the only visit that counts; 0: all */
    unsigned long visits;
};

struct word {
    struct word *next;
    char *text;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t disarmed = PTHREAD_COND_INITIALIZER;
static struct point points[POINTS_MAX];
static unsigned n_points;
static struct word *words;

static const char *word_keep(const char *s, size_t len)
{
    for (const struct word *w = words; w != NULL; w = w->next)
        if (strlen(w->text) == len && memcmp(w->text, s, len) == 0)
            return w->text;
    struct word *w = xcalloc(1, sizeof(*w));
    w->next = words;
    w->text = xstrndup(s, len);
    words = w;
    return w->text;
}

static bool still_armed(const char *name)
{
    for (unsigned i = 0; i < n_points; i++)
        if (strcmp(points[i].name, name) == 0 && strcmp(points[i].word, "stop") == 0)
            return true;
    return false;
}

/* The word that is due at this visit of 'name', or NULL. */
static const char *visit(const char *name)
{
    const char *due = NULL;

    for (unsigned i = 0; i < n_points; i++) {
        struct point *p = &points[i];
        if (strcmp(p->name, name) != 0)
            continue;
        p->visits++;
        if (due == NULL && (p->nth == 0 || p->nth == p->visits))
            due = p->word;
    }
    return due;
}

bool fault_hit_(const char *name)
{
    pthread_mutex_lock(&lock);
    const char *word = visit(name);
    bool fails = word != NULL;
    if (fails && strcmp(word, "crash") == 0) {
        kill(getpid(), SIGKILL);
        for (;;)
            pause();
    }
    if (fails && strcmp(word, "stop") == 0) {
        while (still_armed(name))
            pthread_cond_wait(&disarmed, &lock);
        fails = false;
    }
    pthread_mutex_unlock(&lock);
    return fails;
}

const char *fault_word(const char *name)
{
    const char *word = NULL;

    if (!__atomic_load_n(&fault_armed_, __ATOMIC_RELAXED))
        return NULL;
    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < n_points && word == NULL; i++)
        if (strcmp(points[i].name, name) == 0)
            word = points[i].word;
    pthread_mutex_unlock(&lock);
    return word;
}

/* Digits only, at least 1. */
static bool parse_nth(const char *s, const char *end, unsigned long *nth_r)
{
    unsigned long n = 0;

    if (s == end || end - s > 9)
        return false;
    for (; s < end; s++) {
        if (*s < '0' || *s > '9')
            return false;
        n = n * 10 + (unsigned long)(*s - '0');
    }
    *nth_r = n;
    return n > 0;
}

static bool arm_one(const char *s, size_t len)
{
    const char *end = s + len, *equals = memchr(s, '=', len), *word_end = end;
    unsigned long nth = 0;

    if (equals == NULL || equals == s || n_points == POINTS_MAX)
        return false;
    const char *word = equals + 1;
    const char *at = memchr(word, '@', (size_t)(end - word));
    if (at != NULL) {
        word_end = at;
        if (!parse_nth(at + 1, end, &nth))
            return false;
    }
    if (word == word_end)
        return false;
    points[n_points++] = (struct point){
        .name = xstrndup(s, (size_t)(equals - s)),
        .word = word_keep(word, (size_t)(word_end - word)),
        .nth = nth,
    };
    return true;
}

static void points_drop(unsigned from)
{
    while (n_points > from)
        xfree(points[--n_points].name);
}

bool fault_arm(const char *spec)
{
    bool good = true;

    pthread_mutex_lock(&lock);
    unsigned before = n_points;
    for (const char *s = spec; good; s++) {
        size_t len = strcspn(s, ",");
        good = arm_one(s, len);
        s += len;
        if (*s == '\0')
            break;
    }
    if (!good)
        points_drop(before);
    __atomic_store_n(&fault_armed_, n_points > 0, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&lock);
    return good;
}

void fault_disarm(const char *name)
{
    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < n_points;) {
        if (name != NULL && strcmp(points[i].name, name) != 0) {
            i++;
            continue;
        }
        xfree(points[i].name);
        points[i] = points[--n_points];
    }
    __atomic_store_n(&fault_armed_, n_points > 0, __ATOMIC_RELAXED);
    pthread_cond_broadcast(&disarmed);
    pthread_mutex_unlock(&lock);
}

void fault_list(struct text *t)
{
    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < n_points; i++)
        text_printf(t, "%s=%s %lu\n", points[i].name, points[i].word, points[i].visits);
    pthread_mutex_unlock(&lock);
}

void fault_init_from_env(void)
{
    const char *spec = getenv("FAULTS");
    static const char complaint[] = "FAULTS is malformed: name=action[@n][,...]\n";

    if (spec == NULL || spec[0] == '\0' || fault_arm(spec))
        return;
    if (write(STDERR_FILENO, complaint, sizeof(complaint) - 1) < 0)
        return;
}
