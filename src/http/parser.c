#include "http/parser.h"

#include <string.h>

const char *mf_http_words(enum mf_http code) {
    static const char *const words[MF_HTTP_CODES] = {
        [MF_HTTP_DONE] = "complete",
        [MF_HTTP_MORE] = "incomplete",
        [MF_HTTP_NOT_HTTP] = "what came is not HTTP",
        [MF_HTTP_VERSION] = "neither HTTP/1.0 nor HTTP/1.1",
        [MF_HTTP_STATUS] = "not a status line",
        [MF_HTTP_UPGRADE] = "an upgrade that was not asked for",
        [MF_HTTP_LINE_END] = "a line of the headers does not end with CR LF",
        [MF_HTTP_FOLD] = "a header goes on in the next line",
        [MF_HTTP_NAME] = "not a header's name",
        [MF_HTTP_VALUE] = "a control character in a header",
        [MF_HTTP_HEAD_LONG] = "the headers do not end",
        [MF_HTTP_HEAD_MANY] = "too many headers",
        [MF_HTTP_LENGTH] = "not a Content-Length",
        [MF_HTTP_LENGTHS] = "several values of Content-Length",
        [MF_HTTP_CODING] = "a Transfer-Encoding other than chunked",
        [MF_HTTP_CHUNK_SIZE] = "not a chunk's size",
        [MF_HTTP_CHUNK_LINE] = "the line of a chunk's size does not end",
        [MF_HTTP_CHUNK_END] = "a chunk does not end where its size says",
        [MF_HTTP_TRAILERS] = "not trailers",
    };
    return (unsigned) code < MF_HTTP_CODES ? words[code] : "unknown";
}

/* ---- characters ---- */

enum { NAMED = 1, DIGIT = 2, HEX = 4 };

/* RFC 9110, 5.6.2: a token's characters. */
static const uint8_t kinds[256] = {
    ['!'] = NAMED, ['#'] = NAMED, ['$'] = NAMED, ['%'] = NAMED, ['&'] = NAMED, ['\''] = NAMED, ['*'] = NAMED,
    ['+'] = NAMED, ['-'] = NAMED, ['.'] = NAMED, ['^'] = NAMED, ['_'] = NAMED, ['`'] = NAMED,  ['|'] = NAMED,
    ['~'] = NAMED,
    ['0'] = NAMED | DIGIT | HEX, ['1'] = NAMED | DIGIT | HEX, ['2'] = NAMED | DIGIT | HEX,
    ['3'] = NAMED | DIGIT | HEX, ['4'] = NAMED | DIGIT | HEX, ['5'] = NAMED | DIGIT | HEX,
    ['6'] = NAMED | DIGIT | HEX, ['7'] = NAMED | DIGIT | HEX, ['8'] = NAMED | DIGIT | HEX,
    ['9'] = NAMED | DIGIT | HEX,
    ['A'] = NAMED | HEX, ['B'] = NAMED | HEX, ['C'] = NAMED | HEX, ['D'] = NAMED | HEX, ['E'] = NAMED | HEX,
    ['F'] = NAMED | HEX, ['G'] = NAMED, ['H'] = NAMED, ['I'] = NAMED, ['J'] = NAMED, ['K'] = NAMED, ['L'] = NAMED,
    ['M'] = NAMED, ['N'] = NAMED, ['O'] = NAMED, ['P'] = NAMED, ['Q'] = NAMED, ['R'] = NAMED, ['S'] = NAMED,
    ['T'] = NAMED, ['U'] = NAMED, ['V'] = NAMED, ['W'] = NAMED, ['X'] = NAMED, ['Y'] = NAMED, ['Z'] = NAMED,
    ['a'] = NAMED | HEX, ['b'] = NAMED | HEX, ['c'] = NAMED | HEX, ['d'] = NAMED | HEX, ['e'] = NAMED | HEX,
    ['f'] = NAMED | HEX, ['g'] = NAMED, ['h'] = NAMED, ['i'] = NAMED, ['j'] = NAMED, ['k'] = NAMED, ['l'] = NAMED,
    ['m'] = NAMED, ['n'] = NAMED, ['o'] = NAMED, ['p'] = NAMED, ['q'] = NAMED, ['r'] = NAMED, ['s'] = NAMED,
    ['t'] = NAMED, ['u'] = NAMED, ['v'] = NAMED, ['w'] = NAMED, ['x'] = NAMED, ['y'] = NAMED, ['z'] = NAMED,
};

static int is(char c, int kind) {
    return kinds[(uint8_t) c] & kind;
}

static int is_blank(char c) {
    return c == ' ' || c == '\t';
}

/* What names of headers are made of. That they are ASCII is not insisted upon: services give a name of user metadata
 * back as somebody stored it. */
static int is_named(char c) {
    return (uint8_t) c >= 0x80 || is(c, NAMED);
}

/* What neither a value nor a reason may hold: all controls but the tab. */
static int is_control(char c) {
    return ((uint8_t) c < 0x20 && c != '\t') || c == 0x7f;
}

/* 16 bytes in the compiler's vectors (SSE2, NEON). One at a time, a head of 12 lines and 480 bytes took 4300
 * instructions (callgrind), so 2600. */
typedef uint8_t block __attribute__((vector_size(16)));

static block load(const char *at) {
    block bytes;
    memcpy(&bytes, at, 16);
    return bytes;
}

/* Which is the first that a comparison found: 16 if none is. */
static size_t first_of(block found) {
    uint64_t words[2];
    memcpy(words, &found, 16);
    if (!(words[0] | words[1]))
        return 16;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return (size_t) (words[0] ? __builtin_ctzll(words[0]) : 64 + __builtin_ctzll(words[1])) / 8;
#else
    return (size_t) (words[0] ? __builtin_clzll(words[0]) : 64 + __builtin_clzll(words[1])) / 8;
#endif
}

/* The first control character, or stop: in a head that is in order, the end of the line. */
static const char *find_control(const char *at, const char *stop) {
    while (stop - at >= 16) {
        block bytes = load(at);
        size_t i = first_of((block) (((bytes < 0x20) & (bytes != '\t')) | (bytes == 0x7f)));
        at += i;
        if (i < 16)
            return at;
    }
    while (at < stop && !is_control(*at))
        at++;
    return at;
}

/* The first character that is none of a name, or stop. */
static const char *find_end_of_name(const char *at, const char *stop) {
    while (stop - at >= 16) {
        block bytes = load(at), letters = (bytes | 0x20) - 'a', digits = bytes - '0';
        size_t i = first_of((block) ((letters > 25) & (digits > 9) & (bytes != '-')));
        at += i;
        if (i < 16)
            break; /* at the colon, mostly; else at a rarer character of names */
    }
    while (at < stop && is_named(*at))
        at++;
    return at;
}

/* Whether at[0:n] is this word of lower-case letters and dashes, in any case. Of a name or a value without controls:
 * with 0x20 no other of their characters becomes one of these. */
static int says(const char *at, size_t n, const char *word, size_t word_n) {
    size_t i;
    if (n != word_n)
        return 0;
    for (i = 0; i < n; i++)
        if ((at[i] | 0x20) != word[i])
            return 0;
    return 1;
}

/* ---- the head ---- */

enum { CLOSE = 1, KEEP = 2, CHUNKED = 4 };

/* at[0:n] is a line without its end, and control the first such character in it, or its end. So of the next but one. */
static enum mf_http read_status(const char *at, size_t n, const char *control, struct mf_head *head) {
    if (n < 8 || memcmp(at, "HTTP/1.", 7) != 0 || (at[7] != '0' && at[7] != '1'))
        return MF_HTTP_VERSION;
    head->minor = at[7] - '0';
    if (n < 12 || at[8] != ' ' || !is(at[9], DIGIT) || !is(at[10], DIGIT) || !is(at[11], DIGIT))
        return MF_HTTP_STATUS;
    head->status = (at[9] - '0') * 100 + (at[10] - '0') * 10 + (at[11] - '0');
    if (head->status < 100 || head->status > 599)
        return MF_HTTP_STATUS;
    if (n > 12 && (at[12] != ' ' || control != at + n))
        return MF_HTTP_STATUS;
    return head->status == 101 ? MF_HTTP_UPGRADE : MF_HTTP_MORE;
}

/* One number, or several times the same with commas between, as a proxy joins lines. */
static enum mf_http read_length(const char *at, const char *stop, struct mf_head *head) {
    for (;;) {
        int64_t value = 0;
        const char *begin = at;
        for (; at < stop && is(*at, DIGIT); at++) {
            int digit = *at - '0';
            if (value > (INT64_MAX - digit) / 10)
                return MF_HTTP_LENGTH;
            value = value * 10 + digit;
        }
        if (at == begin)
            return MF_HTTP_LENGTH;
        while (at < stop && is_blank(*at))
            at++;
        if (at < stop && *at != ',')
            return MF_HTTP_LENGTH;
        if (head->length >= 0 && head->length != value)
            return MF_HTTP_LENGTHS;
        head->length = value;
        if (at == stop)
            return MF_HTTP_MORE;
        for (at++; at < stop && is_blank(*at); at++)
            ;
    }
}

static void read_connection(const char *at, const char *stop, struct mf_head *head) {
    while (at < stop) {
        const char *end = memchr(at, ',', (size_t) (stop - at)), *last;
        if (!end)
            end = stop;
        while (at < end && is_blank(*at))
            at++;
        for (last = end; last > at && is_blank(last[-1]); last--)
            ;
        if (says(at, (size_t) (last - at), "close", 5))
            head->marks |= CLOSE;
        else if (says(at, (size_t) (last - at), "keep-alive", 10))
            head->marks |= KEEP;
        at = end + 1;
    }
}

static enum mf_http read_field(const char *at, size_t n, const char *control, struct mf_head *head) {
    const char *stop = at + n, *value = find_end_of_name(at, stop);
    size_t name_n;
    if (value == at || value == stop || *value != ':')
        return is_blank(*at) ? MF_HTTP_FOLD : MF_HTTP_NAME;
    name_n = (size_t) (value - at);
    value++;
    if (control != stop)
        return MF_HTTP_VALUE;
    if (name_n != 10 && name_n != 14 && name_n != 17)
        return MF_HTTP_MORE;
    while (value < stop && is_blank(*value))
        value++;
    while (stop > value && is_blank(stop[-1]))
        stop--;
    if (says(at, name_n, "content-length", 14))
        return read_length(value, stop, head);
    if (says(at, name_n, "connection", 10))
        read_connection(value, stop, head);
    else if (says(at, name_n, "transfer-encoding", 17)) {
        /* Twice "chunked" would be two codings. */
        if (head->minor == 0 || head->marks & CHUNKED || !says(value, (size_t) (stop - value), "chunked", 7))
            return MF_HTTP_CODING;
        head->marks |= CHUNKED;
    }
    return MF_HTTP_MORE;
}

/* RFC 9112, 6.3 and 9.3. */
static void conclude(struct mf_head *head, int is_head) {
    int empty = head->status < 200 || head->status == 204;
    head->keep = !(head->marks & CLOSE) && (head->minor == 1 || head->marks & KEEP);
    if (head->marks & CHUNKED && head->length >= 0) {
        /* Two lengths for one body: whoever made it may mean the other one, so nothing that follows is trusted. */
        head->length = -1;
        head->keep = 0;
    }
    if (empty && (head->marks & CHUNKED || head->length > 0))
        head->keep = 0; /* has no body, and says that it has: one may follow */
    if (empty || is_head || head->status == 304)
        head->framing = MF_FRAMING_NONE;
    else if (head->marks & CHUNKED)
        head->framing = MF_FRAMING_CHUNKED;
    else if (head->length >= 0)
        head->framing = MF_FRAMING_LENGTH;
    else {
        head->framing = MF_FRAMING_CLOSE;
        head->keep = 0;
    }
}

/* Whether at[0:n] is the beginning of a status line or of a blank one: asked before the line ends, for that of another
 * protocol may never do. */
static int may_begin(const char *at, size_t n) {
    if (*at == '\r')
        return n < 2 || at[1] == '\n';
    return memcmp(at, "HTTP/", n < 5 ? n : 5) == 0;
}

/* Of the line at head->n. MF_HTTP_DONE: it ends the head. */
static enum mf_http read_line(const char *at, size_t n, const char *control, int is_head, struct mf_head *head) {
    if (!head->status) {
        head->fields = head->n + n + 2;
        if (n)
            return read_status(at, n, control, head);
        return ++head->blank > MF_BLANK_LINES ? MF_HTTP_NOT_HTTP : MF_HTTP_MORE;
    }
    if (!n) {
        head->fields_n = head->n - head->fields;
        conclude(head, is_head);
        return MF_HTTP_DONE;
    }
    return ++head->lines > MF_HEAD_LINES ? MF_HTTP_HEAD_MANY : read_field(at, n, control, head);
}

enum mf_http mf_head_read(const char *at, size_t n, size_t seen, int is_head, struct mf_head *head) {
    size_t limit = n < MF_HEAD_MAX ? n : MF_HEAD_MAX;
    enum mf_http code = MF_HTTP_MORE;
    if (!seen) {
        memset(head, 0, sizeof *head);
        head->length = -1;
    }
    while (code == MF_HTTP_MORE && head->n < limit) {
        const char *line = at + head->n, *stop = at + limit, *control, *end;
        if (!head->status && !may_begin(line, limit - head->n))
            return MF_HTTP_NOT_HTTP;
        if (seen > head->n && !memchr(at + seen, '\n', limit - seen))
            break; /* the line was looked at before, and has still no end */
        control = find_control(line, stop);
        end = stop - control >= 2 && control[1] == '\n' ? control + 1
                                                        : memchr(control, '\n', (size_t) (stop - control));
        if (!end)
            break;
        if (end == line || end[-1] != '\r')
            return MF_HTTP_LINE_END;
        code = read_line(line, (size_t) (end - line) - 1, control, is_head, head);
        head->n += (size_t) (end - line) + 1;
    }
    return code == MF_HTTP_MORE && n >= MF_HEAD_MAX ? MF_HTTP_HEAD_LONG : code;
}

/* ---- the body ---- */

enum {
    FIRST_DIGIT, DIGITS, BLANKS, EXTENSION, LINE_FEED, DATA, DATA_RETURN, DATA_FEED, TRAILER, NAME, VALUE, VALUE_FEED,
    LAST_FEED, COMPLETE
};

void mf_body_begin(struct mf_body *body, const struct mf_head *head) {
    memset(body, 0, sizeof *body);
    body->framing = head->framing;
    if (head->framing == MF_FRAMING_LENGTH)
        body->left = (uint64_t) head->length;
}

static int value_of(char digit) {
    return is(digit, DIGIT) ? digit - '0' : (digit | 0x20) - 'a' + 10;
}

/* What comes behind the digits of a chunk's size. */
static enum mf_http behind_size(struct mf_body *body, char c) {
    if (c == '\r')
        body->state = LINE_FEED;
    else if (c == ';')
        body->state = EXTENSION;
    else if (is_blank(c))
        body->state = BLANKS; /* some old servers fill the line up */
    else
        return MF_HTTP_CHUNK_SIZE;
    return MF_HTTP_MORE;
}

static enum mf_http read_framing(struct mf_body *body, char c) {
    int trailers = body->state >= TRAILER;
    if (body->state != DATA_RETURN && body->state != DATA_FEED &&
        ++body->overhead > (trailers ? MF_TRAILERS_MAX : MF_CHUNK_LINE_MAX))
        return trailers ? MF_HTTP_TRAILERS : MF_HTTP_CHUNK_LINE;
    switch (body->state) {
    case FIRST_DIGIT:
    case DIGITS:
        if (!is(c, HEX))
            return body->state == DIGITS ? behind_size(body, c) : MF_HTTP_CHUNK_SIZE;
        if (body->size > (uint64_t) INT64_MAX >> 4)
            return MF_HTTP_CHUNK_SIZE;
        body->size = body->size << 4 | (uint64_t) value_of(c);
        body->state = DIGITS;
        break;
    case BLANKS:
        return behind_size(body, c);
    case EXTENSION:
        if (c == '\r')
            body->state = LINE_FEED;
        else if (is_control(c))
            return MF_HTTP_CHUNK_LINE;
        break;
    case LINE_FEED:
        if (c != '\n')
            return MF_HTTP_CHUNK_LINE;
        body->left = body->size;
        body->state = body->size ? DATA : TRAILER;
        body->size = body->overhead = 0;
        break;
    case DATA_RETURN:
        if (c != '\r')
            return MF_HTTP_CHUNK_END;
        body->state = DATA_FEED;
        break;
    case DATA_FEED:
        if (c != '\n')
            return MF_HTTP_CHUNK_END;
        body->state = FIRST_DIGIT;
        break;
    case TRAILER:
        if (c != '\r' && !is_named(c))
            return MF_HTTP_TRAILERS;
        body->state = c == '\r' ? LAST_FEED : NAME;
        break;
    case NAME:
        if (c != ':' && !is_named(c))
            return MF_HTTP_TRAILERS;
        body->state = c == ':' ? VALUE : NAME;
        break;
    case VALUE:
        if (c == '\r')
            body->state = VALUE_FEED;
        else if (is_control(c))
            return MF_HTTP_TRAILERS;
        break;
    default: /* VALUE_FEED, LAST_FEED */
        if (c != '\n')
            return MF_HTTP_TRAILERS;
        body->state = body->state == VALUE_FEED ? TRAILER : COMPLETE;
        break;
    }
    return MF_HTTP_MORE;
}

/* Of a body of which nothing is missing but perhaps the end of the connection. */
static enum mf_http whether_complete(const struct mf_body *body) {
    if (body->framing == MF_FRAMING_CHUNKED)
        return body->state == COMPLETE ? MF_HTTP_DONE : MF_HTTP_MORE;
    return body->framing == MF_FRAMING_CLOSE || body->left ? MF_HTTP_MORE : MF_HTTP_DONE;
}

uint64_t mf_body_straight(const struct mf_body *body) {
    return body->framing == MF_FRAMING_CLOSE ? UINT64_MAX : body->left;
}

enum mf_http mf_body_received(struct mf_body *body, size_t n) {
    if (body->framing != MF_FRAMING_CLOSE)
        body->left -= n;
    if (body->framing == MF_FRAMING_CHUNKED && n && !body->left)
        body->state = DATA_RETURN;
    return whether_complete(body);
}

enum mf_http mf_body_read(struct mf_body *body, const char *at, size_t n, size_t *from, size_t *size, size_t *taken) {
    size_t i = 0;
    uint64_t straight;
    *from = *size = *taken = 0;
    if (body->framing == MF_FRAMING_CHUNKED)
        while (i < n && body->state != DATA && body->state != COMPLETE) {
            enum mf_http code = read_framing(body, at[i++]);
            if (code != MF_HTTP_MORE)
                return code;
        }
    straight = mf_body_straight(body);
    *from = i;
    *size = n - i < straight ? n - i : (size_t) straight;
    *taken = i + *size;
    return mf_body_received(body, *size);
}

enum mf_http mf_body_ended(const struct mf_body *body) {
    return body->framing == MF_FRAMING_CLOSE ? MF_HTTP_DONE : whether_complete(body);
}
