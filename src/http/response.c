#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "crc/checksum.h"
#include "http/clock.h"
#include "http/google.h"
#include "http/worker.h"

/* A body is received straight to its place from so many bytes on. What is shorter comes by way of the worker's buffer,
 * which has room for what follows too. Copying 16 KiB takes 0.5 us, as much as a system call. */
#ifndef STRAIGHT_FROM
#define STRAIGHT_FROM ((size_t) 16 << 10)
#endif

enum mf_verdict mf_give_up(struct mf_xfer *xfer, int failure, int error, const char *message) {
    xfer->failure = failure;
    xfer->error = error;
    if (message != xfer->message)
        snprintf(xfer->message, sizeof xfer->message, "%s", message);
    return MF_FAILED;
}

/* ---- headers ---- */

struct said {
    int crc[MF_CRC_KINDS]; /* a checksum over all bytes is there */
    int composite, content_range;
};

static int is(const char *at, size_t n, const char *name) {
    return n == strlen(name) && strncasecmp(at, name, n) == 0;
}

/* "abc=-3" is a checksum over the checksums of three parts, which the bytes alone do not give. Of repeated headers the
 * first counts. */
static struct said look(const char *at, size_t n, int google) {
    const char *end = at + n;
    struct said said = {{0}, 0, 0};
    int seen[MF_CRC_KINDS] = {0}, typed = 0, kind;
    struct mf_text named;
    while (at < end) {
        const char *stop = memchr(at, '\n', (size_t) (end - at)), *colon, *value, *last;
        if (!stop)
            stop = end;
        /* Only these names count here, "content-range", "x-amz-checksum-…" and Google's "x-goog-hash": a look at two
         * letters spares the rest. */
        if (stop - at > 14 &&
            ((at[0] | 32) == 'x' ? (at[6] | 32) == 'c' || google : (at[0] | 32) == 'c' && (at[8] | 32) == 'r') &&
            (colon = memchr(at, ':', (size_t) (stop - at))) != NULL) {
            size_t length = (size_t) (colon - at);
            for (value = colon + 1; value < stop && (*value == ' ' || *value == '\t'); value++) {
            }
            for (last = stop; last > value && (last[-1] == '\r' || last[-1] == ' ' || last[-1] == '\t'); last--) {
            }
            if (is(at, length, "content-range"))
                said.content_range = 1;
            else if (google && is(at, length, "x-goog-hash"))
                said.crc[MF_CRC32C] |= mf_google_crc32c(value, (size_t) (last - value), &named);
            else if (is(at, length, "x-amz-checksum-type")) {
                if (!typed++)
                    said.composite = is(value, (size_t) (last - value), "COMPOSITE");
            } else
                for (kind = 0; kind < MF_CRC_KINDS; kind++)
                    if (is(at, length, mf_crc_headers[kind]) && !seen[kind]++)
                        said.crc[kind] = last > value && !memchr(value, '-', (size_t) (last - value));
        }
        at = stop + 1;
    }
    return said;
}

/* The service has ignored the range. Without leave to cut it out, nothing is written to the target. */
static enum mf_verdict whole_for_range(struct mf_xfer *xfer) {
    if (!xfer->cut || xfer->start < 0)
        return mf_give_up(xfer, MF_WHOLE, 0, "the whole object came for a range of it");
    xfer->skip = xfer->start;
    xfer->wanted_bytes = xfer->stop < 0 ? -1 : xfer->stop - xfer->start;
    return MF_ON;
}

static enum mf_verdict hold(struct mf_xfer *xfer) {
    xfer->paused = 1;
    mf_announce(xfer);
    return MF_HOLD;
}

enum mf_verdict mf_response_head(struct mf_xfer *xfer, const struct mf_head *head, const char *fields) {
    int good = head->status / 100 == 2, kind;
    struct said said;
    xfer->status = head->status;
    xfer->head_done = 1;
    xfer->length = head->length;
    xfer->first_ns = xfer->progress_ns = mf_now_ns();
    xfer->head = malloc(head->fields_n + 1);
    if (!xfer->head)
        return mf_give_up(xfer, MF_INTERNAL, 0, "out of memory");
    memcpy(xfer->head, fields, head->fields_n);
    xfer->head_n = head->fields_n;
    if (!good)
        xfer->sink = MF_SINK_ERROR;
    else
        xfer->sink = xfer->has_target ? MF_SINK_TARGET : MF_SINK_SMALL;
    if (xfer->route->operation != MF_GET)
        return MF_ON;
    if (good) {
        said = look(xfer->head, xfer->head_n, xfer->route->dialect == MF_GOOGLE);
        if (xfer->status == 200 && !xfer->has_range) {
            /* Of a whole object that came with its checksum: which one to compute while it lands. */
            xfer->crc_kind = MF_NO_CRC;
            if (!said.composite)
                for (kind = MF_CRC_KINDS - 1; kind >= 0; kind--)
                    if (said.crc[kind])
                        xfer->crc_kind = kind;
        }
        xfer->has_crc = xfer->crc_kind != MF_NO_CRC;
        if (xfer->status == 200 && xfer->has_range && xfer->has_target && xfer->length != 0 && !said.content_range)
            return whole_for_range(xfer);
        if (xfer->sink == MF_SINK_SMALL && xfer->length > (int64_t) MF_ANNOUNCED_ABOVE &&
            head->framing == MF_FRAMING_LENGTH)
            return hold(xfer);
    } else
        xfer->has_crc = 0;
    return MF_ON;
}

/* ---- the body ---- */

/* A body that trickles is as dead as one that stands still. Not so the replies to what is no question: S3 sends a blank
 * now and then while it puts an upload together or copies an object. */
static void progress(struct mf_xfer *xfer, size_t n) {
    xfer->trickled += n;
    if (xfer->trickled >= MF_STALL_BYTES ||
        (xfer->route->operation != MF_GET && strcmp(xfer->route->method, "GET") != 0)) {
        xfer->progress_ns = mf_now_ns();
        xfer->trickled = 0;
    }
}

static enum mf_verdict keep(struct mf_xfer *xfer, const uint8_t *data, size_t n) {
    if (xfer->data_n + n > xfer->data_room) {
        size_t room = xfer->data_room ? 2 * xfer->data_room : 16384;
        uint8_t *grown;
        if (!xfer->data_room && xfer->length >= (int64_t) n && (uint64_t) xfer->length <= MF_ANNOUNCED_ABOVE)
            room = (size_t) xfer->length;
        while (room < xfer->data_n + n)
            room *= 2;
        grown = realloc(xfer->data, room);
        if (!grown)
            return mf_give_up(xfer, MF_INTERNAL, 0, "out of memory");
        xfer->data = grown;
        xfer->data_room = room;
    }
    memcpy(xfer->data + xfer->data_n, data, n);
    xfer->data_n += n;
    return MF_ON;
}

/* What is kept of a body whose length nobody said. */
static enum mf_verdict within(struct mf_xfer *xfer) {
    if (xfer->route->operation == MF_GET)
        return xfer->data_n > MF_ANNOUNCED_ABOVE ? hold(xfer) : MF_ON;
    if (xfer->data_n > MF_REPLY_MAX)
        return mf_give_up(xfer, MF_OVERFLOW, 0, "the reply does not end");
    return MF_ON;
}

static void digest(struct mf_xfer *xfer, const uint8_t *data, size_t n) {
    if (xfer->has_crc && xfer->route->operation == MF_GET)
        xfer->crc = mf_crc_update((enum mf_crc_kind) xfer->crc_kind, xfer->crc, data, n);
}

/* Whether what is wanted is there and the body goes on. At its very end anyway the connection is kept. */
static enum mf_verdict reached(struct mf_xfer *xfer) {
    if (xfer->wanted_bytes < 0 || xfer->received < (size_t) xfer->wanted_bytes ||
        xfer->skip + xfer->wanted_bytes == xfer->length)
        return MF_ON;
    xfer->stopped = 1;
    return MF_ENOUGH;
}

/* fresh: its checksum is not computed yet. */
static enum mf_verdict land(struct mf_xfer *xfer, const uint8_t *data, size_t n, int fresh) {
    if (xfer->wanted_bytes >= 0 && n > (size_t) xfer->wanted_bytes - xfer->received)
        n = (size_t) xfer->wanted_bytes - xfer->received;
    if (n > xfer->target.n - xfer->received)
        return mf_give_up(xfer, MF_OVERFLOW, 0, "more bytes than the target holds");
    /* Before the copy: the bytes are in the cache, and the copy evicts none of them before their time. */
    if (fresh)
        digest(xfer, data, n);
    if (xfer->target.fd >= 0) {
        size_t done = 0;
        while (done < n) {
            off_t at = (off_t) (xfer->target.offset + (int64_t) (xfer->received + done));
            ssize_t written = pwrite(xfer->target.fd, data + done, n - done, at);
            if (written < 0 && errno == EINTR)
                continue;
            if (written <= 0) {
                int code = written < 0 ? errno : ENOSPC;
                return mf_give_up(xfer, MF_DISK, code, strerror(code));
            }
            done += (size_t) written;
        }
    } else
        memcpy(xfer->target.at + xfer->received, data, n);
    xfer->received += n;
    mf_xfer_flow(xfer, xfer->received);
    return reached(xfer);
}

/* How many of the next n bytes are of those before what is wanted. */
static size_t pass_over(struct mf_xfer *xfer, size_t n) {
    int64_t left = xfer->skip - xfer->skipped;
    size_t some = left < (int64_t) n ? (size_t) left : n;
    xfer->skipped += (int64_t) some;
    return some;
}

enum mf_verdict mf_response_body(struct mf_xfer *xfer, const uint8_t *data, size_t n) {
    enum mf_verdict verdict;
    size_t passed;
    progress(xfer, n);
    if (xfer->sink == MF_SINK_ERROR) {
        size_t limit = MF_ERROR_BODY - xfer->data_n;
        verdict = keep(xfer, data, n < limit ? n : limit);
        if (verdict == MF_ON && n > limit) {
            xfer->stopped = 1; /* nobody reads the rest of such a body */
            return MF_ENOUGH;
        }
        return verdict;
    }
    if (xfer->sink == MF_SINK_SMALL) {
        digest(xfer, data, n);
        verdict = keep(xfer, data, n);
        return verdict == MF_ON ? within(xfer) : verdict;
    }
    passed = xfer->skipped < xfer->skip ? pass_over(xfer, n) : 0;
    return passed == n ? MF_ON : land(xfer, data + passed, n - passed, 1);
}

uint8_t *mf_response_room(struct mf_xfer *xfer, uint64_t straight, size_t *n) {
    size_t room;
    uint8_t *at;
    if (straight < STRAIGHT_FROM)
        return NULL;
    if (xfer->sink == MF_SINK_TARGET && xfer->target.fd < 0 && xfer->skipped == xfer->skip) {
        room = xfer->target.n - xfer->received;
        if (xfer->wanted_bytes >= 0 && (size_t) xfer->wanted_bytes - xfer->received < room)
            room = (size_t) xfer->wanted_bytes - xfer->received;
        at = xfer->target.at + xfer->received;
    } else if (xfer->sink == MF_SINK_SMALL) {
        if (!xfer->data && xfer->length > 0 && (uint64_t) xfer->length <= MF_ANNOUNCED_ABOVE &&
            (xfer->data = malloc((size_t) xfer->length)) != NULL)
            xfer->data_room = (size_t) xfer->length;
        if (!xfer->data)
            return NULL;
        room = xfer->data_room - xfer->data_n;
        at = xfer->data + xfer->data_n;
    } else
        return NULL;
    *n = straight < room ? (size_t) straight : room;
    return *n < STRAIGHT_FROM ? NULL : at;
}

enum mf_verdict mf_response_landed(struct mf_xfer *xfer, size_t n) {
    progress(xfer, n);
    if (xfer->sink == MF_SINK_SMALL) {
        digest(xfer, xfer->data + xfer->data_n, n);
        xfer->data_n += n;
        return within(xfer);
    }
    digest(xfer, xfer->target.at + xfer->received, n);
    xfer->received += n;
    mf_xfer_flow(xfer, xfer->received);
    return reached(xfer);
}

enum mf_verdict mf_response_resume(struct mf_xfer *xfer) {
    size_t n = xfer->data_n, passed = pass_over(xfer, n);
    uint8_t *data = xfer->data;
    enum mf_verdict verdict = MF_ON;
    int anew;
    xfer->sink = MF_SINK_TARGET;
    xfer->has_target = 1;
    xfer->data = NULL;
    xfer->data_n = xfer->data_room = 0;
    n -= passed;
    /* The checksum so far is of all that had come. */
    anew = passed || (xfer->wanted_bytes >= 0 && n > (size_t) xfer->wanted_bytes);
    if (anew)
        xfer->crc = 0;
    if (n)
        verdict = land(xfer, data + passed, n, anew);
    else if (xfer->wanted_bytes == 0) {
        xfer->stopped = 1;
        verdict = MF_ENOUGH;
    }
    free(data);
    return verdict;
}
