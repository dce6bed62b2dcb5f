/* The reader of HTTP responses, in one piece and in others, against a slow reading of the whole. fuzz/run makes the
 * limits small enough to be reached. */
#include "http/parser.h"
#include "fuzzing.h"

/* What was read of a stream, behind which the connection ended. */
struct reading {
    enum mf_http code;
    struct mf_head head; /* the last one, if it is complete */
    size_t begin;        /* of the body, in the stream; 0: there is none */
    uint8_t *payload;
    size_t payload_n, end;
};

/* ---- the slow reading: from the whole, line by line, byte by byte ---- */

static int control(uint8_t c) {
    return c == 127 || (c < 32 && c != 9);
}

static int digit(uint8_t c) {
    return c >= '0' && c <= '9';
}

static int letter(uint8_t c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static int named(uint8_t c) {
    return c && (c >= 0x80 || digit(c) || letter(c) || strchr("!#$%&'*+-.^_`|~", c));
}

static int same(const uint8_t *at, size_t n, const char *word) {
    if (n != strlen(word))
        return 0;
    for (size_t i = 0; i < n; i++)
        if ((letter(at[i]) ? at[i] | 32 : at[i]) != word[i])
            return 0;
    return 1;
}

static int any_control(const uint8_t *at, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (control(at[i]))
            return 1;
    return 0;
}

static void trim(const uint8_t **at, size_t *n) {
    while (*n && (**at == ' ' || **at == '\t'))
        ++*at, --*n;
    while (*n && ((*at)[*n - 1] == ' ' || (*at)[*n - 1] == '\t'))
        --*n;
}

struct slow {
    int status, minor, chunked, close, keep;
    __int128 length;
};

static enum mf_http slow_status(const uint8_t *line, size_t n, struct slow *slow) {
    if (n < 8 || memcmp(line, "HTTP/1.", 7) || (line[7] != '0' && line[7] != '1'))
        return MF_HTTP_VERSION;
    if (n < 12 || line[8] != ' ' || (n > 12 && line[12] != ' ') || any_control(line, n))
        return MF_HTTP_STATUS;
    for (int i = 9; i < 12; i++) {
        if (!digit(line[i]))
            return MF_HTTP_STATUS;
        slow->status = slow->status * 10 + line[i] - '0';
    }
    slow->minor = line[7] - '0';
    if (slow->status < 100 || slow->status >= 600)
        return MF_HTTP_STATUS;
    return slow->status == 101 ? MF_HTTP_UPGRADE : MF_HTTP_MORE;
}

static enum mf_http slow_length(const uint8_t *value, size_t n, struct slow *slow) {
    for (size_t i = 0; i <= n; i++) {
        size_t stop = i;
        const uint8_t *item = value + i;
        __int128 number = 0;
        while (stop < n && value[stop] != ',')
            stop++;
        size_t item_n = stop - i;
        trim(&item, &item_n);
        if (!item_n)
            return MF_HTTP_LENGTH;
        for (size_t k = 0; k < item_n; k++) {
            if (!digit(item[k]))
                return MF_HTTP_LENGTH;
            number = number * 10 + item[k] - '0';
            if (number > INT64_MAX)
                return MF_HTTP_LENGTH;
        }
        if (slow->length >= 0 && slow->length != number)
            return MF_HTTP_LENGTHS;
        slow->length = number;
        i = stop;
    }
    return MF_HTTP_MORE;
}

static enum mf_http slow_field(const uint8_t *line, size_t n, struct slow *slow) {
    size_t colon = 0;
    if (*line == ' ' || *line == '\t')
        return MF_HTTP_FOLD;
    while (colon < n && named(line[colon]))
        colon++;
    if (!colon || colon == n || line[colon] != ':')
        return MF_HTTP_NAME;
    const uint8_t *value = line + colon + 1;
    size_t value_n = n - colon - 1;
    if (any_control(value, value_n))
        return MF_HTTP_VALUE;
    trim(&value, &value_n);
    if (same(line, colon, "content-length"))
        return slow_length(value, value_n, slow);
    if (same(line, colon, "transfer-encoding")) {
        if (!slow->minor || slow->chunked || !same(value, value_n, "chunked"))
            return MF_HTTP_CODING;
        slow->chunked = 1;
    }
    if (same(line, colon, "connection"))
        for (size_t i = 0; i < value_n; i++) {
            size_t stop = i;
            while (stop < value_n && value[stop] != ',')
                stop++;
            const uint8_t *option = value + i;
            size_t option_n = stop - i;
            trim(&option, &option_n);
            slow->close |= same(option, option_n, "close");
            slow->keep |= same(option, option_n, "keep-alive");
            i = stop;
        }
    return MF_HTTP_MORE;
}

static enum mf_http slow_head(const uint8_t *at, size_t n, int is_head, struct mf_head *head) {
    struct slow slow = {.length = -1};
    size_t i = 0, blank = 0, lines = 0, fields = 0;
    enum mf_http code;
    while (i < n && i < MF_HEAD_MAX) {
        size_t stop = i;
        if (!slow.status && at[i] != '\r')
            for (size_t k = 0; k < 5 && i + k < n && i + k < MF_HEAD_MAX; k++)
                if (at[i + k] != "HTTP/"[k])
                    return MF_HTTP_NOT_HTTP;
        if (!slow.status && at[i] == '\r' && i + 1 < n && i + 1 < MF_HEAD_MAX && at[i + 1] != '\n')
            return MF_HTTP_NOT_HTTP;
        while (stop < n && stop < MF_HEAD_MAX && at[stop] != '\n')
            stop++;
        if (stop == n || stop == MF_HEAD_MAX)
            break;
        if (stop == i || at[stop - 1] != '\r')
            return MF_HTTP_LINE_END;
        size_t line_n = stop - 1 - i;
        if (!slow.status) {
            code = line_n ? slow_status(at + i, line_n, &slow) : MF_HTTP_MORE;
            if (!line_n && ++blank > MF_BLANK_LINES)
                return MF_HTTP_NOT_HTTP;
            fields = stop + 1;
        } else if (line_n) {
            code = ++lines > MF_HEAD_LINES ? MF_HTTP_HEAD_MANY : slow_field(at + i, line_n, &slow);
        } else {
            int none = slow.status / 100 == 1 || slow.status == 204;
            int two = slow.chunked && slow.length >= 0;
            *head = (struct mf_head){.status = slow.status, .minor = slow.minor, .n = stop + 1, .fields = fields};
            head->fields_n = i - fields;
            head->length = slow.chunked ? -1 : (int64_t) slow.length;
            head->framing = none || is_head || slow.status == 304 ? MF_FRAMING_NONE
                            : slow.chunked                        ? MF_FRAMING_CHUNKED
                            : slow.length >= 0                    ? MF_FRAMING_LENGTH
                                                                  : MF_FRAMING_CLOSE;
            head->keep = !slow.close && (slow.minor || slow.keep) && !two && head->framing != MF_FRAMING_CLOSE &&
                         !(none && (slow.chunked || slow.length > 0));
            return MF_HTTP_DONE;
        }
        if (code != MF_HTTP_MORE)
            return code;
        i = stop + 1;
    }
    return n >= MF_HEAD_MAX ? MF_HTTP_HEAD_LONG : MF_HTTP_MORE;
}

static int hex(uint8_t c) {
    return digit(c) ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

/* One chunk's line at *i, behind which *i is then. */
static enum mf_http slow_chunk_line(const uint8_t *at, size_t n, size_t *i, uint64_t *size) {
    size_t begin = *i, k = begin, stop = n - begin > MF_CHUNK_LINE_MAX ? begin + MF_CHUNK_LINE_MAX : n;
    enum mf_http out = stop < n ? MF_HTTP_CHUNK_LINE : MF_HTTP_MORE; /* where the line goes on behind stop */
    __int128 value = 0;
    for (; k < stop && hex(at[k]) >= 0; k++) {
        value = value * 16 + hex(at[k]);
        if (value > INT64_MAX)
            return MF_HTTP_CHUNK_SIZE;
    }
    if (k == stop)
        return out;
    if (k == begin)
        return MF_HTTP_CHUNK_SIZE;
    while (k < stop && (at[k] == ' ' || at[k] == '\t'))
        k++;
    if (k < stop && at[k] == ';')
        while (k < stop && !control(at[k]))
            k++;
    else if (k < stop && at[k] != '\r')
        return MF_HTTP_CHUNK_SIZE;
    if (k == stop)
        return out;
    if (at[k] != '\r')
        return MF_HTTP_CHUNK_LINE;
    if (k + 1 == stop)
        return out;
    if (at[k + 1] != '\n')
        return MF_HTTP_CHUNK_LINE;
    *i = k + 2;
    *size = (uint64_t) value;
    return MF_HTTP_DONE;
}

static enum mf_http slow_trailers(const uint8_t *at, size_t n, size_t *i) {
    size_t k = *i, stop = n - k > MF_TRAILERS_MAX ? k + MF_TRAILERS_MAX : n;
    enum mf_http out = stop < n ? MF_HTTP_TRAILERS : MF_HTTP_MORE;
    for (;;) {
        size_t begin = k;
        while (k < stop && named(at[k]))
            k++;
        if (k < stop && k > begin) {
            if (at[k] != ':')
                return MF_HTTP_TRAILERS;
            for (k++; k < stop && !control(at[k]); k++)
                ;
        }
        if (k == stop)
            return out;
        if (at[k] != '\r')
            return MF_HTTP_TRAILERS;
        int last = k == begin;
        if (++k == stop)
            return out;
        if (at[k++] != '\n')
            return MF_HTTP_TRAILERS;
        *i = k;
        if (last)
            return MF_HTTP_DONE;
    }
}

static enum mf_http slow_chunks(const uint8_t *at, size_t n, size_t *i, struct reading *out) {
    for (;;) {
        uint64_t size = 0;
        enum mf_http code = slow_chunk_line(at, n, i, &size);
        if (code != MF_HTTP_DONE)
            return code;
        if (!size)
            return slow_trailers(at, n, i);
        size_t some = size < n - *i ? (size_t) size : n - *i;
        memcpy(out->payload + out->payload_n, at + *i, some);
        out->payload_n += some;
        *i += some;
        for (const char *c = "\r\n"; *c; c++) {
            if (*i == n)
                return MF_HTTP_MORE;
            if (at[(*i)++] != *c)
                return MF_HTTP_CHUNK_END;
        }
    }
}

static struct reading read_slowly(const uint8_t *at, size_t n, int is_head) {
    struct reading out = {.payload = block(NULL, n)};
    size_t i = 0;
    do {
        out.code = slow_head(at + i, n - i, is_head, &out.head);
        if (out.code != MF_HTTP_DONE)
            return out;
        i += out.head.n;
    } while (out.head.status < 200);
    out.begin = i;
    if (out.head.framing == MF_FRAMING_CHUNKED) {
        out.code = slow_chunks(at, n, &i, &out);
    } else if (out.head.framing != MF_FRAMING_NONE) {
        uint64_t wanted = out.head.framing == MF_FRAMING_LENGTH ? (uint64_t) out.head.length : n - i;
        out.payload_n = wanted < n - i ? (size_t) wanted : n - i;
        memcpy(out.payload, at + i, out.payload_n);
        i += out.payload_n;
        out.code = out.payload_n == wanted ? MF_HTTP_DONE : MF_HTTP_MORE;
    }
    out.end = i;
    return out;
}

/* ---- the parser, in pieces ---- */

struct pieces {
    uint32_t random;
    size_t cut; /* of two pieces; SIZE_MAX: at random */
    int straight;
};

static uint32_t next(struct pieces *pieces) {
    pieces->random = pieces->random * 1664525u + 1013904223u;
    return pieces->random >> 16;
}

/* Where the piece ends that begins behind `have`. */
static size_t more(struct pieces *pieces, size_t have, size_t n) {
    size_t step = pieces->cut == SIZE_MAX ? 1 + next(pieces) % 24 : have < pieces->cut ? pieces->cut - have : n;
    return step < n - have ? have + step : n;
}

static void read_body(const uint8_t *at, size_t n, size_t have, struct pieces *pieces, struct reading *out) {
    struct mf_body body;
    size_t i = out->begin, from, size, taken;
    mf_body_begin(&body, &out->head);
    out->code = mf_body_read(&body, NULL, 0, &from, &size, &taken);
    REQUIRE(!from && !size && !taken);
    while (out->code == MF_HTTP_MORE) {
        if (i == have) {
            if (have == n) {
                out->code = mf_body_ended(&body);
                break;
            }
            have = more(pieces, have, n);
        }
        uint64_t straight = mf_body_straight(&body);
        if (straight && pieces->straight && next(pieces) % 2) {
            size = 1 + next(pieces) % (have - i);
            size = size < straight ? size : (size_t) straight;
            memcpy(out->payload + out->payload_n, at + i, size);
            out->payload_n += size;
            i += size;
            out->code = mf_body_received(&body, size);
            continue;
        }
        uint8_t *piece = block(at + i, have - i);
        out->code = mf_body_read(&body, (const char *) piece, have - i, &from, &size, &taken);
        REQUIRE(taken <= have - i && (size ? from + size == taken : from <= taken));
        /* Else its caller would turn round and round. */
        REQUIRE(out->code != MF_HTTP_MORE || taken);
        REQUIRE(out->code <= MF_HTTP_MORE || !size);
        memcpy(out->payload + out->payload_n, piece + from, size);
        out->payload_n += size;
        i += taken;
        free(piece);
    }
    out->end = i;
}

static struct reading read_quickly(const uint8_t *at, size_t n, int is_head, struct pieces pieces) {
    struct reading out = {.payload = block(NULL, n)};
    size_t i = 0, have = 0, seen = 0;
    for (;;) {
        uint8_t *piece;
        have = i == have || seen ? more(&pieces, have, n) : have;
        piece = block(at + i, have - i);
        out.code = mf_head_read((const char *) piece, have - i, seen, is_head, &out.head);
        seen = have - i;
        free(piece);
        if (out.code == MF_HTTP_MORE && have < n)
            continue;
        if (out.code != MF_HTTP_DONE)
            return out;
        REQUIRE(out.head.n <= seen);
        i += out.head.n;
        seen = 0;
        if (out.head.status >= 200)
            break;
    }
    out.begin = i;
    read_body(at, n, have, &pieces, &out);
    return out;
}

static void compare(const struct reading *slow, const uint8_t *at, size_t n, int is_head, struct pieces pieces) {
    struct reading quick = read_quickly(at, n, is_head, pieces);
    const struct mf_head *a = &slow->head, *b = &quick.head;
    REQUIRE(mf_http_words(quick.code)[0]);
    REQUIRE(quick.code == slow->code && quick.begin == slow->begin);
    if (slow->begin) {
        REQUIRE(a->status == b->status && a->minor == b->minor && a->n == b->n && a->fields == b->fields);
        REQUIRE(a->fields_n == b->fields_n && a->framing == b->framing && a->length == b->length);
        REQUIRE(!a->keep == !b->keep);
        REQUIRE(quick.payload_n == slow->payload_n && !memcmp(quick.payload, slow->payload, slow->payload_n));
        REQUIRE(slow->code > MF_HTTP_MORE || quick.end == (slow->code == MF_HTTP_DONE ? slow->end : n));
    }
    free(quick.payload);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 3)
        return 0;
    int is_head = data[0] & 1;
    struct pieces random = {.random = data[1] | data[2] << 8, .cut = SIZE_MAX, .straight = 1};
    uint8_t *at = block(data + 3, size - 3);
    size_t n = size - 3;
    struct reading slow = read_slowly(at, n, is_head);
    compare(&slow, at, n, is_head, (struct pieces){.cut = n});
    compare(&slow, at, n, is_head, random);
    if (data[0] >> 1 == 5 && n <= 200) /* for all of them there is no time */
        for (size_t cut = 1; cut < n; cut++)
            compare(&slow, at, n, is_head, (struct pieces){.cut = cut});
    free(slow.payload);
    free(at);
    return 0;
}
