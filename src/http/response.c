#include "http/worker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "crc/checksum.h"
#include "http/clock.h"

static int give_up(struct mf_xfer *xfer, int failure, int error, const char *message) {
    xfer->failure = failure;
    xfer->error = error;
    snprintf(xfer->message, sizeof xfer->message, "%s", message);
    return 0;
}

/* ---- headers ---- */

/* The value of the first header of this (lower-case) name, or no text at all. */
static struct mf_text field(const struct mf_xfer *xfer, const char *name) {
    const char *at = xfer->head, *end = at + xfer->head_n;
    size_t n = strlen(name);
    struct mf_text value = {NULL, 0};
    while (at < end) {
        const char *stop = memchr(at, '\n', (size_t) (end - at));
        if (!stop)
            break;
        if ((size_t) (stop - at) > n && at[n] == ':' && strncasecmp(at, name, n) == 0) {
            at += n + 1;
            while (stop > at && (stop[-1] == '\r' || stop[-1] == ' ' || stop[-1] == '\t'))
                stop--;
            while (at < stop && (*at == ' ' || *at == '\t'))
                at++;
            value.at = at;
            value.n = (size_t) (stop - at);
            return value;
        }
        at = stop + 1;
    }
    return value;
}

static int64_t number(struct mf_text text) {
    int64_t value = 0;
    size_t i;
    if (!text.n || text.n > 18)
        return -1;
    for (i = 0; i < text.n; i++) {
        if (text.at[i] < '0' || text.at[i] > '9')
            return -1;
        value = value * 10 + (text.at[i] - '0');
    }
    return value;
}

/* Of a whole object that came with its checksum: which one to compute while it lands. "abc=-3" is one over the
 * checksums of three parts, which the bytes alone do not give. */
static void choose_checksum(struct mf_xfer *xfer) {
    int kind;
    struct mf_text type = field(xfer, "x-amz-checksum-type");
    if (type.n == 9 && strncasecmp(type.at, "COMPOSITE", 9) == 0)
        return;
    for (kind = 0; kind < MF_CRC_KINDS; kind++) {
        struct mf_text value = field(xfer, mf_crc_headers[kind]);
        if (value.n && !memchr(value.at, '-', value.n)) {
            xfer->crc_kind = kind;
            return;
        }
    }
}

/* The service has ignored the range. Without leave to cut it out, nothing is written to the target. */
static void whole_for_range(struct mf_xfer *xfer) {
    if (!xfer->cut || xfer->start < 0) {
        give_up(xfer, MF_WHOLE, 0, "the whole object came for a range of it");
        return;
    }
    xfer->skip = xfer->start;
    xfer->wanted_bytes = xfer->stop < 0 ? -1 : xfer->stop - xfer->start;
}

static void head_complete(struct mf_xfer *xfer) {
    int whole = xfer->status == 200 && xfer->route->operation == MF_GET && !xfer->has_range;
    xfer->head_done = 1;
    xfer->length = number(field(xfer, "content-length"));
    if (whole) {
        xfer->crc_kind = MF_NO_CRC;
        choose_checksum(xfer);
    }
    if (xfer->route->operation == MF_GET)
        xfer->has_crc = xfer->status / 100 == 2 && xfer->crc_kind != MF_NO_CRC;
    if (xfer->status == 200 && xfer->has_range && xfer->has_target && xfer->length != 0 &&
        !field(xfer, "content-range").at)
        whole_for_range(xfer);
}

size_t mf_response_header(char *line, size_t size, size_t count, void *arg) {
    struct mf_xfer *xfer = arg;
    size_t n = size * count;
    if (n > 9 && memcmp(line, "HTTP/", 5) == 0 && (!xfer->head_done || xfer->status < 200)) {
        /* Of an interim response or a new one after libcurl had to begin anew: only the last counts. */
        const char *blank = memchr(line, ' ', n);
        xfer->head_n = 0;
        xfer->head_done = 0;
        xfer->status = 0;
        if (blank && blank + 3 < line + n)
            xfer->status = (blank[1] - '0') * 100 + (blank[2] - '0') * 10 + (blank[3] - '0');
        if (!xfer->first_ns && xfer->status >= 200) /* interim responses, however many, are no answer */
            xfer->first_ns = xfer->progress_ns = mf_now_ns();
        return n;
    }
    if (xfer->head_done || xfer->status < 200)
        return n; /* trailers; headers of an interim response */
    if (n <= 2 && (line[0] == '\r' || line[0] == '\n')) {
        head_complete(xfer);
        return xfer->failure ? 0 : n;
    }
    if (xfer->head_n + n > xfer->head_room) {
        size_t room = xfer->head_room ? 2 * xfer->head_room : 1024;
        char *grown;
        while (room < xfer->head_n + n)
            room *= 2;
        if (room > MF_HEAD_MAX)
            return (size_t) give_up(xfer, MF_PROTOCOL, 0, "the headers do not end");
        grown = realloc(xfer->head, room);
        if (!grown)
            return (size_t) give_up(xfer, MF_INTERNAL, 0, "out of memory");
        xfer->head = grown;
        xfer->head_room = room;
    }
    memcpy(xfer->head + xfer->head_n, line, n);
    xfer->head_n += n;
    return n;
}

/* ---- the body ---- */

static int keep(struct mf_xfer *xfer, const char *data, size_t n) {
    if (xfer->data_n + n > xfer->data_room) {
        size_t room = xfer->data_room ? 2 * xfer->data_room : 16384;
        uint8_t *grown;
        if (!xfer->data_room && xfer->length >= (int64_t) n && (uint64_t) xfer->length <= MF_ANNOUNCED_ABOVE)
            room = (size_t) xfer->length;
        while (room < xfer->data_n + n)
            room *= 2;
        grown = realloc(xfer->data, room);
        if (!grown)
            return give_up(xfer, MF_INTERNAL, 0, "out of memory");
        xfer->data = grown;
        xfer->data_room = room;
    }
    memcpy(xfer->data + xfer->data_n, data, n);
    xfer->data_n += n;
    return 1;
}

static int land(struct mf_xfer *xfer, const char *data, size_t n) {
    int reached = 0;
    if (xfer->wanted_bytes >= 0 && n >= (size_t) xfer->wanted_bytes - xfer->received) {
        n = (size_t) xfer->wanted_bytes - xfer->received;
        /* At the very end anyway: then let libcurl keep the connection. */
        reached = xfer->skip + xfer->wanted_bytes != xfer->length;
    }
    if (n > xfer->target.n - xfer->received)
        return give_up(xfer, MF_OVERFLOW, 0, "more bytes than the target holds");
    if (xfer->target.fd >= 0) {
        size_t done = 0;
        while (done < n) {
            off_t at = (off_t) (xfer->target.offset + (int64_t) (xfer->received + done));
            ssize_t written = pwrite(xfer->target.fd, data + done, n - done, at);
            if (written < 0 && errno == EINTR)
                continue;
            if (written <= 0) {
                int code = written < 0 ? errno : ENOSPC;
                return give_up(xfer, MF_DISK, code, strerror(code));
            }
            done += (size_t) written;
        }
    } else
        memcpy(xfer->target.at + xfer->received, data, n);
    xfer->received += n;
    xfer->stopped |= reached;
    return !reached;
}

static size_t hold(struct mf_xfer *xfer) {
    xfer->paused = 1;
    mf_announce(xfer);
    return CURL_WRITEFUNC_PAUSE;
}

static void begin(struct mf_xfer *xfer) {
    xfer->begun = 1;
    if (xfer->status / 100 != 2)
        xfer->sink = MF_SINK_ERROR;
    else
        xfer->sink = xfer->has_target ? MF_SINK_TARGET : MF_SINK_SMALL;
}

/* How many of the next n bytes are of those before what is wanted. */
static size_t pass_over(struct mf_xfer *xfer, size_t n) {
    int64_t left = xfer->skip - xfer->skipped;
    size_t some = left < (int64_t) n ? (size_t) left : n;
    xfer->skipped += (int64_t) some;
    return some;
}

size_t mf_response_write(char *data, size_t size, size_t count, void *arg) {
    struct mf_xfer *xfer = arg;
    size_t n = size * count, limit, passed = 0;
    if (xfer->failure || xfer->stopped)
        return 0;
    /* A body that trickles is as dead as one that stands still. Not so the replies to what is no question: S3 sends a
     * blank now and then while it puts an upload together or copies an object. */
    xfer->trickled += n;
    if (xfer->trickled >= MF_STALL_BYTES ||
        (xfer->route->operation != MF_GET && strcmp(xfer->route->method, "GET") != 0)) {
        xfer->progress_ns = mf_now_ns();
        xfer->trickled = 0;
    }
    if (!xfer->begun)
        begin(xfer);
    if (xfer->sink == MF_SINK_ERROR) {
        limit = MF_ERROR_BODY - xfer->data_n;
        if (!keep(xfer, data, n < limit ? n : limit))
            return 0;
        xfer->stopped = n > limit; /* nobody reads the rest of such a body */
        return xfer->stopped ? 0 : n;
    }
    if (xfer->sink == MF_SINK_SMALL) {
        if (xfer->route->operation == MF_GET) {
            if (xfer->length > (int64_t) MF_ANNOUNCED_ABOVE || xfer->data_n + n > MF_ANNOUNCED_ABOVE)
                return hold(xfer);
        } else if (xfer->data_n + n > MF_REPLY_MAX)
            return (size_t) give_up(xfer, MF_OVERFLOW, 0, "the reply does not end");
    }
    if (xfer->sink == MF_SINK_TARGET && xfer->skipped < xfer->skip) {
        passed = pass_over(xfer, n);
        if (passed == n)
            return n;
        data += passed;
        n -= passed;
    }
    if (xfer->has_crc && xfer->route->operation == MF_GET) {
        size_t some = n;
        if (xfer->wanted_bytes >= 0 && some > (size_t) xfer->wanted_bytes - xfer->received)
            some = (size_t) xfer->wanted_bytes - xfer->received;
        /* Before the copy: the bytes are in the cache, and the copy evicts none of them before their time. */
        xfer->crc = mf_crc_update((enum mf_crc_kind) xfer->crc_kind, xfer->crc, (const uint8_t *) data, some);
    }
    if (xfer->sink == MF_SINK_SMALL)
        return keep(xfer, data, n) ? n : 0;
    return land(xfer, data, n) ? passed + n : 0;
}

void mf_response_resume(struct mf_xfer *xfer) {
    size_t n = xfer->data_n, passed = pass_over(xfer, n);
    uint8_t *data = xfer->data, *wanted = data + passed;
    xfer->sink = MF_SINK_TARGET;
    xfer->has_target = 1;
    xfer->data = NULL;
    xfer->data_n = xfer->data_room = 0;
    n -= passed;
    if (xfer->has_crc && (passed || (xfer->wanted_bytes >= 0 && n > (size_t) xfer->wanted_bytes))) {
        size_t some = xfer->wanted_bytes >= 0 && n > (size_t) xfer->wanted_bytes ? (size_t) xfer->wanted_bytes : n;
        xfer->crc = mf_crc_update((enum mf_crc_kind) xfer->crc_kind, 0, wanted, some);
    }
    if (n)
        land(xfer, (const char *) wanted, n); /* what it says is heeded when the held bytes come again, as they must */
    else if (xfer->wanted_bytes == 0)
        xfer->stopped = 1;
    free(data);
}

/* ---- the end ---- */

/* The one place where libcurl's codes become those of engine.h. */
static int failure_of(struct mf_xfer *xfer, CURLcode code) {
    const char *text = xfer->message;
    int proxy = xfer->worker->engine->config.proxy != NULL;
    long proxy_status = 0;
    curl_easy_getinfo(xfer->slot->easy, CURLINFO_HTTP_CONNECTCODE, &proxy_status);
    switch (code) {
    case CURLE_OK:
        return MF_FINE;
    case CURLE_COULDNT_RESOLVE_HOST:
        return MF_DNS;
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_PROXY:
        return MF_PROXY;
    case CURLE_COULDNT_CONNECT:
        return proxy ? MF_PROXY : MF_CONNECT;
    case CURLE_OPERATION_TIMEDOUT: /* no other time-out is set than the one for connecting */
        return MF_CONNECT;
    case CURLE_SSL_CONNECT_ERROR:
        /* Both what the peer objects to and what broke underneath. Only the text tells (7.88 keeps no errno here): a
         * system call failed, or the peer hung up without an alert. A certificate that does not hold has a code of
         * its own. */
        if (strstr(text, "SSL_ERROR_SYSCALL") || strstr(text, "reset by peer") || strstr(text, "unexpected eof") ||
            strstr(text, "Broken pipe"))
            return MF_RESET;
        return MF_TLS;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CRL_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_INVALIDCERTSTATUS:
    case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
    case CURLE_SSL_ENGINE_NOTFOUND:
    case CURLE_SSL_ENGINE_SETFAILED:
    case CURLE_SSL_ENGINE_INITFAILED:
    case CURLE_USE_SSL_FAILED:
    case CURLE_SSL_CLIENTCERT:
        return MF_TLS;
    case CURLE_RECV_ERROR:
        if (proxy_status && proxy_status / 100 != 2)
            return MF_PROXY;
        return strstr(text, "chunk") ? MF_PROTOCOL : MF_RESET;
    case CURLE_SEND_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_FAIL_REWIND:
    case CURLE_SSL_SHUTDOWN_FAILED:
    case CURLE_ABORTED_BY_CALLBACK: /* a second sending that must not be: see on_prerequest */
        return MF_RESET;
    case CURLE_PARTIAL_FILE:
        return MF_TRUNCATED;
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_BAD_CONTENT_ENCODING:
    case CURLE_WRITE_ERROR: /* one of ours has set its failure; else libcurl did not like what it decoded */
    case CURLE_FILESIZE_EXCEEDED:
        return MF_PROTOCOL;
    default:
        return MF_INTERNAL;
    }
}

void mf_response_end(struct mf_xfer *xfer, CURLcode code) {
    CURL *easy = xfer->slot->easy;
    long connects = 0, os_error = 0;
    curl_easy_getinfo(easy, CURLINFO_NUM_CONNECTS, &connects);
    xfer->reused = connects == 0 || code == CURLE_ABORTED_BY_CALLBACK;
    if (xfer->stopped && !xfer->failure)
        code = CURLE_OK;
    if (xfer->failure == MF_FINE && code != CURLE_OK) {
        curl_easy_getinfo(easy, CURLINFO_OS_ERRNO, &os_error);
        const char *words = xfer->slot->error[0] ? xfer->slot->error : curl_easy_strerror(code);
        snprintf(xfer->message, sizeof xfer->message, "%.*s", (int) sizeof xfer->message - 1, words);
        xfer->failure = failure_of(xfer, code);
        xfer->error = (int) os_error;
    } else if (code == CURLE_OK && !xfer->failure && !xfer->head_done)
        give_up(xfer, MF_PROTOCOL, 0, "no response");
}
