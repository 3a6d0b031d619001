#include "rpc/http/route.h"

#include <stdlib.h>
#include <string.h>

#include "rpc/base/memory.h"

static int longer_first(const void *a, const void *b)
{
    const struct route_entry *x = a, *y = b;

    if (x->len != y->len)
        return x->len < y->len ? 1 : -1;
    if (x->exact != y->exact)
        return x->exact ? -1 : 1;
    bool any_x = strcmp(x->route->method, "*") == 0, any_y = strcmp(y->route->method, "*") == 0;

    if (any_x != any_y)
        return any_x ? 1 : -1;
    return x->route < y->route ? -1 : x->route > y->route; /* as written */
}

void route_table_init(struct route_table *t, const struct http_route *routes)
{
    *t = (struct route_table){ 0 };
    while (routes[t->n].method != NULL)
        t->n++;
    t->entries = xcalloc(t->n + 1, sizeof *t->entries);
    for (unsigned i = 0; i < t->n; i++) {
        size_t len = strlen(routes[i].path);
        bool exact = len > 0 && routes[i].path[len - 1] == '$';

        t->entries[i] = (struct route_entry){ .route = &routes[i], .len = len - exact, .exact = exact };
    }
    qsort(t->entries, t->n, sizeof *t->entries, longer_first);
}

void route_table_release(struct route_table *t)
{
    xfree(t->entries);
    *t = (struct route_table){ 0 };
}

static bool entry_matches(const struct route_entry *e, const char *method, const char *path, size_t len)
{
    if (len < e->len || (e->exact && len != e->len) || memcmp(e->route->path, path, e->len) != 0)
        return false;
    return strcmp(e->route->method, method) == 0 || strcmp(e->route->method, "*") == 0;
}

static const struct http_route *find(const struct route_table *t, const char *method, const char *path)
{
    size_t len = strlen(path);

    for (unsigned i = 0; i < t->n; i++)
        if (entry_matches(&t->entries[i], method, path, len))
            return t->entries[i].route;
    return NULL;
}

static bool known_method(const char *method)
{
    static const char *const known[] = { "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH" };

    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (strcmp(method, known[i]) == 0)
            return true;
    return false;
}

const struct http_route *route_find(const struct route_table *t, const char *method, const char *path, int *status_r)
{
    const struct http_route *r = find(t, method, path);

    if (r == NULL && strcmp(method, "HEAD") == 0) {
        r = find(t, "GET", path);
        if (r != NULL && r->body != HTTP_BODY_BUFFER) {
            *status_r = 405;
            return NULL;
        }
    }
    if (r == NULL)
        *status_r = known_method(method) ? 404 : 501;
    return r;
}
