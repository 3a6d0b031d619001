/* Which cipher to prefer: measured, since neither the CPU's flags nor its age tell (virtual machines hide what they have). */
#include <openssl/evp.h>

#include "rpc/base/clock.h"
#include "rpc/http/tls_private.h"

#define RECORD 16384u /* of TLS */
#define RECORDS 8u    /* a try */
#define TRIES 5u      /* the fastest counts: others may be at work on this CPU */
#define GAIN 1.1      /* ChaCha20 must be faster by this: a draw is AES's */

/* Microseconds for a few records; negative where the cipher cannot be had. */
static int64_t try_once(EVP_CIPHER_CTX *c, const EVP_CIPHER *cipher, unsigned char *bytes)
{
    static const unsigned char key[32], iv[12];
    int64_t began = clock_us(&clock_real);
    int n;

    for (unsigned i = 0; i < RECORDS; i++)
        if (EVP_EncryptInit_ex(c, cipher, NULL, key, iv) != 1 || EVP_EncryptUpdate(c, bytes, &n, bytes, RECORD) != 1 ||
            EVP_EncryptFinal_ex(c, bytes, &n) != 1)
            return -1;
    return clock_us(&clock_real) - began + 1;
}

static int64_t measure(const EVP_CIPHER *cipher)
{
    unsigned char bytes[RECORD + 64] = { 0 };
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    int64_t best = -1;

    for (unsigned i = 0; c != NULL && i < TRIES; i++) {
        int64_t us = try_once(c, cipher, bytes);
        best = best < 0 || (us > 0 && us < best) ? us : best;
    }
    EVP_CIPHER_CTX_free(c);
    return best;
}

bool tls_aes_is_faster(void)
{
    static atomic_int known; /* 1: AES, 2: ChaCha20; measured twice when two begin at once, which harms nobody */
    int word = atomic_load(&known);

    if (word == 0) {
        int64_t aes = measure(EVP_aes_128_gcm()), chacha = measure(EVP_chacha20_poly1305());
        word = aes > 0 && (chacha < 0 || (double)aes <= (double)chacha * GAIN) ? 1 : 2;
        atomic_store(&known, word);
    }
    return word == 1;
}
