#include "tests/lib/certificate.h"

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>

#include "rpc/base/check.h"

void certificate_make(const char *path, char *fingerprint)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    unsigned char digest[32];
    unsigned len = 0;

    CHECK(key != NULL && cert != NULL);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(cert), 86400);
    X509_set_version(cert, 2);
    X509_set_pubkey(cert, key);
    X509_NAME *name = X509_get_subject_name(cert);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"localhost", -1, -1, 0);
    X509_set_issuer_name(cert, name);
    CHECK(X509_sign(cert, key, EVP_sha256()) > 0);
    FILE *f = fopen(path, "we");
    CHECK(f != NULL && PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL) == 1 && PEM_write_X509(f, cert) == 1);
    CHECK(fclose(f) == 0);
    CHECK(X509_digest(cert, EVP_sha256(), digest, &len) == 1 && len == 32);
    for (unsigned i = 0; fingerprint != NULL && i < len; i++)
        snprintf(fingerprint + 3 * i, 4, "%02X%s", digest[i], i + 1 < len ? ":" : "");
    X509_free(cert);
    EVP_PKEY_free(key);
}
