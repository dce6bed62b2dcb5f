#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "crc/checksum.h"
#include "http/worker.h"

static const char EMPTY_SHA256[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
static const char AGENT[] = "mfstore/0.2";

/* ---- the body ---- */

ssize_t mf_request_read(struct mf_xfer *xfer, size_t at, char *out, size_t n) {
    size_t done = 0;
    if (n > xfer->body_n - at)
        n = xfer->body_n - at;
    while (done < n) {
        off_t from = (off_t) (xfer->body_offset + (int64_t) (at + done));
        ssize_t got = pread(xfer->body_fd, out + done, n - done, from);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            int code = got < 0 ? errno : 0;
            mf_give_up(xfer, MF_DISK, code, code ? strerror(code) : "the file is shorter than it was");
            return -1;
        }
        done += (size_t) got;
    }
    return (ssize_t) done;
}

/* A conditional request that is repeated unasked on another connection could meet its own effect and be told 412, a
 * POST could act twice: those fail as a reset instead, and the scheduler decides. */
int mf_request_once(const struct mf_xfer *xfer) {
    return xfer->once || xfer->if_none_match || (xfer->if_match.n && xfer->has_body) ||
           strcmp(xfer->route->method, "POST") == 0;
}

/* ---- digests of the body ---- */

#define DIGEST_SLICE MF_SCRATCH

/* What the headers say of the body: one pass for both, in slices that stay in the cache between them. slice: room for
 * one. */
static int digest_body(struct mf_xfer *xfer, int sign, char *slice, char sha[MF_SHA256_HEX]) {
    struct mf_sha256 hash;
    uint64_t crc = 0;
    size_t i, at;
    if (sign)
        mf_sha256_init(&hash);
    if (xfer->body_fd < 0)
        for (i = 0; i < xfer->parts_n; i++)
            for (at = 0; at < xfer->parts[i].n; at += DIGEST_SLICE) {
                const uint8_t *from = xfer->parts[i].at + at;
                size_t n = xfer->parts[i].n - at < DIGEST_SLICE ? xfer->parts[i].n - at : DIGEST_SLICE;
                if (xfer->crc_kind != MF_NO_CRC)
                    crc = mf_crc_update((enum mf_crc_kind) xfer->crc_kind, crc, from, n);
                if (sign)
                    mf_sha256_update(&hash, from, n);
            }
    else
        for (at = 0; at < xfer->body_n;) {
            ssize_t got = mf_request_read(xfer, at, slice, DIGEST_SLICE);
            if (got < 0)
                return MF_DISK;
            if (xfer->crc_kind != MF_NO_CRC)
                crc = mf_crc_update((enum mf_crc_kind) xfer->crc_kind, crc, (uint8_t *) slice, (size_t) got);
            if (sign)
                mf_sha256_update(&hash, slice, (size_t) got);
            at += (size_t) got;
        }
    if (sign)
        mf_sha256_hex(&hash, sha);
    if (xfer->crc_kind != MF_NO_CRC) {
        xfer->has_crc = 1;
        xfer->crc = crc;
    }
    return 0;
}

/* ---- the head: all of it in the worker's arena, whose size is reckoned first, so that nothing in it moves ---- */

struct build {
    char *at, *end; /* values of headers, until they are written */
    char *out;      /* the head */
    struct mf_header *headers;
    size_t n;
};

static struct mf_text text_of(const char *at) {
    struct mf_text text = {at, strlen(at)};
    return text;
}

static void add(struct build *b, const char *name, struct mf_text value) {
    b->headers[b->n].name = text_of(name);
    b->headers[b->n++].value = value;
}

static struct mf_text format(struct build *b, const char *pattern, ...) __attribute__((format(printf, 2, 3)));

static struct mf_text format(struct build *b, const char *pattern, ...) {
    struct mf_text text = {b->at, 0};
    va_list arguments;
    va_start(arguments, pattern);
    text.n = (size_t) vsnprintf(b->at, (size_t) (b->end - b->at), pattern, arguments);
    va_end(arguments);
    b->at += text.n + 1;
    return text;
}

static void put(struct build *b, const char *at, size_t n) {
    memcpy(b->out, at, n);
    b->out += n;
}

static void put_text(struct build *b, const char *text) {
    put(b, text, strlen(text));
}

static int compare_text(struct mf_text a, struct mf_text b) {
    int order = memcmp(a.at, b.at, a.n < b.n ? a.n : b.n);
    return order ? order : (a.n > b.n) - (a.n < b.n);
}

/* Insertion sort: the route's are in order already, and of two with one name the call's must stay the later. */
static void sort_headers(struct build *b) {
    size_t i, j, kept = 0;
    for (i = 1; i < b->n; i++) {
        struct mf_header one = b->headers[i];
        for (j = i; j > 0 && compare_text(b->headers[j - 1].name, one.name) > 0; j--)
            b->headers[j] = b->headers[j - 1];
        b->headers[j] = one;
    }
    for (i = 0; i < b->n; i++)
        if (i + 1 == b->n || compare_text(b->headers[i].name, b->headers[i + 1].name) != 0)
            b->headers[kept++] = b->headers[i];
    b->n = kept;
}

/* The query in the order that SigV4 wants: UploadPart's two among the route's. */
static struct mf_text build_query(struct build *b, const struct mf_xfer *xfer) {
    struct mf_text query = {b->out, 0}, rest = xfer->route->query;
    int own = 0;
    if (xfer->route->operation != MF_PART)
        return rest;
    while (own < 2 || rest.n) {
        const char *name = own == 0 ? "partNumber=" : "uploadId=";
        size_t n = strlen(name);
        if (b->out != query.at)
            put(b, "&", 1);
        if (own < 2 && (!rest.n || memcmp(name, rest.at, n < rest.n ? n : rest.n) <= 0)) {
            if (own++ == 0)
                b->out += sprintf(b->out, "partNumber=%u", xfer->part);
            else {
                put(b, name, n);
                b->out += mf_uri_encode(xfer->upload.at, xfer->upload.n, 0, b->out, 3 * xfer->upload.n);
            }
        } else {
            const char *stop = memchr(rest.at, '&', rest.n);
            size_t some = stop ? (size_t) (stop - rest.at) : rest.n;
            put(b, rest.at, some);
            rest.at += some + (stop != NULL);
            rest.n -= some + (stop != NULL);
        }
    }
    query.n = (size_t) (b->out - query.at);
    return query;
}

static const struct mf_signing_key *signing_key(struct mf_worker *worker, const struct mf_xfer *xfer,
                                                const char *date) {
    const struct mf_route *route = xfer->route;
    const struct mf_creds *creds = xfer->creds;
    unsigned i;
    for (i = 0; i < MF_SIGNING_KEYS; i++) {
        if (worker->keys[i].creds_id == creds->id && strcmp(worker->keys[i].region, route->region.at) == 0 &&
            strcmp(worker->keys[i].service, route->service.at) == 0 &&
            mf_signing_key_covers(&worker->keys[i].key, date))
            return &worker->keys[i].key;
    }
    i = worker->keys_next++ % MF_SIGNING_KEYS;
    worker->keys[i].creds_id = 0;
    if (route->region.n >= sizeof worker->keys[i].region || route->service.n >= sizeof worker->keys[i].service ||
        !mf_signing_key_derive(&worker->keys[i].key, creds->secret_key, date, route->region, route->service))
        return NULL;
    worker->keys[i].creds_id = creds->id;
    memcpy(worker->keys[i].region, route->region.at, route->region.n + 1);
    memcpy(worker->keys[i].service, route->service.at, route->service.n + 1);
    return &worker->keys[i].key;
}

/* Of the two regions, one behind the other: head and values. */
static void room_for(const struct mf_xfer *xfer, const char *proxy, size_t *head, size_t *values, size_t *headers) {
    const struct mf_route *route = xfer->route;
    size_t i, names = 0, n = 0;
    for (i = 0; i < route->headers_n; i++) {
        n += route->headers[i].name.n + route->headers[i].value.n + 4;
        names += route->headers[i].name.n + 1;
    }
    for (i = 0; i < xfer->extra_n; i++) {
        n += xfer->extra[i].name.n + xfer->extra[i].value.n + 4;
        names += xfer->extra[i].name.n + 1;
    }
    /* 2048: method, version, names and values that are ours: ranges, checksums, dates, Authorization without names */
    n += 2048 + names + strlen(route->method) + strlen(route->origin) + route->path.n + 3 * xfer->key.n;
    n += route->query.n + 3 * xfer->upload.n + strlen(route->host) + strlen(route->match_header) + xfer->if_match.n;
    n += proxy ? strlen(proxy) : 0;
    if (xfer->creds)
        n += 2 * xfer->creds->access_key.n + xfer->creds->token.n;
    *head = (n + 15) & ~(size_t) 15; /* what follows is aligned */
    *headers = route->headers_n + xfer->extra_n + 16;
    *values = *headers * sizeof(struct mf_header) + 512;
}

static int no_room(struct mf_xfer *xfer, const char *message) {
    snprintf(xfer->message, sizeof xfer->message, "%s", message);
    return MF_INTERNAL;
}

static int has(const struct build *b, const char *name) {
    size_t i, n = strlen(name);
    for (i = 0; i < b->n; i++)
        if (b->headers[i].name.n == n && memcmp(b->headers[i].name.at, name, n) == 0)
            return 1;
    return 0;
}

/* Method, [origin] path encoded-key [?query]. What SigV4 signs of it lies where it is written. */
static void request_line(struct build *b, const struct mf_xfer *xfer, struct mf_text *path, struct mf_text *query) {
    const struct mf_route *route = xfer->route;
    put_text(b, route->method);
    put(b, " ", 1);
    if (route->absolute)
        put_text(b, route->origin);
    path->at = b->out;
    put(b, route->path.at, route->path.n);
    if (xfer->has_key && !route->whole)
        b->out += mf_uri_encode(xfer->key.at, xfer->key.n, 1, b->out, 3 * xfer->key.n);
    path->n = (size_t) (b->out - path->at);
    query->at = b->out;
    query->n = 0;
    if (route->query.n || (route->operation == MF_PART && !route->whole)) {
        put(b, "?", 1);
        *query = route->whole ? route->query : build_query(b, xfer);
        if (query->at == route->query.at) {
            query->at = b->out;
            put(b, route->query.at, route->query.n);
        }
    }
    put_text(b, " HTTP/1.1\r\n");
}

static void own_headers(struct build *b, const struct mf_xfer *xfer) {
    if (xfer->has_range) {
        if (xfer->start < 0)
            add(b, "range", format(b, "bytes=%" PRId64, xfer->start));
        else if (xfer->stop < 0)
            add(b, "range", format(b, "bytes=%" PRId64 "-", xfer->start));
        else
            add(b, "range", format(b, "bytes=%" PRId64 "-%" PRId64, xfer->start, xfer->stop - 1));
    }
    if (xfer->if_match.n)
        add(b, xfer->route->match_header, xfer->if_match);
    if (xfer->if_none_match)
        add(b, "if-none-match", text_of("*"));
    if (xfer->has_body && xfer->crc_kind != MF_NO_CRC) {
        char value[MF_CRC_TEXT];
        if (xfer->route->dialect == MF_AZURE && xfer->crc_kind == MF_CRC64NVME) {
            /* The same polynomial; Azure writes the lowest byte first. */
            mf_crc_encode(MF_CRC64NVME, __builtin_bswap64(xfer->crc), value);
            add(b, "x-ms-content-crc64", format(b, "%s", value));
            return;
        }
        mf_crc_encode((enum mf_crc_kind) xfer->crc_kind, xfer->crc, value);
        add(b, mf_crc_headers[xfer->crc_kind], format(b, "%s", value));
        add(b, "x-amz-sdk-checksum-algorithm", text_of(mf_crc_names[xfer->crc_kind]));
    }
}

int mf_request_build(struct mf_worker *worker, struct mf_xfer *xfer, size_t *n) {
    const struct mf_route *route = xfer->route;
    const char *proxy = route->absolute ? mf_dialer_proxy_authorization(worker->dialer) : NULL;
    const struct mf_signing_key *key = NULL;
    struct build b;
    struct mf_text path, query, sha = {NULL, 0};
    char date[MF_AMZ_DATE], digest[MF_SHA256_HEX];
    size_t head, values, headers, i;
    int failure;

    if (xfer->has_body && !route->whole && (xfer->crc_kind != MF_NO_CRC || (xfer->creds && route->sign_payload))) {
        int sign = xfer->creds && route->sign_payload;
        if (xfer->body_n) {
            if ((failure = digest_body(xfer, sign, worker->scratch, digest)) != 0)
                return failure;
            if (sign)
                sha = text_of(digest);
        } else if (xfer->crc_kind != MF_NO_CRC)
            xfer->has_crc = 1; /* of nothing: 0 */
    }
    room_for(xfer, proxy, &head, &values, &headers);
    if (worker->arena_size < head + values) {
        free(worker->arena);
        worker->arena_size = 0;
        worker->arena = malloc(head + values);
        if (!worker->arena)
            return no_room(xfer, "out of memory");
        worker->arena_size = head + values;
    }
    b.out = worker->arena;
    b.headers = (struct mf_header *) (worker->arena + head);
    b.at = (char *) (b.headers + headers);
    b.end = worker->arena + head + values;
    b.n = 0;

    request_line(&b, xfer, &path, &query);
    for (i = 0; i < route->headers_n; i++)
        b.headers[b.n++] = route->headers[i];
    if (!route->whole) {
        for (i = 0; i < xfer->extra_n; i++)
            b.headers[b.n++] = xfer->extra[i];
        own_headers(&b, xfer);
        if (xfer->creds) {
            struct timespec now;
            clock_gettime(CLOCK_REALTIME, &now);
            mf_amz_date((int64_t) ((double) now.tv_sec + (double) now.tv_nsec * 1e-9 + xfer->skew), date);
            if (!sha.at)
                sha = text_of(xfer->has_body && xfer->body_n ? "UNSIGNED-PAYLOAD" : EMPTY_SHA256);
            add(&b, "host", text_of(route->host));
            add(&b, "x-amz-content-sha256", sha);
            add(&b, "x-amz-date", text_of(date));
            if (xfer->creds->token.n)
                add(&b, "x-amz-security-token", xfer->creds->token);
            key = signing_key(worker, xfer, date);
            if (!key)
                return no_room(xfer, "no signing key for this region and service");
        }
        sort_headers(&b);
    }

    if (!route->whole || !has(&b, "host")) {
        put_text(&b, "Host: ");
        put_text(&b, route->host);
        put(&b, "\r\n", 2);
    }
    if (!route->whole || !has(&b, "user-agent")) {
        put_text(&b, "User-Agent: ");
        put_text(&b, AGENT);
        put(&b, "\r\n", 2);
    }
    if (proxy) {
        put_text(&b, "Proxy-Authorization: ");
        put_text(&b, proxy);
        put(&b, "\r\n", 2);
    }
    if (xfer->has_body)
        b.out += sprintf(b.out, "Content-Length: %zu\r\n", xfer->body_n);
    for (i = 0; i < b.n; i++) {
        const struct mf_header *header = b.headers + i;
        if ((key && header->name.n == 4 && memcmp(header->name.at, "host", 4) == 0) ||
            (xfer->has_body && header->name.n == 14 && memcmp(header->name.at, "content-length", 14) == 0))
            continue; /* said above */
        put(&b, header->name.at, header->name.n);
        put(&b, ": ", 2);
        put(&b, header->value.at, header->value.n);
        put(&b, "\r\n", 2);
    }
    if (key) {
        struct mf_request request;
        size_t length;
        put_text(&b, "Authorization: ");
        request.method = text_of(route->method);
        request.path = path;
        request.query = query;
        request.headers = b.headers;
        request.headers_n = b.n;
        request.payload = sha;
        length = mf_sigv4_authorization(key, xfer->creds->access_key, date, &request, b.out,
                                        (size_t) (worker->arena + head - b.out) - 4);
        if (!length)
            return no_room(xfer, "the request could not be signed");
        b.out += length;
        put(&b, "\r\n", 2);
    }
    put(&b, "\r\n", 2);
    *n = (size_t) (b.out - worker->arena);
    return 0;
}
