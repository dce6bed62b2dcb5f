#include "http/plain.h"

#include <string.h>

#include "crc/checksum.h"
#include "http/google.h"

enum { ETAG, LENGTH, RANGE, CODING, TYPE, HASH, STORED, CRC, FIELDS = CRC + MF_CRC_KINDS };

struct fields {
    struct mf_text of[FIELDS]; /* at NULL: not there */
};

static int same(const char *at, const char *name, size_t n) {
    size_t i;
    for (i = 0; i < n; i++) {
        char c = at[i];
        if (c >= 'A' && c <= 'Z')
            c = (char) (c + 32);
        if (c != name[i])
            return 0;
    }
    return 1;
}

/* Which field a header's name is; FIELDS for one that says nothing here. */
static int field_of(const char *at, size_t n) {
    switch (n) {
    case 4:
        return same(at, "etag", n) ? ETAG : FIELDS;
    case 13:
        return same(at, "content-range", n) ? RANGE : FIELDS;
    case 14:
        return same(at, "content-length", n) ? LENGTH : FIELDS;
    case 17:
        return same(at, "transfer-encoding", n) ? CODING : FIELDS;
    case 19:
        return same(at, "x-amz-checksum-type", n) ? TYPE : FIELDS;
    case 20:
        return same(at, "x-amz-checksum-crc32", n) ? CRC + MF_CRC32 : FIELDS;
    case 21:
        return same(at, "x-amz-checksum-crc32c", n) ? CRC + MF_CRC32C : FIELDS;
    case 24:
        return same(at, "x-amz-checksum-crc64nvme", n) ? CRC + MF_CRC64NVME : FIELDS;
    default:
        return FIELDS;
    }
}

static int blank(char c) {
    return c == ' ' || c == '\t';
}

/* The same where Google answers: what conditions take is the generation, and its checksums have a header of their
 * own. */
static int google_field_of(const char *at, size_t n) {
    switch (n) {
    case 4:
        return FIELDS;
    case 11:
        return same(at, "x-goog-hash", n) ? HASH : FIELDS;
    case 17:
        return same(at, "x-goog-generation", n) ? ETAG : field_of(at, n);
    case 30:
        return same(at, "x-goog-stored-content-encoding", n) ? STORED : FIELDS;
    default:
        return field_of(at, n);
    }
}

/* 0: a line is folded or no header, or a field comes twice. */
static int read_fields(const char *at, size_t n, enum mf_dialect dialect, struct fields *found) {
    const char *end = at + n;
    memset(found, 0, sizeof *found);
    while (at < end) {
        const char *stop = memchr(at, '\n', (size_t) (end - at)), *colon;
        struct mf_text *field, crc;
        int which;
        if (!stop || stop == at || stop[-1] != '\r' || blank(*at))
            return 0;
        colon = memchr(at, ':', (size_t) (stop - at));
        if (!colon || colon == at || blank(colon[-1]))
            return 0;
        which = dialect == MF_GOOGLE ? google_field_of(at, (size_t) (colon - at)) : field_of(at, (size_t) (colon - at));
        if (which < FIELDS) {
            field = &found->of[which];
            if (field->at && which != HASH)
                return 0;
            field->at = colon + 1;
            field->n = (size_t) (stop - 1 - field->at);
            while (field->n && blank(field->at[0]))
                field->at++, field->n--;
            while (field->n && blank(field->at[field->n - 1]))
                field->n--;
            if (which == HASH && mf_google_crc32c(field->at, field->n, &crc)) {
                if (found->of[CRC + MF_CRC32C].at)
                    return 0;
                found->of[CRC + MF_CRC32C] = crc;
            }
        }
        at = stop + 1;
    }
    return 1;
}

/* A number of at most 18 digits without leading zeros; moves *at behind it. -1 for none. */
static int64_t number(const char **at, const char *end) {
    const char *begin = *at, *here = begin;
    int64_t value = 0;
    while (here < end && *here >= '0' && *here <= '9' && here - begin < 19)
        value = value * 10 + (*here++ - '0');
    *at = here;
    return here == begin || here - begin > 18 || (*begin == '0' && here - begin > 1) ? -1 : value;
}

static int64_t whole_number(struct mf_text text) {
    const char *at = text.at, *end = at + text.n;
    int64_t value = text.at ? number(&at, end) : -1;
    return at == end ? value : -1;
}

/* "bytes 0-9/20" is what was asked for, and n bytes. */
static int is_range(const struct mf_xfer *xfer, struct mf_text text, size_t n) {
    const char *at = text.at, *end = at + text.n;
    int64_t first, last, total, start, stop;
    if (!at || text.n < 6 || memcmp(at, "bytes ", 6) != 0)
        return 0;
    at += 6;
    first = number(&at, end);
    if (first < 0 || at == end || *at++ != '-')
        return 0;
    last = number(&at, end);
    if (last < first || at == end || *at++ != '/')
        return 0;
    total = number(&at, end);
    if (total <= last || at != end)
        return 0;
    start = xfer->start;
    if (start < 0)
        start = total + start < 0 ? 0 : total + start;
    stop = xfer->stop < 0 || xfer->stop > total ? total : xfer->stop;
    if (xfer->has_target && stop != xfer->stop)
        return 0;
    return first == start && last + 1 == stop && (uint64_t) (stop - start) == (uint64_t) n;
}

/* Nothing is named, or what is named is what was computed. */
static int is_undamaged(const struct mf_xfer *xfer, const struct fields *fields, struct mf_plain *found) {
    const struct mf_text *type = &fields->of[TYPE];
    int kind;
    if (type->at && (type->n != 11 || memcmp(type->at, "FULL_OBJECT", 11) != 0))
        return 0;
    for (kind = 0; kind < MF_CRC_KINDS; kind++) {
        const struct mf_text *value = &fields->of[CRC + kind];
        char text[MF_CRC_TEXT];
        if (!value->at)
            continue;
        if (!xfer->has_crc || xfer->crc_kind != kind ||
            value->n != mf_crc_encode((enum mf_crc_kind) kind, xfer->crc, text) ||
            memcmp(value->at, text, value->n) != 0)
            return 0;
        found->verified = 1;
        return 1;
    }
    return 1;
}

static int is_good_get(const struct mf_xfer *xfer, int verify, const struct fields *fields, struct mf_plain *found) {
    const struct mf_text *stored = &fields->of[STORED];
    size_t n = xfer->received;
    if (stored->at && (stored->n != 8 || !same(stored->at, "identity", 8)))
        return 0; /* what is stored may be other bytes than came */
    if (fields->of[CODING].at || found->length < 0 || (uint64_t) found->length != (uint64_t) n ||
        (!xfer->has_target && xfer->data_n != n))
        return 0;
    if (xfer->has_range)
        return xfer->status == 206 && is_range(xfer, fields->of[RANGE], n);
    return xfer->status == 200 && !fields->of[RANGE].at && (!verify || is_undamaged(xfer, fields, found));
}

int mf_plain_key(const char *at, size_t n) {
    size_t i;
    if (!n)
        return 0;
    for (i = 0; i < n; i++) {
        char c = at[i];
        if (c < 32 || c > 126 || c == '\\' ||
            (c == '.' && (!i || at[i - 1] == '/' || i + 1 == n || at[i + 1] == '/')) ||
            (c == ':' && n - i > 2 && at[i + 1] == '/' && at[i + 2] == '/'))
            return 0;
    }
    return 1;
}

int mf_plain_reply(const struct mf_xfer *xfer, int verify, struct mf_plain *found) {
    struct fields fields;
    struct mf_text *etag = &found->etag;
    size_t i;
    if (xfer->failure || xfer->status / 100 != 2 ||
        !read_fields(xfer->head, xfer->head_n, xfer->route->dialect, &fields))
        return 0;
    *etag = fields.of[ETAG];
    if (!etag->at)
        return 0;
    while (etag->n && etag->at[0] == '"')
        etag->at++, etag->n--;
    while (etag->n && etag->at[etag->n - 1] == '"')
        etag->n--;
    for (i = 0; i < etag->n; i++)
        if ((unsigned char) etag->at[i] > 126)
            return 0;
    found->verified = 0;
    found->length = whole_number(fields.of[LENGTH]);
    switch (xfer->route->operation) {
    case MF_GET:
        return is_good_get(xfer, verify, &fields, found);
    case MF_HEAD:
        return xfer->status == 200 && found->length >= 0;
    case MF_PUT:
        return 1;
    default:
        return 0;
    }
}
