#include "http/google.h"

#include <string.h>

static int equal(struct mf_text text, const char *name) {
    return text.n == strlen(name) && memcmp(text.at, name, text.n) == 0;
}

int mf_google_crc32c(const char *at, size_t n, struct mf_text *found) {
    static const char name[] = "crc32c=";
    const char *end = at + n;
    while (at < end) {
        const char *stop = memchr(at, ',', (size_t) (end - at)), *last;
        if (!stop)
            stop = end;
        while (at < stop && (*at == ' ' || *at == '\t'))
            at++;
        for (last = stop; last > at && (last[-1] == ' ' || last[-1] == '\t' || last[-1] == '\r'); last--) {
        }
        if ((size_t) (last - at) > sizeof name - 1 && memcmp(at, name, sizeof name - 1) == 0) {
            found->at = at + sizeof name - 1;
            found->n = (size_t) (last - found->at);
            return 1;
        }
        at = stop + (stop < end);
    }
    return 0;
}

/* ---- the upload ---- */

struct room {
    char *at, *end; /* at: NULL when it was not enough */
};

static void put(struct room *room, const char *at, size_t n) {
    if (!room->at || (size_t) (room->end - room->at) < n) {
        room->at = NULL;
        return;
    }
    memcpy(room->at, at, n);
    room->at += n;
}

static void put_text(struct room *room, const char *text) {
    put(room, text, strlen(text));
}

size_t mf_google_upload_head(char out[MF_GOOGLE_HEAD], struct mf_text boundary, struct mf_text key, struct mf_text type,
                             const char *crc) {
    struct room room = {out, out + MF_GOOGLE_HEAD};
    size_t i;
    if (key.n > MF_GOOGLE_KEY)
        return 0;
    put_text(&room, "--");
    put(&room, boundary.at, boundary.n);
    put_text(&room, "\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{\"name\":\"");
    for (i = 0; i < key.n; i++) {
        char c = key.at[i];
        if (c < 32 || c > 126)
            return 0;
        if (c == '"' || c == '\\')
            put(&room, "\\", 1);
        put(&room, &c, 1);
    }
    if (crc) {
        put_text(&room, "\",\"crc32c\":\"");
        put_text(&room, crc);
    }
    put_text(&room, "\"}\r\n--");
    put(&room, boundary.at, boundary.n);
    put_text(&room, "\r\nContent-Type: ");
    put(&room, type.at, type.n);
    put_text(&room, "\r\n\r\n");
    return room.at ? (size_t) (room.at - out) : 0;
}

/* ---- its answer: an object of JSON, of which two texts count ---- */

static const char *after_blanks(const char *at, const char *end) {
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\r' || *at == '\n'))
        at++;
    return at;
}

/* Behind the text whose first quote is at `at`; NULL when it does not end. `found`: what is between the quotes. */
static const char *after_text(const char *at, const char *end, struct mf_text *found) {
    found->at = ++at;
    for (; at < end; at++) {
        if (*at == '"') {
            found->n = (size_t) (at - found->at);
            return at + 1;
        }
        if (*at == '\\' && ++at == end)
            break;
    }
    return NULL;
}

/* Behind a value that is no text: a number, a word, or an array or object with all in it; NULL when it does not end. */
static const char *after_value(const char *at, const char *end) {
    struct mf_text text;
    size_t depth = 0;
    while (at && at < end) {
        switch (*at) {
        case '"':
            at = after_text(at, end, &text);
            continue;
        case '{':
        case '[':
            depth++;
            break;
        case '}':
        case ']':
            if (!depth)
                return at;
            if (!--depth)
                return at + 1;
            break;
        case ',':
            if (!depth)
                return at;
        }
        at++;
    }
    return NULL;
}

int mf_google_stored(const struct mf_xfer *xfer, const char *crc, struct mf_text *generation) {
    const char *at = (const char *) xfer->data, *end;
    struct mf_text sum = {NULL, 0}, name, value;
    size_t i;
    generation->at = NULL;
    generation->n = 0;
    if (xfer->failure || xfer->status != 200 || !xfer->data_n)
        return 0;
    end = at + xfer->data_n;
    at = after_blanks(at, end);
    if (at == end || *at++ != '{')
        return 0;
    for (;;) {
        at = after_blanks(at, end);
        if (at == end || *at != '"' || !(at = after_text(at, end, &name)))
            return 0;
        at = after_blanks(at, end);
        if (at == end || *at++ != ':')
            return 0;
        at = after_blanks(at, end);
        if (at == end)
            return 0;
        if (*at == '"') {
            struct mf_text *here = equal(name, "generation") ? generation : equal(name, "crc32c") ? &sum : NULL;
            if (!(at = after_text(at, end, &value)) || (here && here->at))
                return 0;
            if (here)
                *here = value;
        } else if (!(at = after_value(at, end)))
            return 0;
        at = after_blanks(at, end);
        if (at == end)
            return 0;
        if (*at == '}')
            break;
        if (*at++ != ',')
            return 0;
    }
    if (!generation->at || !generation->n || generation->n > 20 || (crc && !equal(sum, crc)))
        return 0;
    for (i = 0; i < generation->n; i++)
        if (generation->at[i] < '0' || generation->at[i] > '9')
            return 0;
    return 1;
}
