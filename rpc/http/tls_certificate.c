/* Self-signed certificates and their fingerprints. */
#include <arpa/inet.h>
#include <errno.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "rpc/base/memory.h"
#include "rpc/base/text.h"
#include "rpc/http/tls_private.h"

#define DAYS_VALID 3650
#define PEM_MAX (256u * 1024)

/* "DNS:a,IP:1.2.3.4", or NULL where a name could say more than a name. */
static char *alt_names(struct arena *arena, const char *const *names, unsigned n)
{
    AUTO_TEXT list = TEXT_INIT;

    for (unsigned i = 0; i < n; i++) {
        struct in6_addr any;
        bool ip = inet_pton(AF_INET, names[i], &any) == 1 || inet_pton(AF_INET6, names[i], &any) == 1;
        static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_*";

        if (names[i][0] == '\0' || (!ip && strspn(names[i], allowed) != strlen(names[i])))
            return NULL;
        text_printf(&list, "%s%s:%s", i > 0 ? "," : "", ip ? "IP" : "DNS", names[i]);
    }
    return arena_strdup(arena, list.bytes != NULL ? list.bytes : "");
}

static bool add_extension(X509 *cert, int nid, const char *value)
{
    X509V3_CTX ctx;

    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, cert, cert, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    bool ok = e != NULL && X509_add_ext(cert, e, -1) == 1;

    X509_EXTENSION_free(e);
    return ok;
}

static bool random_serial(X509 *cert)
{
    unsigned char bytes[16];
    BIGNUM *n = NULL;
    bool ok = RAND_bytes(bytes, sizeof bytes) == 1;

    bytes[0] = (bytes[0] & 0x3f) | 0x40; /* positive, and always as long */
    if (ok)
        n = BN_bin2bn(bytes, sizeof bytes, NULL);
    ok = n != NULL && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(cert)) != NULL;
    BN_free(n);
    return ok;
}

static bool fill_certificate(X509 *cert, EVP_PKEY *key, const char *common_name, const char *names)
{
    X509_NAME *subject = X509_get_subject_name(cert);

    return X509_set_version(cert, X509_VERSION_3) == 1 && random_serial(cert) &&
           X509_gmtime_adj(X509_getm_notBefore(cert), -86400) != NULL &&
           X509_time_adj_ex(X509_getm_notAfter(cert), DAYS_VALID, 0, NULL) != NULL &&
           X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, (const unsigned char *)common_name, -1, -1, 0) == 1 &&
           X509_set_issuer_name(cert, subject) == 1 && X509_set_pubkey(cert, key) == 1 &&
           add_extension(cert, NID_basic_constraints, "critical,CA:FALSE") &&
           add_extension(cert, NID_key_usage, "critical,digitalSignature,keyEncipherment") &&
           add_extension(cert, NID_ext_key_usage, "serverAuth,clientAuth") &&
           add_extension(cert, NID_subject_key_identifier, "hash") &&
           (names[0] == '\0' || add_extension(cert, NID_subject_alt_name, names)) && X509_sign(cert, key, EVP_sha256()) > 0;
}

static bool write_pem(BIO *out, X509 *cert, EVP_PKEY *key)
{
    return PEM_write_bio_PrivateKey(out, key, NULL, NULL, 0, NULL, NULL) == 1 && PEM_write_bio_X509(out, cert) == 1;
}

struct error *tls_make_certificate(struct arena *arena, const char *pem_path, enum tls_key kind, const char *common_name,
                                   const char *const *names, unsigned n_names)
{
    if (access(pem_path, F_OK) == 0)
        return NULL;
    const char *list = alt_names(arena, names, n_names);

    if (list == NULL)
        return err_internal(arena, "a name for the certificate %s is neither an address nor a host name", pem_path);
    EVP_PKEY *key = kind == TLS_KEY_P256 ? EVP_EC_gen("P-256") : EVP_RSA_gen(2048);
    X509 *cert = X509_new();
    BIO *out = BIO_new(BIO_s_secmem());
    bool ok = key != NULL && cert != NULL && out != NULL && fill_certificate(cert, key, common_name, list) && write_pem(out, cert, key);
    struct error *e = NULL;

    if (!ok) {
        e = err_internal(arena, "cannot make a certificate: %s", tls_error_text());
    } else {
        char *bytes;
        long len = BIO_get_mem_data(out, &bytes);
        int rc = file_replace(pem_path, bytes, (size_t)len, 0600);

        if (rc != 0)
            e = err_internal(arena, "cannot write %s: %s", pem_path, strerror(-rc));
    }
    BIO_free(out);
    X509_free(cert);
    EVP_PKEY_free(key);
    return e;
}

struct error *tls_certificate_fingerprint(struct arena *arena, const char *pem_path, const char **fingerprint_r, const char **cert_pem_r)
{
    char *bytes;
    size_t len;
    int rc = file_read(arena, pem_path, PEM_MAX, &bytes, &len);

    if (rc != 0)
        return err_internal(arena, "cannot read %s: %s", pem_path, strerror(-rc));
    BIO *in = BIO_new_mem_buf(bytes, (int)len), *out = BIO_new(BIO_s_mem());
    X509 *cert = in != NULL ? PEM_read_bio_X509(in, NULL, NULL, NULL) : NULL;
    char fingerprint[FINGERPRINT_SIZE];
    bool ok = cert != NULL && out != NULL && tls_fingerprint(cert, fingerprint) && PEM_write_bio_X509(out, cert) == 1;

    OPENSSL_cleanse(bytes, len); /* the key may stand beside it */
    if (ok) {
        char *pem;
        long pem_len = BIO_get_mem_data(out, &pem);

        *fingerprint_r = arena_strdup(arena, fingerprint);
        if (cert_pem_r != NULL)
            *cert_pem_r = arena_strndup(arena, pem, (size_t)pem_len);
    }
    X509_free(cert);
    BIO_free(in);
    BIO_free(out);
    return ok ? NULL : err_internal(arena, "no certificate in %s: %s", pem_path, tls_error_text());
}
