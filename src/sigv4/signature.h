/* AWS Signature Version 4 as S3 wants it: paths encoded once and never normalised.
 *
 * No function here allocates, locks, keeps a pointer beyond the call or has state of its own; all may be called from
 * any thread without the GIL. Texts are pointer and length, need no NUL, and are only read. Include this before any
 * other header that includes OpenSSL's.
 */
#ifndef MFSTORE_SIGV4_SIGNATURE_H
#define MFSTORE_SIGV4_SIGNATURE_H
#include <stddef.h>
#include <stdint.h>

/* SHA256_Init and its like are plain functions over a plain struct: copied by assignment, no allocation, no provider
 * look-up, no lock. OpenSSL 3 calls them deprecated in favour of EVP, which is none of this. */
#ifndef OPENSSL_API_COMPAT
#define OPENSSL_API_COMPAT 0x10100000L
#endif
#include <openssl/sha.h>

struct mf_text {
    const char *at; /* may be NULL when n is 0 */
    size_t n;
};

/* ---- SHA-256 ---- */

#define MF_SHA256_HEX 65 /* 64 digits and NUL */

/* A hash in progress. Copy it by assignment; there is nothing to free. Used by one thread at a time. */
struct mf_sha256 {
    SHA256_CTX context;
};

void mf_sha256_init(struct mf_sha256 *hash);
void mf_sha256_update(struct mf_sha256 *hash, const void *data, size_t n); /* data may be NULL when n is 0 */
/* Lower-case hexadecimal digits and NUL. Ends the hash: init it again before further use. */
void mf_sha256_hex(struct mf_sha256 *hash, char out[MF_SHA256_HEX]);

/* ---- texts ---- */

#define MF_NO_ROOM SIZE_MAX

/* Percent-encodes in[0:n] into out[0:room], without NUL, and returns the length, or MF_NO_ROOM (and out holds
 * anything). 3 * n always suffices. A-Z a-z 0-9 - _ . ~ stay, '/' too if keep_slash (paths; not in queries); all
 * other bytes become %XX in upper case. "//", "." and ".." stay as they are: S3 keys are not file names. in and out
 * must not overlap. */
size_t mf_uri_encode(const char *in, size_t n, int keep_slash, char *out, size_t room);

#define MF_AMZ_DATE 17 /* "20130524T000000Z" and NUL */

/* The value of x-amz-date; its first 8 characters are the date of the scope. 1, or 0 (and an empty text) for a time
 * before 1970 or after 9999. Does not ask libc, whose gmtime_r takes the lock of the time zone. */
int mf_amz_date(int64_t seconds_since_1970, char out[MF_AMZ_DATE]);

/* ---- signing ---- */

#define MF_SCOPE_MAX 128 /* "20130524/us-east-1/s3/aws4_request": regions and services have well under 40 characters */

/* What one secret, day, region and service amount to. Derive it once (10 hashes) and share it between threads: it is
 * only read afterwards. It is as secret as the secret key; mf_signing_key_forget wipes it. */
struct mf_signing_key {
    SHA256_CTX inner, outer; /* HMAC states after the padded key: signing costs what the text costs, and one block */
    size_t scope_n;
    char scope[MF_SCOPE_MAX];
};

/* timestamp: at least 8 characters, of which the first 8 are the day. 1, or 0 if region and service are too long. */
int mf_signing_key_derive(struct mf_signing_key *key, struct mf_text secret, const char *timestamp,
                          struct mf_text region, struct mf_text service);

/* Whether the key is for the day of this timestamp: if not, derive another. */
int mf_signing_key_covers(const struct mf_signing_key *key, const char *timestamp);

void mf_signing_key_forget(struct mf_signing_key *key);

struct mf_header {
    struct mf_text name;  /* lower case */
    struct mf_text value; /* without white space at the ends; runs of blanks inside are signed as one, as AWS wants */
};

/* Everything of a request that is signed. */
struct mf_request {
    struct mf_text method;           /* upper case */
    struct mf_text path;             /* percent-encoded as it is sent, begins with '/' */
    struct mf_text query;            /* encoded and sorted, "name=" for a name without value; without '?' */
    const struct mf_header *headers; /* names strictly ascending; with host, x-amz-date (the timestamp),
                                      * x-amz-content-sha256 (the payload), x-amz-security-token if there is one */
    size_t headers_n;
    struct mf_text payload; /* hex SHA-256 of the body, or "UNSIGNED-PAYLOAD" */
};

/* Writes the value of the Authorization header and NUL into out[0:room]; returns its length without NUL, or 0 (and out
 * holds anything) if it does not fit or the key is not for the day of the timestamp. timestamp: what mf_amz_date wrote.
 * 256 bytes, the access key, and the names of the headers with a ';' each always suffice. */
size_t mf_sigv4_authorization(const struct mf_signing_key *key, struct mf_text access_key, const char *timestamp,
                              const struct mf_request *request, char *out, size_t room);

#endif
