/* A whole worker of the S3 engine, with links, a dialer, a poller, a clock and an allocator of this file: the input
 * says what is asked, what the servers answer, in which pieces it comes and goes, what breaks, and what is cancelled,
 * resumed or waited for.
 *
 * Servers give each object bytes of its own. So it is seen when one response's bytes get into another, whatever way
 * they took. fuzz/run makes the limits small enough to be reached. */
#include <stdlib.h>

/* fuzz/run renames them, for everything but this file. */
#undef malloc
#undef calloc
#undef realloc
#define malloc __builtin_malloc
#define calloc __builtin_calloc

#include <stddef.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "crc/checksum.h"
#include "fuzzing.h"
#include "http/clock.h"
#include "http/worker.h"

#define LINKS 12
#define REQUESTS 24
#define WIRE 8192
#define MS UINT64_C(1000000)

/* ---- the input ---- */

static const uint8_t *input;
static size_t input_n;

static unsigned byte(void) {
    if (!input_n)
        return 0;
    input_n--;
    return *input++;
}

static unsigned below(unsigned n) {
    return byte() % n;
}

static size_t some_size(void) {
    size_t n = byte();
    return n < 200 ? n : (n - 199) * 37;
}

/* ---- the clock (fuzz/run renames clock_gettime) ---- */

static uint64_t now_ns;

int mf_fuzz_clock(clockid_t id, struct timespec *now) {
    (void) id;
    now->tv_sec = (time_t) (now_ns / 1000000000u);
    now->tv_nsec = (long) (now_ns % 1000000000u);
    return 0;
}

/* ---- memory that is not there ---- */

static unsigned allocations_left; /* before one fails; 0: none does */
static int exhausted;

static int fails(void) {
    if (!allocations_left || --allocations_left)
        return 0;
    exhausted = 1;
    return 1;
}

void *mf_fuzz_malloc(size_t n) {
    return fails() ? NULL : __builtin_malloc(n);
}

void *mf_fuzz_calloc(size_t count, size_t n) {
    return fails() ? NULL : __builtin_calloc(count, n);
}

void *mf_fuzz_realloc(void *at, size_t n) {
    return fails() ? NULL : __builtin_realloc(at, n);
}

/* ---- what is asked ---- */

enum ending { HONEST, CUT, ANYTHING };

struct request {
    struct mf_xfer xfer;
    struct mf_part parts[3];
    char key[8];
    unsigned id;
    int live, ended, cancelled, announced, resumed;
    uint8_t *body, *target;
    size_t file_at;
    /* the server's side, of the last time that it was sent */
    unsigned link; /* its serial number */
    int sendings, on_used, tainted;
    enum ending ending;
    int status, early, told; /* told: all of it had arrived when the link was closed */
    size_t object_n;
    int64_t base; /* of the object, of the first byte of the response's body */
    size_t body_n; /* that the response's body has */
};

static struct request requests[REQUESTS];
static unsigned requests_n;
static struct mf_channel *channel;
static struct mf_engine *engine;
static struct mf_worker *worker;
static int file = -1;

/* What is done for each byte has no branches to be found. Counting and comparing them took two thirds of the time. */
#define PLAIN __attribute__((no_sanitize("coverage")))

PLAIN static uint8_t pattern(unsigned id, uint64_t at) {
    return (uint8_t) (0x80 | (id * 37 + at * 11 + (at >> 5) * 3)); /* no beginning of any head */
}

PLAIN static void fill(uint8_t *at, unsigned id, uint64_t from, size_t n) {
    for (size_t i = 0; i < n; i++)
        at[i] = pattern(id, from + i);
}

PLAIN static int is_filled(const uint8_t *at, unsigned id, uint64_t from, size_t n) {
    size_t i = 0;
    while (i < n && at[i] == pattern(id, from + i))
        i++;
    return i == n;
}

/* Bytes that have moved, both ways: never more than the rate allows and one bucket. */
static uint64_t moved, began_ns;

PLAIN static void move(size_t n) {
    const struct mf_pace *pace = &engine->pace;
    moved += n;
    if (pace->byte_ns > 0)
        REQUIRE((double) moved * pace->byte_ns <= (double) (now_ns - began_ns + pace->burst_ns) + 1e6);
}

/* ---- links ---- */

enum { OPEN, ENDED, RESET };

struct mf_link {
    unsigned serial;
    int used, secure, served;
    size_t in_n, arrived, read, answer_end; /* of in: sent by the server, arrived here, read */
    size_t refused_at;                      /* where the head of a refusal ends that came before the request had */
    int end, end_seen; /* behind all of in[] */
    size_t window;
    int writable_first, readable_first;
    size_t held;
    /* the server */
    struct request *current;
    size_t head_n, body_left, body_at;
    int answered, last, anything;
    /* not cleared */
    char head[2048];
    uint8_t in[WIRE], hold[100];
};

static struct mf_link links[LINKS];
static unsigned serial;

static struct mf_link *link_at(int fd) {
    return links + (fd - 100);
}

int mf_link_fd(const struct mf_link *link) {
    return 100 + (int) (link - links);
}

int mf_link_secure(const struct mf_link *link) {
    return link->secure;
}

PLAIN static int unread(const struct mf_link *link) {
    return link->read < link->arrived;
}

PLAIN static int at_end(const struct mf_link *link) {
    return link->end != OPEN && link->arrived == link->in_n;
}

ptrdiff_t mf_link_receive(struct mf_link *link, void *at, size_t n) {
    size_t some = link->arrived - link->read;
    REQUIRE(link->used && n);
    if (link->readable_first && link->secure) {
        link->readable_first = 0;
        return MF_LINK_WRITE;
    }
    if (some) {
        if (some > n)
            some = n;
        if (some > 1 && link->secure && below(4) == 0)
            some = 1 + below((unsigned) some);
        memcpy(at, link->in + link->read, some);
        link->read += some;
        move(some);
        return (ptrdiff_t) some;
    }
    if (!at_end(link))
        return MF_LINK_READ;
    link->end_seen = 1;
    return link->end == ENDED ? 0 : MF_LINK_BROKEN;
}

int mf_link_pending(const struct mf_link *link) {
    return link->secure && (unread(link) || at_end(link));
}

int mf_link_idle(struct mf_link *link) {
    return !unread(link) && !at_end(link);
}

int mf_link_error(const struct mf_link *link, const char **message) {
    (void) link;
    *message = "broken";
    return 104;
}

void mf_link_close(struct mf_link *link) {
    REQUIRE(link->used);
    link->used = 0;
    if (link->current && link->current->link == link->serial && link->answered)
        link->current->told = link->arrived >= link->answer_end && !link->anything;
}

/* ---- servers ---- */

static void say(struct mf_link *link, const void *at, size_t n) {
    if (n > WIRE - link->in_n)
        n = WIRE - link->in_n;
    memcpy(link->in + link->in_n, at, n);
    link->in_n += n;
}

static void say_text(struct mf_link *link, const char *text) {
    say(link, text, strlen(text));
}

static void say_number(struct mf_link *link, const char *format, size_t value) {
    char text[64];
    snprintf(text, sizeof text, format, value);
    say_text(link, text);
}

static void say_body(struct mf_link *link, const struct request *r, size_t from, size_t n) {
    if (n > WIRE - link->in_n)
        n = WIRE - link->in_n;
    fill(link->in + link->in_n, r->id, (uint64_t) r->base + from, n);
    link->in_n += n;
}

static void say_checksum(struct mf_link *link, const struct request *r) {
    int google = r->xfer.route->dialect == MF_GOOGLE;
    enum mf_crc_kind kind = google ? MF_CRC32C : MF_CRC64NVME;
    char line[64];
    uint8_t object[WIRE];
    REQUIRE(r->object_n <= sizeof object);
    fill(object, r->id, 0, r->object_n);
    snprintf(line, sizeof line, "%s", google ? "x-goog-hash: md5=x, crc32c=" : "x-amz-checksum-crc64nvme: ");
    mf_crc_encode(kind, mf_crc_update(kind, 0, object, r->object_n), line + strlen(line));
    say_text(link, line);
    say_text(link, "\r\n");
}

static int is_get(const struct request *r) {
    return r->xfer.route->operation == MF_GET;
}

static int is_head(const struct request *r) {
    return r->xfer.route->operation == MF_HEAD;
}

static void answer(struct mf_link *link, int early) {
    struct request *r = link->current;
    unsigned shape = below(16), how = byte();
    size_t n = some_size();
    int chunked = how & 1, close = how & 2, until_end = (how & 12) == 12 && !is_head(r), interim = how & 16;
    int old = (how & 0x60) == 0x60;
    if (n > WIRE - link->in_n - 700)
        n = WIRE - link->in_n - 700;
    link->answered = 1;
    r->early = early;
    r->ending = HONEST;
    r->object_n = n;
    r->base = 0;
    r->status = 200;
    if (shape == 15) { /* whatever */
        r->ending = ANYTHING;
        link->anything = link->last = 1;
        for (n = below(200); n > 0 && input_n; n--) {
            uint8_t c = (uint8_t) byte();
            say(link, &c, 1);
        }
        link->end = below(3);
        return;
    }
    if (shape >= 13) { /* nothing */
        r->ending = CUT;
        r->status = 0;
        r->body_n = 0;
        link->last = 1;
        link->end = (int) shape - 13 ? ENDED : below(2) ? RESET : OPEN;
        return;
    }
    if (shape == 12 && !is_get(r))
        r->status = 204;
    if (shape == 11 || (early && shape & 1))
        r->status = 503;
    if (shape == 10)
        r->status = 304;
    if (is_get(r) && r->status == 200 && r->xfer.has_range && shape % 4) {
        int64_t stop = r->xfer.stop < 0 || r->xfer.stop > (int64_t) n ? (int64_t) n : r->xfer.stop;
        r->status = 206;
        r->base = r->xfer.start < stop ? r->xfer.start : stop;
        n = (size_t) (stop - r->base);
    }
    if (interim)
        say_text(link, "HTTP/1.1 100 Continue\r\n\r\n");
    link->refused_at = SIZE_MAX;
    say_text(link, old ? "HTTP/1.0 " : "HTTP/1.1 ");
    say_number(link, "%zu x\r\n", (size_t) r->status);
    if (old) {
        chunked = 0;
        if (how & 1)
            say_text(link, "Connection: keep-alive\r\n");
        else
            close = 1;
    } else if (close)
        say_text(link, "Connection: close\r\n");
    if (r->status == 204 || r->status == 304 || is_head(r)) {
        if (is_head(r))
            say_number(link, "Content-Length: %zu\r\n", n);
        say_text(link, "\r\n");
        r->body_n = 0;
        link->last = close;
    } else {
        if (r->status == 200 && how & 128)
            say_checksum(link, r);
        if (r->status == 206)
            say_text(link, "Content-Range: bytes some/all\r\n");
        if (!until_end)
            say_text(link, chunked ? "Transfer-Encoding: chunked\r\n" : "");
        if (!until_end && !chunked)
            say_number(link, "Content-Length: %zu\r\n", n);
        say_text(link, "\r\n");
        r->body_n = n;
        if (!until_end && chunked) {
            size_t at = 0;
            while (at < n && link->in_n < WIRE - 300) {
                size_t some = 1 + below(200);
                if (some > n - at)
                    some = n - at;
                say_number(link, "%zx\r\n", some);
                say_body(link, r, at, some);
                say_text(link, "\r\n");
                at += some;
            }
            r->body_n = at;
            r->object_n = at;
            if (r->status == 206)
                r->object_n = (size_t) r->base + at;
            if (r->status == 200 && how & 128)
                r->ending = ANYTHING; /* its checksum is not that of what was left out, if something was */
            say_text(link, how & 8 ? "0\r\nx-trailer: v\r\n\r\n" : "0\r\n\r\n");
        } else
            say_body(link, r, 0, n);
        link->last = close || until_end;
        if (until_end)
            link->end = ENDED;
    }
    link->answer_end = link->in_n;
    if (early && r->status >= 300)
        link->refused_at = link->in_n - r->body_n; /* its last byte, if the body is plain */
    if (early && r->status >= 300 && !until_end && chunked)
        link->refused_at = link->in_n;
    if (shape == 9 && link->in_n > link->read) { /* cut */
        size_t cut = 1 + below(64);
        link->in_n -= cut < link->in_n - link->arrived ? cut : link->in_n - link->arrived;
        link->end = 1 + (int) below(2);
        link->last = 1;
        if (until_end && link->end == ENDED)
            r->ending = ANYTHING; /* nobody can tell */
        else
            r->ending = CUT;
    } else if (shape == 8 && !until_end) { /* more than that */
        say_text(link, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong");
    } else if (link->end == OPEN && close && how & 64)
        link->end = 1 + (int) below(2);
}

static int once(const struct request *r) {
    return r->xfer.if_none_match || !strcmp(r->xfer.route->method, "POST");
}

/* The head of a request is there. */
static void look(struct mf_link *link) {
    unsigned number = 0;
    const char *at = strstr(link->head, " /b/k"), *length = strstr(link->head, "\r\nContent-Length: ");
    struct request *r;
    REQUIRE(at && sscanf(at, " /b/k%u HTTP/1.1\r\n", &number) == 1 && number < requests_n);
    r = requests + number;
    REQUIRE(r->live && !r->ended);
    REQUIRE(!strncmp(link->head, r->xfer.route->method, strlen(r->xfer.route->method)));
    link->current = r;
    link->body_left = length ? (size_t) atol(length + 18) : 0;
    REQUIRE(link->body_left == (r->xfer.has_body ? r->xfer.body_n : 0));
    link->body_at = 0;
    link->answered = 0;
    link->refused_at = SIZE_MAX;
    if (r->sendings++) {
        /* A second time only when the first connection was a used one, and had said nothing. */
        REQUIRE(r->sendings == 2 && r->on_used && !once(r) && r->link != link->serial);
    }
    r->link = link->serial;
    r->on_used = link->served > 1;
    r->tainted = link->anything;
    r->told = 0;
    r->ending = CUT; /* until it answers */
    r->status = 0;
    if (link->body_left && below(2))
        answer(link, 1);
}

PLAIN static void take_byte(struct mf_link *link, uint8_t c) {
    if (!link->body_left || !link->current || link->body_at == SIZE_MAX) {
        if (!link->head_n) {
            /* The next request: what came before is dealt with. */
            REQUIRE(!unread(link) && (!link->current || (link->answered && !link->last)));
            REQUIRE(!link->current || link->anything || link->read == link->answer_end);
            link->anything |= link->arrived < link->in_n; /* what comes later nobody can know of */
            link->served++;
        }
        REQUIRE(link->head_n < sizeof link->head - 1);
        link->head[link->head_n++] = (char) c;
        link->head[link->head_n] = 0;
        if (link->head_n >= 4 && !memcmp(link->head + link->head_n - 4, "\r\n\r\n", 4)) {
            link->head_n = 0;
            look(link);
            if (!link->body_left) {
                link->body_at = SIZE_MAX;
                answer(link, 0);
            }
        }
        return;
    }
    struct request *r = link->current;
    /* Whoever knows that it is refused sends no more, but for what was on its way. */
    REQUIRE(link->secure || link->anything || r->ending != HONEST || link->read < link->refused_at);
    REQUIRE(c == (r->xfer.body_fd < 0 ? pattern(r->id, link->body_at) : pattern(REQUESTS, r->file_at + link->body_at)));
    link->body_at++;
    if (!--link->body_left) {
        link->body_at = SIZE_MAX;
        if (!link->answered)
            answer(link, 0);
    }
}

PLAIN static int broken(const struct mf_link *link) {
    return link->end == RESET && at_end(link);
}

/* One byte to the server: whether there was room. */
PLAIN static int carry(struct mf_link *link, uint8_t c) {
    if (!link->window || broken(link))
        return 0;
    link->window--;
    move(1);
    take_byte(link, c);
    return 1;
}

PLAIN int mf_link_flush(struct mf_link *link) {
    size_t n = 0;
    while (n < link->held && carry(link, link->hold[n]))
        n++;
    link->held -= n;
    memmove(link->hold, link->hold + n, link->held);
    if (!link->held)
        return 0;
    return broken(link) ? MF_LINK_BROKEN : MF_LINK_WRITE;
}

/* With TLS, bytes are held until there is no more room for them, or they are flushed. */
PLAIN ptrdiff_t mf_link_send(struct mf_link *link, const struct iovec *pieces, size_t count) {
    ptrdiff_t sent = 0;
    size_t n = 0;
    REQUIRE(link->used && count > 0);
    for (size_t i = 1; i < count; i++) /* the head has what length it has */
        n += pieces[i].iov_len;
    REQUIRE(n <= (FILE_PIECE < SEND_BUDGET ? SEND_BUDGET : FILE_PIECE));
    if (broken(link))
        return MF_LINK_BROKEN;
    if (link->secure && link->writable_first) {
        link->writable_first = 0;
        return MF_LINK_READ;
    }
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < pieces[i].iov_len; k++) {
            uint8_t c = ((const uint8_t *) pieces[i].iov_base)[k];
            if (link->secure && (link->held < sizeof link->hold || mf_link_flush(link) == 0))
                link->hold[link->held++] = c;
            else if (link->secure || !carry(link, c))
                return sent ? sent : broken(link) ? MF_LINK_BROKEN : MF_LINK_WRITE;
            sent++;
        }
    return sent;
}

ptrdiff_t mf_link_send_file(struct mf_link *link, int file, int64_t offset, size_t n) {
    uint8_t bytes[256];
    struct iovec piece = {bytes, n < sizeof bytes ? n : sizeof bytes};
    ssize_t got;
    if (link->secure || below(8) == 0)
        return MF_LINK_UNABLE;
    got = pread(file, bytes, piece.iov_len, (off_t) offset);
    if (got <= 0)
        return got < 0 ? MF_LINK_UNABLE : 0;
    piece.iov_len = (size_t) got;
    got = mf_link_send(link, &piece, 1);
    return got == MF_LINK_BROKEN ? MF_LINK_UNABLE : got;
}

size_t mf_link_held(const struct mf_link *link) {
    return link->held;
}

/* ---- the dialer ---- */

struct mf_dial {
    struct mf_dial *next;
    void *owner;
    int secure, answer;
};

struct mf_dialer {
    struct mf_dial *dials;
    mf_dialed *dialed;
};

struct mf_dialer *mf_dialer_new(const struct mf_config *config, struct mf_poller *poller, mf_dialed *dialed) {
    struct mf_dialer *dialer = calloc(1, sizeof *dialer);
    (void) config, (void) poller;
    dialer->dialed = dialed;
    return dialer;
}

void mf_dialer_free(struct mf_dialer *dialer) {
    REQUIRE(!dialer->dials);
    free(dialer);
}

struct mf_dial *mf_dial_start(struct mf_dialer *dialer, const char *origin, int fresh, void *owner) {
    struct mf_dial *dial = calloc(1, sizeof *dial);
    (void) fresh;
    dial->owner = owner;
    dial->secure = !strncmp(origin, "https", 5);
    dial->next = dialer->dials;
    dialer->dials = dial;
    return dial;
}

static void forget(struct mf_dial *dial) {
    struct mf_dial **at = &worker->dialer->dials;
    while (*at != dial)
        at = &(*at)->next;
    *at = dial->next;
    free(dial);
}

void mf_dial_drop(struct mf_dial *dial) {
    forget(dial);
}

const char *mf_dialer_proxy_authorization(const struct mf_dialer *dialer) {
    (void) dialer;
    return NULL;
}

uint64_t mf_dialer_when(const struct mf_dialer *dialer) {
    return dialer->dials ? now_ns : UINT64_MAX;
}

static struct mf_link *new_link(int secure) {
    for (int i = 0; i < LINKS; i++)
        if (!links[i].used) {
            memset(links + i, 0, offsetof(struct mf_link, head));
            links[i].serial = ++serial;
            links[i].used = 1;
            links[i].secure = secure;
            links[i].window = byte() % 2 ? byte() : some_size();
            return links + i;
        }
    return NULL;
}

void mf_dialer_act(struct mf_dialer *dialer, uint64_t now) {
    struct mf_dial *dial = dialer->dials;
    unsigned what = input_n ? below(8) : 1;
    struct mf_link *link = NULL;
    void *owner;
    (void) now;
    if (!dial || !what)
        return;
    owner = dial->owner;
    if (what > 1)
        link = new_link(dial->secure);
    forget(dial);
    dialer->dialed(owner, dial, link, link ? 0 : MF_CONNECT, 0, link ? NULL : "refused");
}

/* ---- the poller ---- */

struct mf_poller {
    struct mf_watch *watches[LINKS];
};

struct mf_poller *mf_poller_new(void) {
    return calloc(1, sizeof(struct mf_poller));
}

void mf_poller_free(struct mf_poller *poller) {
    for (int i = 0; i < LINKS; i++)
        REQUIRE(!poller->watches[i]);
    free(poller);
}

int mf_poller_want(struct mf_poller *poller, struct mf_watch *watch, unsigned what) {
    if (watch == &worker->waker)
        return 0;
    REQUIRE(link_at(watch->fd)->used);
    watch->told = what;
    poller->watches[watch->fd - 100] = what ? watch : NULL;
    return 0;
}

static void tell(struct mf_poller *poller, int i) {
    struct mf_watch *watch = poller->watches[i];
    struct mf_link *link = links + i;
    unsigned what = 0;
    if (!watch)
        return;
    if (watch->told & MF_READABLE && (unread(link) || at_end(link)) && !(link->secure && link->end_seen))
        what |= MF_READABLE;
    if (watch->told & MF_READABLE && link->end == RESET && at_end(link))
        what |= MF_READABLE | MF_HUNG_UP;
    if (watch->told & MF_WRITABLE && (link->window || at_end(link)))
        what |= MF_WRITABLE;
    if (what)
        watch->ready(watch, what);
}

/* ---- requests ---- */

static struct mf_route routes[] = {
    {.operation = MF_GET, .method = "GET"},     {.operation = MF_HEAD, .method = "HEAD"},
    {.operation = MF_PUT, .method = "PUT"},     {.operation = MF_DELETE, .method = "DELETE"},
    {.operation = MF_OTHER, .method = "POST"},  {.operation = MF_OTHER, .method = "GET"},
};
#define OPERATIONS (sizeof routes / sizeof *routes)
static struct mf_route all_routes[2][OPERATIONS];

static void submit(void) {
    static const uint8_t usual[] = {0, 0, 0, 0, 0, 2, 2, 2, 2, 4, 1, 3, 5}; /* of routes */
    struct request *r = requests + requests_n;
    struct mf_xfer *x = &r->xfer;
    unsigned what = byte(), how = byte();
    if (requests_n == REQUESTS)
        return;
    memset(r, 0, sizeof *r);
    r->id = requests_n++;
    r->live = 1;
    x->route = &all_routes[what & 1][usual[(what >> 1) % sizeof usual]];
    snprintf(r->key, sizeof r->key, "k%u", r->id);
    x->key = (struct mf_text){r->key, strlen(r->key)};
    x->has_key = 1;
    x->owner = r;
    x->crc_kind = MF_NO_CRC;
    x->body_fd = -1;
    x->stop = x->wanted_bytes = x->length = -1;
    x->first_byte_ns = 2000 * MS;
    x->stall_ns = 1000 * MS;
    x->fresh = (how & 0xe0) == 0xe0;
    if (is_get(r)) {
        if (how & 1) {
            x->has_range = 1;
            x->start = (int64_t) some_size();
            x->stop = how & 2 ? x->start + 1 + (int64_t) some_size() : -1;
            x->cut = !!(how & 4);
        }
        if (how & 8) {
            x->has_target = 1;
            x->target.fd = -1;
            x->target.n = some_size();
            if (how & 16) {
                x->target.fd = file;
                x->target.offset = 65536 * (r->id + 1);
            } else
                x->target.at = r->target = block(NULL, x->target.n);
        }
    } else if (x->route->method[0] == 'P') {
        x->has_body = 1;
        x->body_n = some_size();
        x->if_none_match = x->route->operation == MF_PUT && how & 1;
        if (how & 2) {
            x->body_fd = file;
            x->body_offset = (int64_t) (r->file_at = byte());
        } else {
            size_t first = how & 4 ? x->body_n / 3 : 0;
            r->body = block(NULL, x->body_n);
            fill(r->body, r->id, 0, x->body_n);
            r->parts[0] = (struct mf_part){r->body, first};
            r->parts[1] = (struct mf_part){NULL, 0};
            r->parts[2] = (struct mf_part){r->body + first, x->body_n - first};
            x->parts = r->parts;
            x->parts_n = 3;
        }
    }
    struct mf_xfer *one = x;
    REQUIRE(mf_engine_submit(engine, channel, &one, 1) == 0);
}

static struct request *some_request(void) {
    return requests_n ? requests + below(requests_n) : NULL;
}

static void resume(struct request *r) {
    struct mf_target target = {.fd = -1};
    int64_t stop = -1, skip = 0;
    unsigned how = input_n ? byte() : r->id;
    r->resumed = 1;
    target.n = how & 1 ? some_size() : WIRE;
    if (how & 2)
        skip = (int64_t) some_size();
    if (how & 4)
        stop = (int64_t) some_size();
    if (stop >= 0 && (size_t) stop > target.n)
        stop = (int64_t) target.n;
    target.at = r->target = block(NULL, target.n);
    mf_xfer_resume(engine, &r->xfer, target, stop, skip);
}

static void check(struct request *r) {
    struct mf_xfer *x = &r->xfer;
    const uint8_t *data = x->data;
    uint8_t *read_back = NULL;
    size_t n = x->received;
    REQUIRE(x->failure >= 0 && x->failure <= MF_WHOLE && (x->failure == MF_FINE) == !x->message[0]);
    REQUIRE(x->failure != MF_CANCELLED || r->cancelled || worker->stop);
    REQUIRE(x->failure != MF_INTERNAL || exhausted);
    REQUIRE(!x->has_target || x->sink != MF_SINK_TARGET || n <= x->target.n);
    if (x->sink == MF_SINK_TARGET) {
        data = x->target.at;
        if (x->target.fd >= 0) {
            data = read_back = block(NULL, n);
            REQUIRE(pread(file, read_back, n, x->target.offset) == (ssize_t) n);
        }
    }
    /* What was said is heard, also by who was still sending, and whatever became of the connection then. */
    if (r->told && r->ending == HONEST && !r->tainted && (!r->early || r->status >= 300))
        REQUIRE(x->failure != MF_RESET && x->failure != MF_TRUNCATED && x->failure != MF_PROTOCOL);
    if (x->failure == MF_FINE && r->ending != ANYTHING && !r->tainted) {
        REQUIRE(x->status == r->status && x->status);
        int64_t from = r->base + x->skipped;
        if (x->sink != MF_SINK_ERROR) {
            REQUIRE(r->ending == HONEST || x->stopped);
            size_t whole = r->body_n < (size_t) x->skip ? 0 : r->body_n - (size_t) x->skip;
            if (x->wanted_bytes >= 0 && whole > (size_t) x->wanted_bytes)
                whole = (size_t) x->wanted_bytes;
            REQUIRE(n == whole);
            if (x->has_crc && is_get(r))
                REQUIRE(x->crc == mf_crc_update((enum mf_crc_kind) x->crc_kind, 0, data, n));
        }
        REQUIRE(is_filled(data, r->id, (uint64_t) from, n));
    }
    free(read_back);
}

static void take(void) {
    struct mf_event *event = mf_channel_take(channel);
    while (event) {
        struct mf_event *following = event->next;
        struct request *r = event->xfer->owner;
        REQUIRE(r->live && !r->ended);
        if (event->announced) {
            REQUIRE(!r->announced);
            r->announced = 1;
            if (input_n && below(2))
                resume(r);
        } else {
            r->ended = 1;
            r->live = 0;
            check(r);
            /* Nobody looks at it any more. */
            free(r->xfer.head);
            free(r->xfer.data);
            free(r->target);
            free(r->body);
            r->xfer.head = NULL;
            r->xfer.data = r->target = r->body = NULL;
        }
        event = following;
    }
}

/* ---- what happens, one thing in each round ---- */

static void happen(void) {
    struct mf_link *link = links + below(LINKS);
    struct request *r;
    switch (below(12)) {
    case 0:
    case 1:
        submit();
        break;
    case 2:
        if ((r = some_request()) && r->live) {
            r->cancelled = 1;
            mf_xfer_cancel(engine, &r->xfer);
        }
        break;
    case 3:
        if ((r = some_request()) && r->live && r->announced && !r->resumed)
            resume(r);
        break;
    case 4:
        now_ns += MS * byte() * 10;
        break;
    case 5:
        switch (byte() % 16) {
        case 0:
            now_ns += 60000 * MS;
            break;
        case 1:
            worker->stop = 1;
            break;
        case 2:
        case 3:
            allocations_left = 1 + below(16);
            break;
        default:
            break;
        }
        break;
    case 6:
        link->window += some_size();
        link->writable_first = below(8) == 1;
        link->readable_first = below(8) == 1;
        break;
    case 7:
        if (link->used && below(4) == 0 && link->end == OPEN) {
            if (below(2) && link->in_n > link->arrived) { /* in the midst of it, whatever it was */
                link->in_n = link->arrived;
                if (link->current)
                    link->current->ending = ANYTHING;
            }
            link->anything = 1;
            link->last = 1;
            link->end = 1 + (int) below(2);
        }
        break;
    case 8:
        take();
        break;
    default:
        break;
    }
    for (int i = 0; i < LINKS; i++) {
        unsigned some = byte();
        size_t left = links[i].in_n - links[i].arrived;
        if (some & 1)
            links[i].arrived += some & 2 ? left : some >> 2 < left ? some >> 2 : left;
    }
}

static unsigned rounds;

static void calm_down(void) {
    for (int i = 0; i < LINKS; i++) {
        links[i].arrived = links[i].in_n;
        links[i].window = 1 << 20;
    }
    now_ns += 200 * MS;
    take();
    int live = 0;
    for (unsigned i = 0; i < requests_n; i++) {
        struct request *r = requests + i;
        live |= r->live;
        if (r->live && r->announced && !r->resumed)
            resume(r);
    }
    REQUIRE(++rounds < 400); /* else one never ends */
    if (!live)
        worker->stop = 1;
}

int mf_poller_wait(struct mf_poller *poller, int milliseconds, void *lock) {
    (void) lock;
    now_ns += 1000;
    if (!milliseconds)
        now_ns++;
    if (input_n)
        happen();
    else
        calm_down();
    for (int i = 0; i < LINKS; i++)
        tell(poller, i);
    return 1;
}

/* ---- what else a worker needs ---- */

int mf_wake_open(int wake[2]) {
    wake[0] = wake[1] = -1;
    return 0;
}

void mf_wake_close(int wake[2]) {
    (void) wake;
}

void mf_wake_set(int wake[2]) {
    (void) wake;
}

void mf_wake_clear(int wake[2]) {
    (void) wake;
}

int mf_hold_forks(void) {
    return 0;
}

void mf_let_forks(void) {
}

int mf_global_init(void) {
    return 0;
}

void mf_engine_listed(struct mf_engine *one, int listed) {
    (void) one, (void) listed;
}

static void prepare(void) {
    uint8_t content[16384];
    if (file >= 0)
        return;
    FILE *temporary = tmpfile();
    REQUIRE(temporary);
    file = fileno(temporary);
    fill(content, REQUESTS, 0, sizeof content);
    REQUIRE(pwrite(file, content, sizeof content, 0) == sizeof content);
    for (int i = 0; i < 2; i++)
        for (size_t k = 0; k < OPERATIONS; k++) {
            all_routes[i][k] = routes[k];
            all_routes[i][k].id = mf_next_id();
            all_routes[i][k].origin = i ? "https://h1" : "http://h0";
            all_routes[i][k].host = i ? "h1" : "h0";
            all_routes[i][k].dialect = i ? MF_GOOGLE : MF_S3;
            all_routes[i][k].match_header = i ? "x-goog-if-generation-match" : "if-match";
            all_routes[i][k].path = (struct mf_text){"/b/", 3};
            all_routes[i][k].query = all_routes[i][k].region = all_routes[i][k].service = (struct mf_text){"", 0};
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct mf_config config = {.threads = 1};
    prepare();
    input = data;
    input_n = size;
    now_ns = began_ns = 1000000 * MS;
    moved = 0;
    if (byte() == 1)
        config.max_bandwidth = 50000;
    requests_n = rounds = allocations_left = 0;
    exhausted = 0;
    for (int i = 0; i < LINKS; i++)
        links[i].used = links[i].end = 0, links[i].in_n = links[i].arrived = links[i].read = 0;
    engine = mf_engine_new(&config);
    channel = mf_channel_new();
    engine->workers = worker = calloc(1, sizeof *worker);
    worker->engine = engine;
    pthread_mutex_init(&worker->lock, NULL);
    pthread_mutex_init(&worker->run, NULL);
    REQUIRE(mf_worker_prepare(worker) == 0);
    engine->running = 1;
    mf_worker_main(worker);
    take();
    for (unsigned i = 0; i < requests_n; i++)
        REQUIRE(requests[i].ended);
    mf_channel_drain(channel);
    mf_channel_free(channel);
    mf_worker_release(worker);
    for (int i = 0; i < LINKS; i++)
        REQUIRE(!links[i].used);
    free(worker);
    mf_engine_free(engine);
    return 0;
}
