/* The NBD server's negotiation, and TLS under it. */
#include "tests/unit/tapd/nbd_peer.h"

#include "tests/lib/certificate.h"
#include "tests/lib/tempdir.h"

#define SIZE (8 * (int64_t)MIB)

/* --- options by hand --------------------------------------------------------------------------------------- */

static void begin(struct peer *p, uint32_t flags)
{
    unsigned char hello[18], word[4];

    peer_connect(p, false, NULL);
    assert_int_equal(peer_hear(p, hello, sizeof hello), 0);
    assert_int_equal(nbd_get64(hello), NBD_MAGIC_INIT);
    assert_int_equal(nbd_get64(hello + 8), NBD_MAGIC_OPTION);
    assert_int_equal(nbd_get16(hello + 16), NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    nbd_put32(word, flags);
    assert_int_equal(peer_say(p, word, 4), 0);
}

static int option(struct peer *p, uint32_t number, const void *payload, uint32_t length)
{
    unsigned char head[16];
    int rc;

    nbd_put32(nbd_put32(nbd_put64(head, NBD_MAGIC_OPTION), number), length);
    rc = peer_say(p, head, sizeof head);
    return rc == 0 && length > 0 ? peer_say(p, payload, length) : rc;
}

struct reply { uint32_t option, type, length; unsigned char payload[5000]; };

static void hear(struct peer *p, struct reply *r)
{
    unsigned char head[20];

    assert_int_equal(peer_hear(p, head, sizeof head), 0);
    assert_int_equal(nbd_get64(head), NBD_MAGIC_OPTION_REPLY);
    r->option = nbd_get32(head + 8);
    r->type = nbd_get32(head + 12);
    r->length = nbd_get32(head + 16);
    assert_true(r->length <= sizeof r->payload);
    assert_int_equal(peer_hear(p, r->payload, r->length), 0);
}

static void expect(struct peer *p, uint32_t number, uint32_t type)
{
    struct reply r;

    hear(p, &r);
    assert_int_equal(r.option, number);
    assert_int_equal(r.type, type);
}

static void test_export_name(void **state)
{
    for (unsigned zeroes = 0; zeroes < 2; zeroes++) {
        struct peer p;
        unsigned char export[10 + 124];

        peer_start(&p, SIZE);
        begin(&p, NBD_FLAG_FIXED_NEWSTYLE | (zeroes ? 0u : NBD_FLAG_NO_ZEROES));
        assert_int_equal(option(&p, NBD_OPT_EXPORT_NAME, "any name", 8), 0);
        assert_int_equal(peer_hear(&p, export, zeroes ? 134 : 10), 0);
        assert_int_equal(nbd_get64(export), SIZE);
        assert_int_equal(nbd_get16(export + 8) & (NBD_TFLAG_HAS_FLAGS | NBD_TFLAG_READ_ONLY | NBD_TFLAG_SEND_DF), NBD_TFLAG_HAS_FLAGS);
        assert_int_equal(peer_request(&p, NBD_CMD_FLUSH, 0, 5, 0, 0), 0);
        assert_int_equal(peer_simple(&p, 5), 0);
        peer_stop(&p);
    }
}

static void test_info_and_go(void **state)
{
    static const unsigned char ask[] = { 0, 0, 0, 1, 'x', 0, 2, 0, 1, 0, 3 };
    struct peer p;
    struct reply r;

    peer_start(&p, SIZE);
    begin(&p, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    for (unsigned go = 0; go < 2; go++) {
        uint32_t number = go ? NBD_OPT_GO : NBD_OPT_INFO;
        assert_int_equal(option(&p, number, ask, sizeof ask), 0);
        hear(&p, &r);
        assert_int_equal(r.type, NBD_REP_INFO);
        assert_int_equal(nbd_get16(r.payload), NBD_INFO_EXPORT);
        assert_int_equal(nbd_get64(r.payload + 2), SIZE);
        hear(&p, &r);
        assert_int_equal(nbd_get16(r.payload), NBD_INFO_BLOCK_SIZE);
        assert_int_equal(nbd_get32(r.payload + 2), 512);
        assert_int_equal(nbd_get32(r.payload + 6), NBD_PREFERRED);
        assert_int_equal(nbd_get32(r.payload + 10), NBD_REQUEST_MAX);
        hear(&p, &r);
        assert_int_equal(nbd_get16(r.payload), NBD_INFO_NAME);
        assert_int_equal(r.length, 3);
        assert_int_equal(r.payload[2], 'x');
        expect(&p, number, NBD_REP_ACK);
    }
    assert_int_equal(peer_request(&p, NBD_CMD_FLUSH, 0, 5, 0, 0), 0);
    assert_int_equal(peer_simple(&p, 5), 0);
    peer_stop(&p);
}

/* What makes no sense is refused and the negotiation goes on. */
static void test_refused_options(void **state)
{
    static const struct { uint32_t number; const char *payload; uint32_t length, answer; } wrong[] = {
        { 77, "what", 4, NBD_REP_ERR_UNSUP },
        { NBD_OPT_LIST, "x", 1, NBD_REP_ERR_INVALID },
        { NBD_OPT_STRUCTURED_REPLY, "x", 1, NBD_REP_ERR_INVALID },
        { NBD_OPT_STARTTLS, "", 0, NBD_REP_ERR_POLICY },
        { NBD_OPT_STARTTLS, "x", 1, NBD_REP_ERR_INVALID },
        { NBD_OPT_GO, "", 0, NBD_REP_ERR_INVALID },
        { NBD_OPT_GO, "\0\0\0\1", 4, NBD_REP_ERR_INVALID },
        { NBD_OPT_GO, "\377\377\377\377\0\0", 6, NBD_REP_ERR_INVALID },
        { NBD_OPT_INFO, "\0\0\0\1x\0\2\0\1", 9, NBD_REP_ERR_INVALID },
        { NBD_OPT_INFO, "\0\0\0\1x\0\0\0", 8, NBD_REP_ERR_INVALID },
        { NBD_OPT_SET_META_CONTEXT, "\0\0\0\0\0\0\0\0", 8, NBD_REP_ERR_INVALID }, /* no structured replies */
    };
    struct peer p;

    peer_start(&p, SIZE);
    begin(&p, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    for (unsigned i = 0; i < ARRAY_LEN(wrong); i++) {
        assert_int_equal(option(&p, wrong[i].number, wrong[i].payload, wrong[i].length), 0);
        expect(&p, wrong[i].number, wrong[i].answer);
    }
    assert_int_equal(option(&p, NBD_OPT_STRUCTURED_REPLY, NULL, 0), 0);
    expect(&p, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK);
    assert_int_equal(option(&p, NBD_OPT_LIST_META_CONTEXT, "\0\0\0\0\0\0\0\2\0\0\0\1x", 13), 0);
    expect(&p, NBD_OPT_LIST_META_CONTEXT, NBD_REP_ERR_INVALID);
    assert_int_equal(option(&p, NBD_OPT_LIST_META_CONTEXT, "\0\0\0\0\177\0\0\2", 8), 0);
    expect(&p, NBD_OPT_LIST_META_CONTEXT, NBD_REP_ERR_TOO_BIG);
    assert_int_equal(option(&p, NBD_OPT_ABORT, NULL, 0), 0);
    expect(&p, NBD_OPT_ABORT, NBD_REP_ACK);
    assert_true(peer_is_gone(&p));
    peer_stop(&p);
}

static int nothing(struct nbd_dirty_source *s, int64_t offset, int64_t length, block_extent_fn *fn, void *ctx) { return -EIO; }

static void test_lists(void **state)
{
    struct nbd_dirty_source source = { .extents = nothing };
    struct peer p;
    struct reply r;

    peer_start(&p, SIZE);
    begin(&p, NBD_FLAG_FIXED_NEWSTYLE);
    assert_int_equal(option(&p, NBD_OPT_LIST, NULL, 0), 0);
    hear(&p, &r);
    assert_int_equal(r.type, NBD_REP_SERVER);
    assert_int_equal(r.length, 4);
    expect(&p, NBD_OPT_LIST, NBD_REP_ACK);
    assert_int_equal(option(&p, NBD_OPT_STRUCTURED_REPLY, NULL, 0), 0);
    expect(&p, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK);
    for (unsigned dirty = 0; dirty < 2; dirty++) {
        nbd_server_dirty(p.server, dirty ? &source : NULL);
        assert_int_equal(option(&p, NBD_OPT_LIST_META_CONTEXT, "\0\0\0\0\0\0\0\0", 8), 0); /* all */
        for (unsigned i = 0; i < 2 + dirty; i++)
            expect(&p, NBD_OPT_LIST_META_CONTEXT, NBD_REP_META_CONTEXT);
        expect(&p, NBD_OPT_LIST_META_CONTEXT, NBD_REP_ACK);
        assert_int_equal(option(&p, NBD_OPT_LIST_META_CONTEXT, "\0\0\0\0\0\0\0\2\0\0\0\5qemu:\0\0\0\5base:", 26), 0);
        hear(&p, &r);
        assert_int_equal(r.length, 4 + strlen(NBD_CONTEXT_ALLOCATION));
        assert_memory_equal(r.payload + 4, NBD_CONTEXT_ALLOCATION, r.length - 4);
        if (dirty)
            expect(&p, NBD_OPT_LIST_META_CONTEXT, NBD_REP_META_CONTEXT);
        expect(&p, NBD_OPT_LIST_META_CONTEXT, NBD_REP_ACK);
        assert_int_equal(option(&p, NBD_OPT_SET_META_CONTEXT, "\0\0\0\0\0\0\0\1\0\0\0\5base:", 17), 0); /* a list only */
        expect(&p, NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK);
    }
    peer_stop(&p);
}

/* Contexts are of one name; those chosen for another mean nothing. */
static void test_contexts_of_another_name(void **state)
{
    struct peer p;
    unsigned char chunk[26];

    peer_start(&p, SIZE);
    begin(&p, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    assert_int_equal(option(&p, NBD_OPT_STRUCTURED_REPLY, NULL, 0), 0);
    expect(&p, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK);
    assert_int_equal(option(&p, NBD_OPT_SET_META_CONTEXT, "\0\0\0\1a\0\0\0\1\0\0\0\17base:allocation", 28), 0);
    expect(&p, NBD_OPT_SET_META_CONTEXT, NBD_REP_META_CONTEXT);
    expect(&p, NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK);
    assert_int_equal(option(&p, NBD_OPT_GO, "\0\0\0\1b\0\0", 7), 0);
    expect(&p, NBD_OPT_GO, NBD_REP_INFO);
    expect(&p, NBD_OPT_GO, NBD_REP_INFO);
    expect(&p, NBD_OPT_GO, NBD_REP_ACK);
    assert_int_equal(peer_request(&p, NBD_CMD_BLOCK_STATUS, 0, 5, 0, 4096), 0);
    assert_int_equal(peer_hear(&p, chunk, sizeof chunk), 0);
    assert_int_equal(nbd_get32(chunk + 20), NBD_EINVAL);
    peer_stop(&p);
}

/* --- hostile ------------------------------------------------------------------------------------------------ */

static void test_hostile(void **state)
{
    unsigned char bad[64] = { 0 };
    struct peer p;

    peer_start(&p, SIZE);
    begin(&p, 0xff); /* flags nobody knows */
    assert_true(peer_is_gone(&p));
    begin(&p, NBD_FLAG_FIXED_NEWSTYLE);
    assert_int_equal(peer_say(&p, bad, 16), 0); /* no magic */
    assert_true(peer_is_gone(&p));
    begin(&p, NBD_FLAG_FIXED_NEWSTYLE);
    nbd_put32(nbd_put32(nbd_put64(bad, NBD_MAGIC_OPTION), NBD_OPT_LIST), NBD_OPTION_MAX + 1);
    assert_int_equal(peer_say(&p, bad, 16), 0); /* too long */
    assert_true(peer_is_gone(&p));
    begin(&p, NBD_FLAG_FIXED_NEWSTYLE);
    unsigned options = 0;
    while (options < 1000 && option(&p, 99, NULL, 0) == 0)
        options++;
    assert_true(options >= NBD_SERVER_OPTIONS_MAX && options < 200); /* a flood, with nobody reading the replies */
    peer_open(&p, false);
    assert_int_equal(peer_say(&p, bad, 28), 0); /* no magic in transmission */
    assert_true(peer_is_gone(&p));
    assert_int_equal(nbd_server_clients(p.server), 0);
    peer_stop(&p);
}

/* Half-open negotiation ends by itself; transmission does not. */
static void test_timeout(void **state)
{
    struct peer p;

    peer_start(&p, SIZE);
    begin(&p, NBD_FLAG_FIXED_NEWSTYLE);
    clock_fake_advance_ms(&p.clock, NBD_SERVER_HELLO_US / 1000 - 1);
    peer_turn(&p);
    assert_int_equal(nbd_server_clients(p.server), 1);
    clock_fake_advance_ms(&p.clock, 2);
    assert_true(peer_is_gone(&p));
    peer_open(&p, true);
    clock_fake_advance_ms(&p.clock, 100 * NBD_SERVER_HELLO_US / 1000);
    peer_turn(&p);
    assert_int_equal(nbd_server_clients(p.server), 1);
    peer_stop(&p);
}

/* --- TLS ------------------------------------------------------------------------------------------------------ */

static void transfer(struct peer *p)
{
    static char out[3 * MIB], in[3 * MIB];
    uint32_t holes;

    peer_fill(out, sizeof out, 5);
    assert_int_equal(peer_request(p, NBD_CMD_WRITE, 0, 1, 4096, sizeof out), 0);
    assert_int_equal(peer_say(p, out, sizeof out), 0);
    assert_int_equal(peer_simple(p, 1), 0);
    assert_int_equal(peer_request(p, NBD_CMD_READ, 0, 2, 4096, sizeof in), 0);
    assert_int_equal(peer_read_chunks(p, 2, 4096, in, sizeof in, &holes), 0);
    assert_memory_equal(in, out, sizeof in);
    for (unsigned i = 0; i < 50; i++)
        assert_int_equal(peer_request(p, NBD_CMD_READ, 0, 3, 4096 * i, 4096), 0);
    for (unsigned i = 0; i < 50; i++)
        assert_int_equal(peer_read_chunks(p, 3, 4096 * i, in, 4096, &holes), 0);
}

static void test_tls_first(void **state)
{
    struct tempdir dir;
    char fingerprint[96], wrong[96];
    struct disk_tls_context *tls;
    const struct nbd_wish wish = { .name = "", .structured = true, .contexts = { NBD_CONTEXT_ALLOCATION } };
    struct peer p;

    tempdir_make(&dir);
    const char *pem = tempdir_file(&dir, "pem");
    certificate_make(pem, fingerprint);
    memcpy(wrong, fingerprint, sizeof wrong);
    wrong[0] = wrong[0] == '0' ? '1' : '0';
    assert_int_equal(disk_tls_client(&tls), 0);
    for (unsigned later = 0; later < 2; later++) {
        peer_start(&p, SIZE);
        p.disk->later = later;
        peer_connect(&p, false, pem);
        assert_int_equal(nbd_wire_tls(&p.wire, tls, "localhost", fingerprint), 0);
        assert_int_equal(peer_tls(&p), 0);
        assert_int_equal(peer_shake(&p, &wish, NULL), 0);
        transfer(&p);
        peer_connect(&p, false, pem);
        assert_int_equal(nbd_wire_tls(&p.wire, tls, NULL, wrong), 0);
        assert_int_equal(peer_tls(&p), -EKEYREJECTED);
        peer_connect(&p, false, pem); /* no TLS at all */
        assert_int_equal(peer_say(&p, "GET / HTTP/1.1\r\n\r\n", 18), 0);
        assert_true(peer_is_gone(&p));
        peer_stop(&p);
    }
    disk_tls_unref(tls);
    tempdir_remove(&dir);
}

static struct nbd_server *listening(struct peer *p, const char *pem, unsigned *port_r)
{
    peer_start(p, SIZE);
    assert_int_equal(nbd_server_listen_tcp(p->server, "127.0.0.1", 0, pem, false, port_r), 0);
    return p->server;
}

static void dial(struct peer *p, unsigned port)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (p->wire.fd >= 0)
        nbd_wire_close(&p->wire);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    nbd_wire_init(&p->wire, fd);
}

static void test_starttls(void **state)
{
    struct tempdir dir;
    struct disk_tls_context *tls;
    struct nbd_wish wish = { .name = "disk", .structured = true, .contexts = { NBD_CONTEXT_ALLOCATION } };
    struct peer p;
    unsigned port;

    tempdir_make(&dir);
    const char *pem = tempdir_file(&dir, "pem");
    certificate_make(pem, NULL);
    assert_int_equal(disk_tls_client(&tls), 0);
    listening(&p, pem, &port);
    dial(&p, port);
    assert_int_equal(peer_shake(&p, &wish, tls), -EKEYREJECTED); /* it is required */
    wish.starttls = true;
    dial(&p, port);
    assert_int_equal(peer_shake(&p, &wish, tls), 0);
    assert_true(p.shaken.structured && p.shaken.has_context[0]);
    transfer(&p);
    nbd_server_unlisten_tcp(p.server);
    assert_int_equal(peer_request(&p, NBD_CMD_FLUSH, 0, 9, 0, 0), 0); /* clients stay */
    assert_int_equal(peer_simple(&p, 9), 0);
    peer_stop(&p);
    disk_tls_unref(tls);
    tempdir_remove(&dir);
}

/* Bytes sent in clear behind STARTTLS must not be taken for the session's. */
static void test_starttls_injection(void **state)
{
    struct tempdir dir;
    unsigned char bytes[18 + 16 + 16];
    struct peer p;
    unsigned port;

    tempdir_make(&dir);
    const char *pem = tempdir_file(&dir, "pem");
    certificate_make(pem, NULL);
    listening(&p, pem, &port);
    dial(&p, port);
    assert_int_equal(peer_hear(&p, bytes, 18), 0);
    unsigned char *at = nbd_put32(bytes, NBD_FLAG_FIXED_NEWSTYLE);
    at = nbd_put32(nbd_put32(nbd_put64(at, NBD_MAGIC_OPTION), NBD_OPT_STARTTLS), 0);
    at = nbd_put32(nbd_put32(nbd_put64(at, NBD_MAGIC_OPTION), NBD_OPT_LIST), 0);
    assert_int_equal(peer_say(&p, bytes, (size_t)(at - bytes)), 0);
    (void)!peer_hear(&p, bytes, 20);
    assert_true(peer_is_gone(&p));
    dial(&p, port); /* EXPORT_NAME cannot be refused otherwise */
    assert_int_equal(peer_hear(&p, bytes, 18), 0);
    at = nbd_put32(bytes, NBD_FLAG_FIXED_NEWSTYLE);
    at = nbd_put32(nbd_put32(nbd_put64(at, NBD_MAGIC_OPTION), NBD_OPT_EXPORT_NAME), 0);
    assert_int_equal(peer_say(&p, bytes, (size_t)(at - bytes)), 0);
    assert_true(peer_is_gone(&p));
    peer_stop(&p);
    tempdir_remove(&dir);
}

static void test_bad_certificates(void **state)
{
    struct tempdir dir;
    struct peer p;
    unsigned port;
    int pair[2];

    tempdir_make(&dir);
    peer_start(&p, SIZE);
    assert_int_equal(nbd_server_listen_tcp(p.server, "127.0.0.1", 0, tempdir_file(&dir, "none"), false, &port), -ENOENT);
    assert_int_equal(nbd_server_listen_tcp(p.server, "127.0.0.1", 0, tempdir_write(&dir, "bad", "no pem"), false, &port), -EINVAL);
    assert_int_equal(nbd_server_listen_tcp(p.server, "nowhere", 0, NULL, false, &port), -EINVAL);
    assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
    assert_int_equal(nbd_server_adopt(p.server, pair[0], false, NULL), -ENOTSOCK);
    fd_close(&pair[1]);
    peer_stop(&p);
    tempdir_remove(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_export_name),
        cmocka_unit_test(test_info_and_go),
        cmocka_unit_test(test_refused_options),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_contexts_of_another_name),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_timeout),
        cmocka_unit_test(test_tls_first),
        cmocka_unit_test(test_starttls),
        cmocka_unit_test(test_starttls_injection),
        cmocka_unit_test(test_bad_certificates),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
