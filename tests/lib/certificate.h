/* A fresh self-signed certificate with its key, as PEM in one file. */
#ifndef TESTS_LIB_CERTIFICATE_H
#define TESTS_LIB_CERTIFICATE_H

/* Writes it to path; fingerprint: "AA:BB:…" (96 bytes of room), or NULL. */
void certificate_make(const char *path, char *fingerprint);

#endif
