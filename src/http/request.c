#include "http/worker.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "crc/checksum.h"

/* libcurl 7.88 sends headers and body in one go when the body is a POSTFIELDS of up to 64 KiB. */
#define TOGETHER ((size_t) 64 << 10)
#define DIGEST_SLICE ((size_t) 256 << 10)

/* Whose transfer is worth larger buffers. */
#define LARGE_BODY ((size_t) 1 << 20)
/* What libcurl reads into before it calls us; our copy out of it finds the bytes in the L2 cache. CPU-s per GB of 64
 * MiB objects over loopback, user + system: 16 KiB 0.54, 32 KiB 0.41, 64 KiB 0.31, 128 KiB 0.32, 256 KiB 0.26, 512
 * KiB 0.27. A small request costs the same with 16 as with 128 KiB: what is not written to is not paged in. */
#define RECEIVE_BUFFER (64L << 10)
#define RECEIVE_BUFFER_LARGE (256L << 10)
/* The same for uploads: 64 KiB 0.22, 128 KiB 0.19, 256 KiB 0.16, 512 KiB 0.14, 1 MiB 0.15. With TLS 0.54, 0.52, 0.50,
 * 0.50, 0.51, and it is not the sending: OpenSSL 3.0's AES-256-GCM takes 0.20 of it (5 GB/s), a system call for each
 * record of 16 KiB 0.08, copies 0.05. What libraries of today bring (AES-GCM for AVX-512 since OpenSSL 3.2) is a row
 * of `make bench-s3`: libcurl 8.23 with OpenSSL 3.6 took uploads from 0.68 to 0.49 and downloads from 1.05 to 0.67 on
 * a busy machine. AES-128-GCM ahead of AES-256-GCM, as S3 picks, could not be told from noise (uploads 0.64 and 0.68,
 * downloads 0.93 and 0.94).
 *
 * Over HTTP the signed SHA-256 is 0.49 more, at the speed of the processor's SHA instructions: more than half of an
 * upload. It comes before the first byte is sent, so the bytes are read from memory twice. What is left against
 * obstore, which pays for the same SHA-256, is the copy into libcurl's buffer, 0.08.
 *
 * Reading ahead in OpenSSL (SSL_CTX_set_read_ahead) would save two of three system calls per record of a download,
 * but libcurl 7.88 asks the socket, not OpenSSL, whether more is there: transfers stall on records that were read
 * already. */
#define SEND_BUFFER (64L << 10)
#define SEND_BUFFER_LARGE (512L << 10)

enum mode { MODE_NEW, MODE_GET, MODE_HEAD, MODE_CUSTOM, MODE_FIELDS, MODE_UPLOAD };

static const char EMPTY_SHA256[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/* ---- the body ---- */

/* body[at:at+n] to out, or as much as there is; -1 with errno. */
static ssize_t copy_body(const struct mf_xfer *xfer, size_t at, char *out, size_t n) {
    size_t i, done = 0;
    if (at >= xfer->body_n)
        return 0;
    if (n > xfer->body_n - at)
        n = xfer->body_n - at;
    if (xfer->body_fd >= 0) {
        while (done < n) {
            off_t from = (off_t) (xfer->body_offset + (int64_t) (at + done));
            ssize_t got = pread(xfer->body_fd, out + done, n - done, from);
            if (got < 0 && errno == EINTR)
                continue;
            if (got < 0)
                return -1;
            if (got == 0) {
                errno = 0; /* the file is shorter than it was */
                return -1;
            }
            done += (size_t) got;
        }
        return (ssize_t) done;
    }
    for (i = 0; i < xfer->parts_n && done < n; i++) {
        const struct mf_part *part = xfer->parts + i;
        size_t some;
        if (at >= part->n) {
            at -= part->n;
            continue;
        }
        some = part->n - at < n - done ? part->n - at : n - done;
        memcpy(out + done, part->at + at, some);
        done += some;
        at = 0;
    }
    return (ssize_t) done;
}

static void disk_failure(struct mf_xfer *xfer, int code) {
    xfer->failure = MF_DISK;
    xfer->error = code;
    snprintf(xfer->message, sizeof xfer->message, "%s", code ? strerror(code) : "the file is shorter than it was");
}

static size_t on_read(char *out, size_t size, size_t count, void *arg) {
    struct mf_xfer *xfer = arg;
    ssize_t got = copy_body(xfer, xfer->body_at, out, size * count);
    if (got < 0) {
        disk_failure(xfer, errno);
        return CURL_READFUNC_ABORT;
    }
    xfer->body_at += (size_t) got;
    return (size_t) got;
}

static int on_seek(void *arg, curl_off_t offset, int origin) {
    struct mf_xfer *xfer = arg;
    if (origin != SEEK_SET || offset < 0 || (size_t) offset > xfer->body_n)
        return CURL_SEEKFUNC_FAIL;
    xfer->body_at = (size_t) offset;
    return CURL_SEEKFUNC_OK;
}

/* ---- the handle ---- */

/* A conditional request that libcurl silently repeats on another connection could meet its own effect and be told
 * 412, a POST could act twice: those fail as a reset instead, and the scheduler decides. */
static int once_only(const struct mf_xfer *xfer) {
    return xfer->if_none_match || (xfer->if_match.n && xfer->has_body) || strcmp(xfer->route->method, "POST") == 0;
}

static int on_prerequest(void *arg, char *ip, char *local_ip, int port, int local_port) {
    struct mf_xfer *xfer = arg;
    (void) ip, (void) local_ip, (void) port;
    xfer->local_port = local_port;
    xfer->sendings++;
    return xfer->sendings > 1 && once_only(xfer) ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}

struct mf_slot *mf_slot_new(struct mf_worker *worker) {
    const struct mf_config *config = &worker->engine->config;
    struct mf_slot *slot = calloc(1, sizeof *slot);
    CURL *easy;
    if (!slot)
        return NULL;
    slot->easy = easy = curl_easy_init();
    if (!easy) {
        free(slot);
        return NULL;
    }
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, slot->error);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1);
#if LIBCURL_VERSION_NUM >= 0x075500
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
#else
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS, (long) (CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
    curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "mfstore/0.1");
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, config->connect_timeout_ms);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_DNS_CACHE_TIMEOUT, 30L);
    curl_easy_setopt(easy, CURLOPT_DNS_SHUFFLE_ADDRESSES, 1L);
    curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(easy, CURLOPT_HTTP_CONTENT_DECODING, 0L);
    curl_easy_setopt(easy, CURLOPT_PROXY, config->proxy ? config->proxy : ""); /* "": not the environment's either */
    /* Whether the proxy is for this host was decided above; libcurl would ask no_proxy of the environment once more,
     * also of a proxy that was given, and send the origin a request that is meant for a proxy. */
    curl_easy_setopt(easy, CURLOPT_NOPROXY, "");
#if LIBCURL_VERSION_NUM >= 0x075700
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L); /* a cancelled request does not wait for the resolver's thread */
#endif
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, (long) config->verify);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, config->verify ? 2L : 0L);
    curl_easy_setopt(easy, CURLOPT_PROXY_SSL_VERIFYPEER, (long) config->verify);
    curl_easy_setopt(easy, CURLOPT_PROXY_SSL_VERIFYHOST, config->verify ? 2L : 0L);
    if (config->ca_file) {
        curl_easy_setopt(easy, CURLOPT_CAINFO, config->ca_file);
        curl_easy_setopt(easy, CURLOPT_PROXY_CAINFO, config->ca_file);
    }
    if (config->certificate)
        curl_easy_setopt(easy, CURLOPT_SSLCERT, config->certificate);
    if (config->private_key)
        curl_easy_setopt(easy, CURLOPT_SSLKEY, config->private_key);
    if (config->proxy_ca_file)
        curl_easy_setopt(easy, CURLOPT_PROXY_CAINFO, config->proxy_ca_file);
    if (config->proxy_certificate)
        curl_easy_setopt(easy, CURLOPT_PROXY_SSLCERT, config->proxy_certificate);
    if (config->proxy_private_key)
        curl_easy_setopt(easy, CURLOPT_PROXY_SSLKEY, config->proxy_private_key);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, mf_response_header);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, mf_response_write);
    curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_read);
    curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, on_seek);
    curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_prerequest);
    return slot;
}

void mf_slot_free(struct mf_slot *slot) {
    curl_easy_cleanup(slot->easy);
    free(slot->arena);
    free(slot);
}

/* ---- digests of the body ---- */

/* What the headers say of the body: one pass for both, in slices that stay in the cache between them. */
static int digest_body(struct mf_xfer *xfer, int sign, char sha[MF_SHA256_HEX]) {
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
    else {
        char *slice = malloc(xfer->body_n < DIGEST_SLICE ? xfer->body_n + 1 : DIGEST_SLICE);
        if (!slice) {
            snprintf(xfer->message, sizeof xfer->message, "out of memory");
            return MF_INTERNAL;
        }
        for (at = 0; at < xfer->body_n;) {
            ssize_t got = copy_body(xfer, at, slice, DIGEST_SLICE);
            if (got < 0) {
                disk_failure(xfer, errno);
                free(slice);
                return MF_DISK;
            }
            if (xfer->crc_kind != MF_NO_CRC)
                crc = mf_crc_update((enum mf_crc_kind) xfer->crc_kind, crc, (uint8_t *) slice, (size_t) got);
            if (sign)
                mf_sha256_update(&hash, slice, (size_t) got);
            at += (size_t) got;
        }
        free(slice);
    }
    if (sign)
        mf_sha256_hex(&hash, sha);
    if (xfer->crc_kind != MF_NO_CRC) {
        xfer->has_crc = 1;
        xfer->crc = crc;
    }
    return 0;
}

/* ---- headers, path, query: all in the slot's arena, whose size is reckoned first, so that nothing in it moves ---- */

struct build {
    char *at, *end;
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
    memcpy(b->at, at, n);
    b->at += n;
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
    struct mf_text query = {b->at, 0}, rest = xfer->route->query;
    int own = 0;
    if (xfer->route->operation != MF_PART || xfer->route->whole)
        return rest;
    while (own < 2 || rest.n) {
        const char *name = own == 0 ? "partNumber=" : "uploadId=";
        size_t n = strlen(name);
        if (b->at != query.at)
            put(b, "&", 1);
        if (own < 2 && (!rest.n || memcmp(name, rest.at, n < rest.n ? n : rest.n) <= 0)) {
            if (own++ == 0)
                b->at += sprintf(b->at, "partNumber=%u", xfer->part);
            else {
                put(b, name, n);
                b->at += mf_uri_encode(xfer->upload.at, xfer->upload.n, 0, b->at, (size_t) (b->end - b->at));
            }
        } else {
            const char *stop = memchr(rest.at, '&', rest.n);
            size_t some = stop ? (size_t) (stop - rest.at) : rest.n;
            put(b, rest.at, some);
            rest.at += some + (stop != NULL);
            rest.n -= some + (stop != NULL);
        }
    }
    query.n = (size_t) (b->at - query.at);
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

static size_t room_for(const struct mf_xfer *xfer) {
    const struct mf_route *route = xfer->route;
    size_t i, names = 0, n = 3072; /* what is fixed: dates, checksums, Authorization (twice) without the names */
    size_t count = route->headers_n + xfer->extra_n + 16;
    for (i = 0; i < route->headers_n; i++) {
        n += route->headers[i].name.n + route->headers[i].value.n + 4;
        names += route->headers[i].name.n + 1;
    }
    for (i = 0; i < xfer->extra_n; i++) {
        n += xfer->extra[i].name.n + xfer->extra[i].value.n + 4;
        names += xfer->extra[i].name.n + 1;
    }
    n += 2 * names + 3 * (xfer->key.n + xfer->upload.n) + route->path.n + 2 * route->query.n + strlen(route->origin);
    n += strlen(route->host) + xfer->if_match.n;
    if (xfer->creds)
        n += 2 * xfer->creds->access_key.n + 2 * xfer->creds->token.n;
    n += count * (sizeof(struct mf_header) + sizeof(struct curl_slist));
    return n + (xfer->has_body && xfer->body_n <= TOGETHER ? xfer->body_n : 0);
}

static void set_mode(struct mf_slot *slot, const struct mf_xfer *xfer, const char *fields) {
    CURL *easy = slot->easy;
    const char *method = xfer->route->method;
    long upload_buffer;
    int mode = MODE_CUSTOM;
    if (xfer->has_body)
        mode = xfer->body_n <= TOGETHER ? MODE_FIELDS : MODE_UPLOAD;
    else if (strcmp(method, "HEAD") == 0)
        mode = MODE_HEAD;
    else if (strcmp(method, "GET") == 0)
        mode = MODE_GET;
    if (mode != slot->mode) {
        if (mode == MODE_HEAD)
            curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
        else if (mode == MODE_GET || mode == MODE_CUSTOM)
            curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
        else if (mode == MODE_FIELDS)
            curl_easy_setopt(easy, CURLOPT_POST, 1L);
        else
            curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
    }
    if (mode >= MODE_CUSTOM)
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, method);
    else if (slot->mode >= MODE_CUSTOM)
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, NULL);
    if (mode == MODE_FIELDS) {
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) xfer->body_n);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, fields);
    } else if (mode == MODE_UPLOAD) {
        curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t) xfer->body_n);
        upload_buffer = xfer->body_n >= LARGE_BODY ? SEND_BUFFER_LARGE : SEND_BUFFER;
        if (upload_buffer != slot->upload_buffer) {
            curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, upload_buffer);
            slot->upload_buffer = upload_buffer;
        }
    }
    slot->mode = mode;
}

static int no_room(struct mf_xfer *xfer, const char *message) {
    snprintf(xfer->message, sizeof xfer->message, "%s", message);
    return MF_INTERNAL;
}

int mf_request_build(struct mf_worker *worker, struct mf_xfer *xfer) {
    const struct mf_route *route = xfer->route;
    struct mf_slot *slot = xfer->slot;
    CURL *easy = slot->easy;
    struct build b;
    struct mf_text path, query, sha = {NULL, 0};
    struct curl_slist *nodes;
    char date[MF_AMZ_DATE], digest[MF_SHA256_HEX], *target;
    size_t room = room_for(xfer), i, nodes_n = 0;
    const char *fields = "";
    long buffer;
    int failure, fresh = xfer->fresh;

    if (slot->arena_size < room) {
        free(slot->arena);
        slot->arena_size = 0;
        slot->arena = malloc(room);
        if (!slot->arena)
            return no_room(xfer, "out of memory");
        slot->arena_size = room;
    }
    b.at = slot->arena;
    b.end = slot->arena + slot->arena_size;
    nodes = (struct curl_slist *) b.at;
    b.at += (route->headers_n + xfer->extra_n + 16) * sizeof *nodes;
    b.headers = (struct mf_header *) b.at;
    b.at += (route->headers_n + xfer->extra_n + 16) * sizeof *b.headers;
    b.n = 0;

    if (xfer->has_body) {
        int sign = xfer->creds && route->sign_payload;
        if (xfer->body_n && !xfer->has_crc && (sign || xfer->crc_kind != MF_NO_CRC)) {
            if ((failure = digest_body(xfer, sign, digest)) != 0)
                return failure;
            if (sign)
                sha = text_of(digest);
        } else if (xfer->crc_kind != MF_NO_CRC)
            xfer->has_crc = 1; /* of nothing: 0 */
        if (xfer->body_n && xfer->body_n <= TOGETHER) {
            if (xfer->body_fd < 0 && xfer->parts_n == 1)
                fields = (const char *) xfer->parts[0].at;
            else {
                fields = b.at;
                if (copy_body(xfer, 0, b.at, xfer->body_n) < 0) {
                    disk_failure(xfer, errno);
                    return MF_DISK;
                }
                b.at += xfer->body_n;
            }
        }
    }

    /* The request line: [origin] path encoded-key [?query]. */
    target = b.at;
    if (route->absolute)
        put(&b, route->origin, strlen(route->origin));
    path.at = b.at;
    put(&b, route->path.at, route->path.n);
    if (xfer->has_key)
        b.at += mf_uri_encode(xfer->key.at, xfer->key.n, 1, b.at, (size_t) (b.end - b.at));
    path.n = (size_t) (b.at - path.at);
    if (route->query.n || (route->operation == MF_PART && !route->whole)) {
        put(&b, "?", 1);
        query = build_query(&b, xfer);
        if (query.at == route->query.at) {
            query.at = b.at;
            put(&b, route->query.at, route->query.n);
        }
    } else
        query.at = b.at, query.n = 0;
    *b.at++ = 0;

    for (i = 0; i < route->headers_n; i++)
        b.headers[b.n++] = route->headers[i];
    for (i = 0; i < xfer->extra_n; i++)
        b.headers[b.n++] = xfer->extra[i];
    if (xfer->has_range && !route->whole) {
        if (xfer->start < 0)
            add(&b, "range", format(&b, "bytes=%" PRId64, xfer->start));
        else if (xfer->stop < 0)
            add(&b, "range", format(&b, "bytes=%" PRId64 "-", xfer->start));
        else
            add(&b, "range", format(&b, "bytes=%" PRId64 "-%" PRId64, xfer->start, xfer->stop - 1));
    }
    if (xfer->if_match.n && !route->whole)
        add(&b, "if-match", xfer->if_match);
    if (xfer->if_none_match && !route->whole)
        add(&b, "if-none-match", text_of("*"));
    if (xfer->has_body && xfer->crc_kind != MF_NO_CRC && !route->whole) {
        char value[MF_CRC_TEXT];
        mf_crc_encode((enum mf_crc_kind) xfer->crc_kind, xfer->crc, value);
        add(&b, mf_crc_headers[xfer->crc_kind], format(&b, "%s", value));
        add(&b, "x-amz-sdk-checksum-algorithm", text_of(mf_crc_names[xfer->crc_kind]));
    }
    if (xfer->creds) {
        struct mf_request request;
        const struct mf_signing_key *key;
        char *authorization;
        size_t n;
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
        sort_headers(&b);
        key = signing_key(worker, xfer, date);
        if (!key)
            return no_room(xfer, "no signing key for this region and service");
        request.method = text_of(route->method);
        request.path = path;
        request.query = query;
        request.headers = b.headers;
        request.headers_n = b.n;
        request.payload = sha;
        authorization = b.at;
        n = mf_sigv4_authorization(key, xfer->creds->access_key, date, &request, b.at, (size_t) (b.end - b.at));
        if (!n)
            return no_room(xfer, "the request could not be signed");
        b.at += n + 1;
        add(&b, "authorization", (struct mf_text){authorization, n});
    } else
        sort_headers(&b);

    for (i = 0; i < b.n; i++) {
        const struct mf_header *header = b.headers + i;
        if (header->name.n == 4 && memcmp(header->name.at, "host", 4) == 0 && !route->whole)
            continue; /* libcurl's own, which says the same */
        nodes[nodes_n].data = b.at;
        put(&b, header->name.at, header->name.n);
        if (header->value.n) {
            put(&b, ": ", 2);
            put(&b, header->value.at, header->value.n);
        } else
            put(&b, ";", 1); /* how libcurl is told of a header without value */
        *b.at++ = 0;
        nodes[nodes_n].next = nodes + nodes_n + 1;
        nodes_n++;
    }
    /* A name and nothing else: do not send it. */
    nodes[nodes_n].data = (char *) "Accept:";
    nodes[nodes_n].next = nodes + nodes_n + 1;
    nodes_n++;
    if (xfer->has_body) {
        int typed = 0;
        for (i = 0; i < b.n; i++)
            typed |= b.headers[i].name.n == 12 && memcmp(b.headers[i].name.at, "content-type", 12) == 0;
        if (!typed) {
            nodes[nodes_n].data = (char *) "Content-Type:";
            nodes[nodes_n].next = nodes + nodes_n + 1;
            nodes_n++;
        }
        nodes[nodes_n].data = (char *) "Expect:";
        nodes[nodes_n].next = nodes + nodes_n + 1;
        nodes_n++;
    }
    nodes[nodes_n - 1].next = NULL;

    set_mode(slot, xfer, fields);
    if (slot->route_id != route->id) {
        if (curl_easy_setopt(easy, CURLOPT_URL, route->origin) != CURLE_OK)
            return no_room(xfer, "out of memory");
        slot->route_id = route->id;
    }
    if (curl_easy_setopt(easy, CURLOPT_REQUEST_TARGET, target) != CURLE_OK)
        return no_room(xfer, "out of memory");
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, nodes);
    buffer = xfer->has_target && xfer->target.n > LARGE_BODY ? RECEIVE_BUFFER_LARGE : RECEIVE_BUFFER;
    if (buffer != slot->buffer) {
        curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, buffer);
        slot->buffer = buffer;
    }
    if (fresh != slot->fresh) {
        curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, (long) fresh);
        curl_easy_setopt(easy, CURLOPT_DNS_CACHE_TIMEOUT, fresh ? 0L : 30L);
        slot->fresh = fresh;
    }
    slot->error[0] = 0;
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, xfer);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, xfer);
    curl_easy_setopt(easy, CURLOPT_READDATA, xfer);
    curl_easy_setopt(easy, CURLOPT_SEEKDATA, xfer);
    curl_easy_setopt(easy, CURLOPT_PREREQDATA, xfer);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, xfer);
    return 0;
}
