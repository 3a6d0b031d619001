/* tapd's NBD client over TLS: STARTTLS, the certificate it expects, and servers that want it or have none. */
#include "tests/unit/tapd/nbd_load.h"

/* A certificate and its key for nbdkit; its fingerprint. NULL: there is no openssl. */
static const char *certificate(struct world *w)
{
    const char *dir = w->dir.path;
    const char *script = arena_printf(w->arena,
        "cd %s && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=localhost -keyout server-key.pem "
        "-out server-cert.pem 2>/dev/null && cp server-cert.pem ca-cert.pem && openssl x509 -in server-cert.pem -noout -fingerprint -sha256", dir);
    const char *const argv[] = { "sh", "-c", script, NULL };
    struct child_spec spec = CHILD_SPEC_INIT;
    char *said;
    int status = -1;

    spec.argv = argv;
    if (child_run(w->arena, &spec, 30000, 1000, &status, &said) != 0 || status != 0 || strchr(said, '=') == NULL)
        return NULL;
    said[strcspn(said, "\n")] = '\0';
    return strchr(said, '=') + 1;
}

static struct error *open_tls(struct world *w, const char *fingerprint)
{
    static const struct nbd_options options = { .connections = 2 };
    struct block_open o = { .loop = w->loop, .format = "nbd" };
    o.path = arena_printf(w->arena, "nbds+unix:///?socket=%s&fingerprint=%s", w->socket, fingerprint);
    return nbd_open_with(w->arena, &o, &options, &w->block);
}

static void test_starttls(void **state)
{
    struct world w;
    const char *fingerprint;

    world_make(&w);
    fingerprint = certificate(&w);
    if (fingerprint == NULL) {
        print_message("skipped: openssl cannot make a certificate here\n");
        world_end(&w);
        return;
    }
    SERVER(&w, "--tls=require", arena_printf(w.arena, "--tls-certificates=%s", w.dir.path), "memory", "8M");
    assert_true(error_is(open_tls(&w, "AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99"), "SR_BACKEND_FAILURE"));
    assert_null(open_tls(&w, fingerprint));
    check_operations(&w);
    storm(&w, 2, NULL);
    world_end(&w);
}

/* A server that wants TLS, and one that has none. */
static void test_tls_or_not(void **state)
{
    struct world w;
    struct nbd_options options = { 0 };

    world_make(&w);
    SERVER(&w, "memory", "8M");
    assert_true(error_is(open_tls(&w, ""), "SR_BACKEND_FAILURE"));
    server_end(&w, SIGKILL);
    if (certificate(&w) != NULL) {
        SERVER(&w, "--tls=require", arena_printf(w.arena, "--tls-certificates=%s", w.dir.path), "memory", "8M");
        assert_true(error_is(world_try(&w, &options, false), "SR_BACKEND_FAILURE"));
    }
    w.block = NULL;
    world_end(&w);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_starttls),
        cmocka_unit_test(test_tls_or_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
