#include "sigv4/signature.h"

#include <openssl/crypto.h>
#include <string.h>

#define BLOCK 64 /* SHA-256's */
#define DIGEST 32
#define SCOPE_END "aws4_request"

static const char hex_lower[] = "0123456789abcdef", hex_upper[] = "0123456789ABCDEF";

#ifdef MFSTORE_STATIC
/* A shared libcrypto asks when it is loaded what the processor can do, by code in its section .init. Of one that lies
 * within an extension not every linker has that run, and SHA-256 would take four times as long. Asking twice does no
 * harm. OPENSSL_init_crypto would ask too, and bring 3 MB of all that it sets up. */
void OPENSSL_cpuid_setup(void);
__attribute__((constructor)) static void ask_processor(void) {
    OPENSSL_cpuid_setup();
}
#endif

static void update(SHA256_CTX *context, const void *data, size_t n) {
    if (n) /* data may be NULL otherwise, and memcpy from NULL is undefined even for no bytes */
        SHA256_Update(context, data, n);
}

static void add_hex(const uint8_t digest[DIGEST], char *out) {
    size_t i;
    for (i = 0; i < DIGEST; i++) {
        out[2 * i] = hex_lower[digest[i] >> 4];
        out[2 * i + 1] = hex_lower[digest[i] & 15];
    }
}

/* ---- SHA-256 ---- */

void mf_sha256_init(struct mf_sha256 *hash) {
    SHA256_Init(&hash->context);
}

void mf_sha256_update(struct mf_sha256 *hash, const void *data, size_t n) {
    update(&hash->context, data, n);
}

void mf_sha256_hex(struct mf_sha256 *hash, char out[MF_SHA256_HEX]) {
    uint8_t digest[DIGEST];
    SHA256_Final(digest, &hash->context);
    add_hex(digest, out);
    out[2 * DIGEST] = 0;
}

/* ---- texts ---- */

/* Not isalnum: that one asks the locale. */
static int unreserved(unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
           c == '.' || c == '~';
}

size_t mf_uri_encode(const char *in, size_t n, int keep_slash, char *out, size_t room) {
    size_t i, at = 0;
    for (i = 0; i < n; i++) {
        unsigned char c = (unsigned char) in[i];
        if (unreserved(c) || (c == '/' && keep_slash)) {
            if (room - at < 1)
                return MF_NO_ROOM;
            out[at++] = (char) c;
        } else {
            if (room - at < 3)
                return MF_NO_ROOM;
            out[at++] = '%';
            out[at++] = hex_upper[c >> 4];
            out[at++] = hex_upper[c & 15];
        }
    }
    return at;
}

static void put_number(char *out, unsigned value, unsigned width) {
    while (width--) {
        out[width] = (char) ('0' + value % 10);
        value /= 10;
    }
}

static unsigned leap(unsigned year) {
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

int mf_amz_date(int64_t seconds_since_1970, char out[MF_AMZ_DATE]) {
    static const unsigned char lengths[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    unsigned days, second, length, year = 1970, month = 1;
    out[0] = 0;
    if (seconds_since_1970 < 0 || seconds_since_1970 > 253402300799) /* 9999-12-31T23:59:59Z */
        return 0;
    days = (unsigned) (seconds_since_1970 / 86400);
    second = (unsigned) (seconds_since_1970 % 86400);
    /* Some 60 steps nowadays, far less than the hashing that follows: no cleverer calendar is worth its reader. */
    for (; days >= (length = 365 + leap(year)); year++)
        days -= length;
    for (; days >= (length = lengths[month - 1] + (month == 2 && leap(year))); month++)
        days -= length;
    put_number(out, year, 4);
    put_number(out + 4, month, 2);
    put_number(out + 6, days + 1, 2);
    out[8] = 'T';
    put_number(out + 9, second / 3600, 2);
    put_number(out + 11, second / 60 % 60, 2);
    put_number(out + 13, second % 60, 2);
    out[15] = 'Z';
    out[16] = 0;
    return 1;
}

/* ---- signing ---- */

static void hmac_states(const uint8_t key[BLOCK], SHA256_CTX *inner, SHA256_CTX *outer) {
    uint8_t pad[BLOCK];
    size_t i;
    for (i = 0; i < BLOCK; i++)
        pad[i] = key[i] ^ 0x36;
    SHA256_Init(inner);
    SHA256_Update(inner, pad, BLOCK);
    for (i = 0; i < BLOCK; i++)
        pad[i] = key[i] ^ 0x5c;
    SHA256_Init(outer);
    SHA256_Update(outer, pad, BLOCK);
    OPENSSL_cleanse(pad, sizeof pad);
}

/* inner: a copy of the key's inner state, fed with the text. */
static void hmac_final(SHA256_CTX *inner, const SHA256_CTX *outer, uint8_t digest[DIGEST]) {
    SHA256_CTX last = *outer;
    SHA256_Final(digest, inner);
    SHA256_Update(&last, digest, DIGEST);
    SHA256_Final(digest, &last);
    OPENSSL_cleanse(&last, sizeof last); /* while a key is derived, the digest is a key too */
}

/* Replaces the key, padded with zeros to a block, by the HMAC of the text under it, padded alike. */
static void hmac_step(uint8_t key[BLOCK], const char *text, size_t n) {
    SHA256_CTX inner, outer;
    hmac_states(key, &inner, &outer);
    update(&inner, text, n);
    memset(key, 0, BLOCK);
    hmac_final(&inner, &outer, key);
    OPENSSL_cleanse(&inner, sizeof inner);
    OPENSSL_cleanse(&outer, sizeof outer);
}

int mf_signing_key_derive(struct mf_signing_key *key, struct mf_text secret, const char *timestamp,
                          struct mf_text region, struct mf_text service) {
    uint8_t block[BLOCK] = {0};
    char *scope = key->scope;
    /* Each alone first: the sum of two sizes could wrap. */
    if (region.n >= MF_SCOPE_MAX || service.n >= MF_SCOPE_MAX ||
        8 + 1 + region.n + 1 + service.n + 1 + sizeof SCOPE_END > MF_SCOPE_MAX)
        return 0;
    memcpy(block, "AWS4", 4);
    if (secret.n <= BLOCK - 4) {
        if (secret.n)
            memcpy(block + 4, secret.at, secret.n);
    } else { /* HMAC's rule for keys longer than a block */
        SHA256_CTX hash;
        SHA256_Init(&hash);
        SHA256_Update(&hash, "AWS4", 4);
        SHA256_Update(&hash, secret.at, secret.n);
        memset(block, 0, BLOCK);
        SHA256_Final(block, &hash);
        OPENSSL_cleanse(&hash, sizeof hash);
    }
    hmac_step(block, timestamp, 8);
    hmac_step(block, region.at, region.n);
    hmac_step(block, service.at, service.n);
    hmac_step(block, SCOPE_END, sizeof SCOPE_END - 1);
    hmac_states(block, &key->inner, &key->outer);
    OPENSSL_cleanse(block, sizeof block);

    memcpy(scope, timestamp, 8);
    scope += 8;
    *scope++ = '/';
    if (region.n)
        memcpy(scope, region.at, region.n);
    scope += region.n;
    *scope++ = '/';
    if (service.n)
        memcpy(scope, service.at, service.n);
    scope += service.n;
    *scope++ = '/';
    memcpy(scope, SCOPE_END, sizeof SCOPE_END);
    key->scope_n = (size_t) (scope - key->scope) + sizeof SCOPE_END - 1;
    return 1;
}

int mf_signing_key_covers(const struct mf_signing_key *key, const char *timestamp) {
    return memcmp(key->scope, timestamp, 8) == 0;
}

void mf_signing_key_forget(struct mf_signing_key *key) {
    OPENSSL_cleanse(key, sizeof *key);
}

static int blank(char c) {
    return c == ' ' || c == '\t';
}

/* Each run of blanks as one space: a proxy may make it one under way, and the signature must not depend on that. */
static void update_value(SHA256_CTX *hash, struct mf_text value) {
    size_t start = 0, i;
    for (i = 0; i < value.n; i++) {
        size_t end = i;
        if (!blank(value.at[i]) || (value.at[i] == ' ' && i + 1 < value.n && !blank(value.at[i + 1])))
            continue;
        while (i + 1 < value.n && blank(value.at[i + 1]))
            i++;
        update(hash, value.at + start, end - start);
        update(hash, " ", 1);
        start = i + 1;
    }
    if (start < value.n)
        update(hash, value.at + start, value.n - start);
}

static void canonical_hash(const struct mf_request *request, char hex[2 * DIGEST]) {
    SHA256_CTX hash;
    uint8_t digest[DIGEST];
    size_t i;
    SHA256_Init(&hash);
    update(&hash, request->method.at, request->method.n);
    update(&hash, "\n", 1);
    update(&hash, request->path.at, request->path.n);
    update(&hash, "\n", 1);
    update(&hash, request->query.at, request->query.n);
    update(&hash, "\n", 1);
    for (i = 0; i < request->headers_n; i++) {
        update(&hash, request->headers[i].name.at, request->headers[i].name.n);
        update(&hash, ":", 1);
        update_value(&hash, request->headers[i].value);
        update(&hash, "\n", 1);
    }
    for (i = 0; i < request->headers_n; i++) {
        update(&hash, i ? ";" : "\n", 1);
        update(&hash, request->headers[i].name.at, request->headers[i].name.n);
    }
    update(&hash, "\n", 1);
    update(&hash, request->payload.at, request->payload.n);
    SHA256_Final(digest, &hash);
    add_hex(digest, hex);
}

struct out {
    char *at;
    size_t room;
    int full;
};

static void put(struct out *out, const char *text, size_t n) {
    if (out->full || out->room < n) {
        out->full = 1;
        return;
    }
    if (n)
        memcpy(out->at, text, n);
    out->at += n;
    out->room -= n;
}

#define PUT_LITERAL(out, literal) put(out, literal, sizeof literal - 1)

size_t mf_sigv4_authorization(const struct mf_signing_key *key, struct mf_text access_key, const char *timestamp,
                              const struct mf_request *request, char *out, size_t room) {
    struct out value = {out, room, 0};
    SHA256_CTX inner = key->inner;
    uint8_t digest[DIGEST];
    char hex[2 * DIGEST];
    size_t i;
    if (!mf_signing_key_covers(key, timestamp))
        return 0;
    canonical_hash(request, hex);
    update(&inner, "AWS4-HMAC-SHA256\n", 17);
    update(&inner, timestamp, MF_AMZ_DATE - 1);
    update(&inner, "\n", 1);
    update(&inner, key->scope, key->scope_n);
    update(&inner, "\n", 1);
    update(&inner, hex, sizeof hex);
    hmac_final(&inner, &key->outer, digest);
    add_hex(digest, hex);

    PUT_LITERAL(&value, "AWS4-HMAC-SHA256 Credential=");
    put(&value, access_key.at, access_key.n);
    PUT_LITERAL(&value, "/");
    put(&value, key->scope, key->scope_n);
    PUT_LITERAL(&value, ", SignedHeaders=");
    for (i = 0; i < request->headers_n; i++) {
        if (i)
            PUT_LITERAL(&value, ";");
        put(&value, request->headers[i].name.at, request->headers[i].name.n);
    }
    PUT_LITERAL(&value, ", Signature=");
    put(&value, hex, sizeof hex);
    put(&value, "", 1);
    return value.full ? 0 : (size_t) (value.at - out) - 1;
}
