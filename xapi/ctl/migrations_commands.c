#include "xapi/ctl/migrations_commands.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/datetime.h"
#include "rpc/base/text.h"
#include "rpc/wire/json.h"
#include "xapi/ctl/daemon.h"

enum form { FORM_TABLE, FORM_CSV, FORM_JSON };
struct asked { const char *vm, *outcome, *since, *limit; bool history, certain; enum form form; const char *operands[3]; int n_operands; };

static int usage(void)
{
    fputs("usage: xapi-ctl migrations [--json]\n"
          "       xapi-ctl migrations --history [--vm UUID] [--outcome success|failed|cancelled] [--since DATE] [--limit N] [--csv|--json]\n"
          "       xapi-ctl migrations show ID\n"
          "       xapi-ctl migrations decide ID commit|abort [--i-know-it-does-not-run-there]\n",
          stderr);
    return 2;
}

/* --- cells -------------------------------------------------------------------------------------------------------------- */
static const char *when(struct arena *a, const struct value *row, const char *key)
{
    int64_t ms = value_get_int(row, key, 0);
    char text[DATETIME_LEN + 1];

    if (ms <= 0)
        return "";
    datetime_format(ms / 1000, text);
    return arena_strdup(a, text);
}

static const char *cell(struct arena *a, const struct value *row, const char *key)
{
    const struct value *v;

    if (strcmp(key, "began") == 0)
        return when(a, row, "began_ms");
    if (strcmp(key, "ended") == 0)
        return when(a, row, "ended_ms");
    v = value_get(row, key);
    if (v == NULL)
        v = value_get(value_get(row, "facts"), key);
    if (v == NULL)
        return "";
    return v->kind == VALUE_STRING ? v->s : v->kind == VALUE_INT ? arena_printf(a, "%lld", (long long)v->i) : "";
}

/* RFC 4180. What a spreadsheet would take for a formula is text. */
static void csv_cell(const char *s, bool last)
{
    bool formula = *s != '\0' && strchr("=+-@", *s) != NULL;

    if (formula || strpbrk(s, ",\"\r\n") != NULL) {
        fputs(formula ? "\"'" : "\"", stdout);
        for (; *s != '\0'; s++)
            printf(*s == '"' ? "\"\"" : "%c", *s);
        fputc('"', stdout);
    } else {
        fputs(s, stdout);
    }
    fputs(last ? "\r\n" : ",", stdout);
}

static void csv_print(struct arena *a, const struct value *rows)
{
    static const char *const columns[] = { "id", "direction", "kind", "vm_uuid", "vm_name", "user", "from_host", "from_name", "to_host", "to_name", "began",
                                           "ended", "stage", "outcome", "cause", "recovery", "bytes", "rounds", "duration_us", "predicted_total_us",
                                           "blackout_us", "predicted_blackout_us" };

    for (unsigned i = 0; i < ARRAY_LEN(columns); i++)
        csv_cell(columns[i], i + 1 == ARRAY_LEN(columns));
    for (uint32_t r = 0; r < rows->len; r++)
        for (unsigned i = 0; i < ARRAY_LEN(columns); i++)
            csv_cell(cell(a, &rows->items[r], columns[i]), i + 1 == ARRAY_LEN(columns));
}

/* A terminal must not obey what a VM is called. */
static const char *plain(struct arena *a, const char *s)
{
    char *copy = arena_strdup(a, s);

    for (char *c = copy; *c != '\0'; c++)
        if ((unsigned char)*c < ' ' || *c == 127)
            *c = ' ';
    return copy;
}

static void rows_print(struct arena *a, const struct value *rows)
{
    printf("%-36s %-16s %-9s %-18s %-20s %-14s %-14s %s\n", "ID", "KIND", "STATE", "BEGAN", "VM", "FROM", "TO", "CAUSE, RECOVERY");
    for (uint32_t i = 0; i < rows->len; i++) {
        const struct value *r = &rows->items[i];
        const char *outcome = cell(a, r, "outcome"), *phase = cell(a, r, "stage"), *cause = cell(a, r, "cause"), *did = cell(a, r, "recovery");
        printf("%-36s %-16s %-9s %-18s %-20.20s %-14.14s %-14.14s %s%s%s\n", cell(a, r, "id"), cell(a, r, "kind"), *outcome != '\0' ? outcome : phase,
               when(a, r, "began_ms"), plain(a, cell(a, r, "vm_name")), plain(a, cell(a, r, "from_name")), plain(a, cell(a, r, "to_name")),
               plain(a, cause), *cause != '\0' && *did != '\0' ? "; " : "", plain(a, did));
    }
}

static void journal_print(const struct value *entries)
{
    printf("%-36s %-12s %-10s %s\n", "ID", "SIDE", "STATE", "VM");
    for (uint32_t i = 0; entries != NULL && i < entries->len; i++)
        printf("%-36s %-12s %-10s %s\n", value_get_string(&entries->items[i], "migration_id", ""), value_get_string(&entries->items[i], "side", ""),
               value_get_string(&entries->items[i], "state", ""), value_get_string(value_get(&entries->items[i], "facts"), "vm", ""));
}

/* --- commands -------------------------------------------------------------------------------------------------------------- */
static bool ask(struct arena *a, const struct options *o, const char *const *words, int n, const char **text_r, struct value *value_r)
{
    const char *reason;

    *value_r = value_void();
    if (!ctl_ask(a, o, words, n, text_r))
        return false;
    if (json_parse(a, *text_r, strlen(*text_r), value_r, &reason))
        return true;
    fprintf(stderr, "xapi-ctl: the daemon's answer cannot be read: %s\n", reason);
    return false;
}

static int list(struct arena *a, const struct options *o, const struct asked *q)
{
    bool table = q->form == FORM_TABLE && isatty(STDOUT_FILENO);
    const char *words[] = { "migrations", "active" }, *text;
    struct value answer;

    if (!ask(a, o, words, table ? 2 : 1, &text, &answer))
        return 1;
    if (!table) {
        fputs(text, stdout);
        return 0;
    }
    const struct value *rows = value_get(&answer, "ledger");
    puts("Under way in this pool (as its coordinator has it):");
    if (rows != NULL)
        rows_print(a, rows);
    puts("\nIn this host's journal:");
    journal_print(value_get(&answer, "journal"));
    return 0;
}

static bool read_date(struct arena *a, const char *text, const char **seconds_r)
{
    uint64_t seconds;
    int64_t epoch;

    *seconds_r = text;
    if (text_to_uint(text, &seconds))
        return true;
    const char *full = strchr(text, 'T') != NULL ? text : arena_printf(a, "%sT00:00:00Z", text);
    if (!datetime_parse(full, strlen(full), &epoch) || epoch < 0)
        return false;
    *seconds_r = arena_printf(a, "%lld", (long long)epoch);
    return true;
}

static bool is_word(const char *s)
{
    return *s != '\0' && strpbrk(s, " \t\r\n") == NULL;
}

static int history(struct arena *a, const struct options *o, const struct asked *q)
{
    const char *words[] = { "migrations", "history", q->vm, q->outcome, q->since, q->limit }, *text;
    struct value rows;

    if (strcmp(q->since, "-") != 0 && !read_date(a, q->since, &words[4])) {
        fprintf(stderr, "xapi-ctl: %s is no date\n", q->since);
        return 2;
    }
    for (unsigned i = 2; i < ARRAY_LEN(words); i++)
        if (!is_word(words[i]))
            return usage();
    if (!ask(a, o, words, ARRAY_LEN(words), &text, &rows))
        return 1;
    if (q->form == FORM_CSV)
        csv_print(a, &rows);
    else if (q->form == FORM_JSON)
        fputs(text, stdout);
    else
        rows_print(a, &rows);
    return 0;
}

static void members_print(struct arena *a, const struct value *map, const char *indent)
{
    for (uint32_t i = 0; map != NULL && i < map->len; i++) {
        const char *name = map->members[i].name;
        if (map->members[i].value.kind == VALUE_MAP)
            members_print(a, &map->members[i].value, "  ");
        else if (strcmp(name, "began_ms") == 0 || strcmp(name, "ended_ms") == 0)
            printf("%s%-28s %s\n", indent, strcmp(name, "began_ms") == 0 ? "began" : "ended", when(a, map, name));
        else
            printf("%s%-28s %s\n", indent, name, plain(a, cell(a, map, name)));
    }
}

static int show(struct arena *a, const struct options *o, const struct asked *q)
{
    const char *words[] = { "migrations", "show", q->operands[1] }, *text;
    struct value answer;

    if (!is_word(words[2]) || !ask(a, o, words, ARRAY_LEN(words), &text, &answer))
        return 1;
    if (q->form == FORM_JSON) {
        fputs(text, stdout);
        return 0;
    }
    const struct value *rows = value_get(&answer, "rows"), *entries = value_get(&answer, "journal");
    for (uint32_t i = 0; rows != NULL && i < rows->len; i++)
        members_print(a, &rows->items[i], "");
    if (entries != NULL && entries->len > 0)
        journal_print(entries);
    return 0;
}

static int decide(struct arena *a, const struct options *o, const struct asked *q)
{
    const char *words[] = { "migrations", "decide", q->operands[1], q->operands[2] }, *text;
    bool abort = strcmp(q->operands[2], "abort") == 0;

    if (abort && !q->certain) {
        fputs("xapi-ctl: if the guest runs at its destination, it will run twice and its disks will be ruined. Make sure that it does not (switch that\n"
              "host off, say), then add --i-know-it-does-not-run-there\n",
              stderr);
        return 2;
    }
    if (!is_word(words[2]) || !is_word(words[3]))
        return usage();
    if (!ctl_ask(a, o, words, ARRAY_LEN(words), &text))
        return 1;
    puts(abort ? "decided: the guest goes on here" : "decided: the copy here is given up");
    return 0;
}

/* --- words ------------------------------------------------------------------------------------------------------------------ */
static bool read_words(const struct options *o, struct asked *q)
{
    const struct { const char *flag, **to; } values[] = { { "--vm", &q->vm }, { "--outcome", &q->outcome }, { "--since", &q->since }, { "--limit", &q->limit } };

    for (int i = 1; i < o->n_rest; i++) {
        const char *w = o->rest[i];
        bool taken = false;
        for (unsigned k = 0; k < ARRAY_LEN(values) && !taken; k++)
            if (strcmp(w, values[k].flag) == 0 && i + 1 < o->n_rest) {
                *values[k].to = o->rest[++i];
                taken = true;
            }
        if (taken)
            continue;
        if (strcmp(w, "--history") == 0)
            q->history = true;
        else if (strcmp(w, "--csv") == 0)
            q->form = FORM_CSV;
        else if (strcmp(w, "--json") == 0)
            q->form = FORM_JSON;
        else if (strcmp(w, "--i-know-it-does-not-run-there") == 0)
            q->certain = true;
        else if (w[0] != '-' && q->n_operands < 3)
            q->operands[q->n_operands++] = w;
        else
            return false;
    }
    return true;
}

int ctl_migrations(struct arena *a, const struct options *o)
{
    struct asked q = { .vm = "-", .outcome = "-", .since = "-", .limit = "-" };

    if (!read_words(o, &q))
        return usage();
    if (q.n_operands == 0)
        return q.history ? history(a, o, &q) : list(a, o, &q);
    if (q.n_operands == 2 && strcmp(q.operands[0], "show") == 0)
        return show(a, o, &q);
    if (q.n_operands == 3 && strcmp(q.operands[0], "decide") == 0)
        return decide(a, o, &q);
    return usage();
}
