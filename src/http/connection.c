#include "http/worker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http/clock.h"

/* Of one connection in one round: then the others have their turn. */
#ifndef RECEIVE_BUDGET
#define RECEIVE_BUDGET ((size_t) 2 << 20)
#endif
#ifndef SEND_BUDGET
#define SEND_BUDGET ((size_t) 4 << 20)
#endif
/* Of a body in memory in one piece: the bytes are in the L2 cache when their checksum is computed. */
#ifndef RECEIVE_PIECE
#define RECEIVE_PIECE ((size_t) 256 << 10)
#endif
/* Of a body that lies in a file. */
#ifndef FILE_PIECE
#define FILE_PIECE ((size_t) 256 << 10)
#endif
#define PIECES 64
/* Bytes that came and cannot be dealt with yet, an unfinished line most of all, are moved to the front of the worker's
 * buffer when more come, unless they are more than this: a head that comes byte by byte would be moved as often. */
#ifndef HELD_LITTLE
#define HELD_LITTLE ((size_t) 4 << 10)
#endif

static void become_ready(struct mf_watch *watch, unsigned what);

struct mf_connection *mf_connection_new(struct mf_worker *worker, struct mf_origin *origin, struct mf_link *link) {
    struct mf_connection *c = calloc(1, sizeof *c);
    if (!c) {
        mf_link_close(link);
        return NULL;
    }
    c->watch.fd = mf_link_fd(link);
    c->watch.ready = become_ready;
    c->worker = worker;
    c->origin = origin;
    c->link = link;
    return c;
}

/* How many of n bytes may move now. 0: none, and the connection waits for its turn. */
static size_t allowed(struct mf_connection *c, size_t n) {
    struct mf_worker *worker = c->worker;
    struct mf_pace *pace = &worker->engine->pace;
    size_t some;
    if (pace->byte_ns <= 0)
        return n;
    some = mf_pace_take(pace, n, mf_now_ns());
    if (some || c->paced)
        return some;
    c->paced = 1;
    c->paced_next = NULL;
    if (worker->paced_last)
        worker->paced_last->paced_next = c;
    else
        worker->paced = c;
    worker->paced_last = c;
    return 0;
}

static void moved(struct mf_connection *c, size_t allowed, ptrdiff_t moved) {
    mf_pace_return(&c->worker->engine->pace, moved > 0 ? allowed - (size_t) moved : allowed);
}

static void leave_paced(struct mf_connection *c) {
    struct mf_worker *worker = c->worker;
    struct mf_connection *before = NULL, *one;
    if (!c->paced)
        return;
    for (one = worker->paced; one != c; one = one->paced_next)
        before = one;
    if (before)
        before->paced_next = c->paced_next;
    else
        worker->paced = c->paced_next;
    if (worker->paced_last == c)
        worker->paced_last = before;
    c->paced = 0;
}

static void free_buffers(struct mf_connection *c) {
    free(c->out);
    free(c->file);
    free(c->held);
    c->out = c->file = c->held = NULL;
    c->out_n = c->file_n = c->held_at = c->held_n = c->held_room = 0;
}

int mf_connection_rest(struct mf_connection *c) {
    c->xfer = NULL;
    c->outcome = MF_UNDER_WAY;
    leave_paced(c);
    c->served += c->touched != 0;
    c->touched = 0;
    free_buffers(c);
    /* An upload may have ended while the socket was looked at for writing, which it would be ready for all the time. */
    return mf_poller_want(c->worker->poller, &c->watch, MF_READABLE);
}

void mf_connection_close(struct mf_connection *c) {
    struct mf_worker *worker = c->worker;
    struct mf_connection **at;
    leave_paced(c);
    mf_poller_want(worker->poller, &c->watch, 0);
    mf_link_close(c->link);
    c->link = NULL;
    c->xfer = NULL;
    free_buffers(c);
    if (c->again)
        for (at = &worker->again; *at; at = &(*at)->again_next)
            if (*at == c) {
                *at = c->again_next;
                break;
            }
    if (c->outcome != MF_UNDER_WAY) {
        struct mf_connection *before = NULL, *one;
        for (one = worker->ended; one && one != c; one = one->ended_next)
            before = one;
        if (one) {
            if (before)
                before->ended_next = c->ended_next;
            else
                worker->ended = c->ended_next;
            if (worker->ended_last == c)
                worker->ended_last = before;
        }
    }
    c->ended_next = worker->dead;
    worker->dead = c;
}

/* ---- the end of an exchange ---- */

static void end(struct mf_connection *c, enum mf_outcome outcome) {
    if (c->outcome != MF_UNDER_WAY)
        return;
    c->outcome = outcome;
    c->ended_next = NULL;
    if (c->worker->ended_last)
        c->worker->ended_last->ended_next = c;
    else
        c->worker->ended = c;
    c->worker->ended_last = c;
}

static void fail(struct mf_connection *c, int failure, int error, const char *message) {
    mf_give_up(c->xfer, failure, error, message);
    end(c, MF_CLOSE);
}

/* The connection has broken (code MF_LINK_BROKEN) or the peer has ended it (0), and nothing more will come. */
static void break_off(struct mf_connection *c, ptrdiff_t code) {
    struct mf_xfer *xfer = c->xfer;
    const char *words = NULL;
    char text[sizeof xfer->message];
    int error = 0;
    if (code == MF_LINK_BROKEN)
        error = mf_link_error(c->link, &words);
    if (!c->answered && c->served > 0 && (!c->touched || !mf_request_once(xfer))) {
        end(c, MF_REPEAT);
        return;
    }
    if (c->phase == MF_PHASE_BODY) {
        if (!words && mf_body_ended(&c->body) == MF_HTTP_DONE)
            end(c, MF_CLOSE);
        else if (c->sending && xfer->status >= 300)
            end(c, MF_CLOSE); /* it answered before it had the body, and did not wait for us to read the answer */
        else if (words)
            fail(c, MF_RESET, error, words);
        else
            fail(c, MF_TRUNCATED, 0, "the connection ended before the body did");
        return;
    }
    snprintf(text, sizeof text, "%s%s%s",
             c->phase == MF_PHASE_COMPLETE ? "the connection ended while the request was being sent"
             : c->answered                 ? "the connection ended within the response's headers"
                                           : "the connection ended before a response came",
             words ? ": " : "", words ? words : "");
    fail(c, MF_RESET, error, text);
}

/* The response is there. left: bytes behind it, which are no answer to anything. */
static void complete(struct mf_connection *c, size_t left) {
    c->phase = MF_PHASE_COMPLETE;
    c->keep = c->head.keep && !left;
    if (!c->sending)
        end(c, c->keep ? MF_KEEP : MF_CLOSE);
    else if (c->xfer->status >= 300)
        end(c, MF_CLOSE);
    else if (c->snapped) /* it says that it has done what it cannot have read to the end */
        fail(c, MF_RESET, 0, "the connection broke while the request was being sent");
}

/* ---- what comes ---- */

/* What to do behind a verdict; whether the exchange goes on right now. */
static int heed(struct mf_connection *c, enum mf_verdict verdict) {
    if (verdict == MF_ON)
        return 1;
    if (verdict != MF_HOLD)
        end(c, MF_CLOSE);
    return 0;
}

static void answer_begins(struct mf_connection *c) {
    mf_body_begin(&c->body, &c->head);
    c->phase = MF_PHASE_BODY;
    if (c->sending && c->head.status >= 300)
        c->mute = 1;
}

/* Deals with at[0:n] as far as it can, and returns how far that is. */
static size_t feed(struct mf_connection *c, const char *at, size_t n) {
    struct mf_xfer *xfer = c->xfer;
    size_t done = 0;
    while (c->outcome == MF_UNDER_WAY && !xfer->paused) {
        enum mf_http code;
        size_t from, size, taken;
        if (c->phase == MF_PHASE_HEAD) {
            if (done == n)
                break;
            code = mf_head_read(at + done, n - done, c->seen, strcmp(xfer->route->method, "HEAD") == 0, &c->head);
            if (code == MF_HTTP_MORE) {
                c->seen = n - done;
                break;
            }
            c->seen = 0;
            if (code != MF_HTTP_DONE) {
                fail(c, MF_PROTOCOL, 0, mf_http_words(code));
                break;
            }
            from = done + c->head.fields;
            done += c->head.n;
            if (c->head.status < 200)
                continue; /* interim responses, however many, are no answer */
            answer_begins(c);
            if (!heed(c, mf_response_head(xfer, &c->head, at + from)))
                break;
            if (c->head.framing == MF_FRAMING_NONE || (c->head.framing == MF_FRAMING_LENGTH && c->head.length == 0)) {
                complete(c, n - done);
                break;
            }
            continue;
        }
        if (done == n || c->phase != MF_PHASE_BODY)
            break;
        code = mf_body_read(&c->body, at + done, n - done, &from, &size, &taken);
        if (code != MF_HTTP_DONE && code != MF_HTTP_MORE) {
            fail(c, MF_PROTOCOL, 0, mf_http_words(code));
            break;
        }
        from += done;
        done += taken;
        if (size && !heed(c, mf_response_body(xfer, (const uint8_t *) at + from, size))) {
            if (xfer->paused && code == MF_HTTP_DONE)
                c->phase = MF_PHASE_COMPLETE; /* told when there is a target */
            break;
        }
        if (code == MF_HTTP_DONE) {
            complete(c, n - done);
            break;
        }
        if (!taken)
            break;
    }
    return done;
}

/* Keeps bytes that could not be dealt with. They may lie in c->held already. */
static void hold(struct mf_connection *c, const char *at, size_t n) {
    if (c->held && at == c->held + c->held_at) {
        c->held_n = n;
        return;
    }
    if (n > c->held_room) {
        char *grown = malloc(n);
        if (!grown) {
            fail(c, MF_INTERNAL, 0, "out of memory");
            return;
        }
        free(c->held);
        c->held = grown;
        c->held_room = n;
    }
    memmove(c->held, at, n);
    c->held_at = 0;
    c->held_n = n;
}

/* What is held, and room behind it. NULL: no memory. */
static char *room_behind(struct mf_connection *c, size_t *have, size_t *room) {
    char *scratch = c->worker->scratch, *grown;
    *have = c->held_n;
    if (c->held_n <= HELD_LITTLE) {
        if (c->held_n)
            memcpy(scratch, c->held + c->held_at, c->held_n);
        c->held_n = 0;
        *room = MF_SCRATCH - *have;
        return scratch;
    }
    if (c->held_at) {
        memmove(c->held, c->held + c->held_at, c->held_n);
        c->held_at = 0;
    }
    if (c->held_room - c->held_n < HELD_LITTLE) {
        if (!(grown = realloc(c->held, 2 * c->held_room + HELD_LITTLE)))
            return NULL;
        c->held = grown;
        c->held_room = 2 * c->held_room + HELD_LITTLE;
    }
    *room = c->held_room - c->held_n;
    return c->held;
}

static void digest_held(struct mf_connection *c) {
    size_t done;
    if (!c->held_n)
        return;
    done = feed(c, c->held + c->held_at, c->held_n);
    c->held_at += done;
    c->held_n -= done;
}

static void later(struct mf_connection *c) {
    if (c->again)
        return;
    c->again = 1;
    c->again_next = c->worker->again;
    c->worker->again = c;
}

/* Whether the socket is to be waited for. */
static void receive(struct mf_connection *c) {
    struct mf_xfer *xfer = c->xfer;
    size_t budget = RECEIVE_BUDGET;
    c->stuck = 0;
    digest_held(c);
    while (c->outcome == MF_UNDER_WAY && !xfer->paused) {
        size_t n = 0, have = 0, done;
        ptrdiff_t got;
        uint8_t *straight = NULL;
        char *at;
        int dry;
        if (c->phase == MF_PHASE_BODY && !c->held_n)
            straight = mf_response_room(xfer, mf_body_straight(&c->body), &n);
        if (straight) {
            n = allowed(c, n > RECEIVE_PIECE ? RECEIVE_PIECE : n);
            if (!n)
                return;
            got = mf_link_receive(c->link, straight, n);
        } else {
            at = room_behind(c, &have, &n);
            if (!at) {
                fail(c, MF_INTERNAL, 0, "out of memory");
                return;
            }
            n = allowed(c, n);
            got = n ? mf_link_receive(c->link, at + have, n) : 0;
            if (got <= 0 && have)
                hold(c, at, have);
            if (!n)
                return;
        }
        moved(c, n, got);
        if (got == MF_LINK_READ || got == MF_LINK_WRITE) {
            c->stuck = got == MF_LINK_WRITE;
            if (c->snapped)
                break_off(c, MF_LINK_BROKEN);
            return;
        }
        if (got <= 0) {
            break_off(c, got);
            return;
        }
        if (!c->answered && c->served > 0 && mf_link_held(c->link) >= c->given) {
            /* Nothing of the request has left us: this is an answer to nothing. */
            c->touched = 0;
            break_off(c, MF_LINK_BROKEN);
            return;
        }
        c->answered = 1;
        dry = (size_t) got < n && !mf_link_pending(c->link);
        if (straight) {
            enum mf_http code = mf_body_received(&c->body, (size_t) got);
            if (heed(c, mf_response_landed(xfer, (size_t) got)) && code == MF_HTTP_DONE)
                complete(c, 0);
            else if (xfer->paused && code == MF_HTTP_DONE)
                c->phase = MF_PHASE_COMPLETE;
        } else if (c->phase == MF_PHASE_COMPLETE)
            c->keep = 0; /* more than the response, while the request is still being sent */
        else {
            done = feed(c, at, have + (size_t) got);
            if (c->outcome == MF_UNDER_WAY && done < have + (size_t) got) {
                if (at == c->held) {
                    c->held_at = done;
                    c->held_n = have + (size_t) got - done;
                } else
                    hold(c, at + done, have + (size_t) got - done);
            } else
                c->held_n = 0;
        }
        if (dry)
            return;
        if ((size_t) got >= budget) {
            if (c->outcome == MF_UNDER_WAY && !xfer->paused && mf_link_pending(c->link))
                later(c);
            return;
        }
        budget -= (size_t) got;
    }
}

/* ---- what is sent ---- */

/* The next pieces of the request, and their bytes: 0 when there are none, < 0 for a file that cannot be read. No more
 * of the body than a round may send: macOS refuses more than 2 GiB in one call. */
static int gather(struct mf_connection *c, struct iovec *pieces, size_t *n) {
    struct mf_xfer *xfer = c->xfer;
    size_t i, at, left = xfer->body_n - c->body_at, room = SEND_BUDGET;
    int count = 0;
    *n = 0;
    if (c->out_n) {
        pieces[count].iov_base = c->out + c->out_at;
        pieces[count++].iov_len = c->out_n;
        *n += c->out_n;
    }
    if (!left)
        return count;
    if (xfer->body_fd >= 0) {
        if (!c->file_n) {
            size_t some = left < FILE_PIECE ? left : FILE_PIECE;
            if (!c->file) {
                c->file = malloc(some);
                if (!c->file) {
                    mf_give_up(xfer, MF_INTERNAL, 0, "out of memory");
                    return -1;
                }
            }
            if (mf_request_read(xfer, c->body_at, c->file, some) < 0)
                return -1;
            c->file_at = 0;
            c->file_n = some;
        }
        pieces[count].iov_base = c->file + c->file_at;
        pieces[count++].iov_len = c->file_n;
        *n += c->file_n;
        return count;
    }
    for (i = c->part, at = c->part_at; i < xfer->parts_n && count < PIECES && room; i++, at = 0) {
        size_t some = xfer->parts[i].n - at;
        if (!some)
            continue;
        if (some > room)
            some = room;
        room -= some;
        pieces[count].iov_base = (void *) (xfer->parts[i].at + at);
        pieces[count++].iov_len = some;
        *n += some;
    }
    return count;
}

/* n bytes of the pieces are the link's. */
static void taken(struct mf_connection *c, size_t n) {
    struct mf_xfer *xfer = c->xfer;
    size_t some = n < c->out_n ? n : c->out_n;
    c->out_at += some;
    c->out_n -= some;
    n -= some;
    c->body_at += n;
    if (xfer->body_fd >= 0) {
        c->file_at += n;
        c->file_n -= n;
    } else
        while (n) {
            size_t left = xfer->parts[c->part].n - c->part_at;
            some = n < left ? n : left;
            c->part_at += some;
            n -= some;
            if (c->part_at == xfer->parts[c->part].n && n) {
                c->part++;
                c->part_at = 0;
            }
        }
}

static void all_sent(struct mf_connection *c) {
    c->sending = 0;
    c->xfer->sent = 1;
    c->xfer->progress_ns = mf_now_ns();
    if (c->out != c->worker->arena)
        free(c->out);
    free(c->file);
    c->out = c->file = NULL;
    if (c->phase == MF_PHASE_COMPLETE)
        end(c, c->keep ? MF_KEEP : MF_CLOSE);
}

/* The pieces that make up the first n bytes of them. */
static int shorten(struct iovec *pieces, int count, size_t n) {
    int i;
    for (i = 0; i < count && pieces[i].iov_len <= n; i++)
        n -= pieces[i].iov_len;
    if (i < count && n)
        pieces[i++].iov_len = n;
    return i;
}

/* From the file's pages to the connection, where that can be. CPU of 64 MiB objects over loopback: 0.41 s/GB when they
 * were read and sent, 0.2 so. Short bodies go in one call with the head instead. */
static ptrdiff_t send_file(struct mf_connection *c, size_t *n) {
    struct mf_xfer *xfer = c->xfer;
    size_t left = xfer->body_n - c->body_at, some;
    ptrdiff_t sent;
    if (xfer->body_fd < 0 || c->read || c->out_n || c->file_n || left < FILE_PIECE)
        return MF_LINK_UNABLE;
    if (left > SEND_BUDGET)
        left = SEND_BUDGET;
    some = allowed(c, left);
    if (!some)
        return MF_LINK_READ; /* nothing has to be ready: it goes on when it may */
    sent = mf_link_send_file(c->link, xfer->body_fd, xfer->body_offset + (int64_t) c->body_at, some);
    moved(c, some, sent);
    *n = some;
    if (sent > 0)
        c->body_at += (size_t) sent;
    else if (sent != MF_LINK_WRITE) {
        c->read = 1;
        return MF_LINK_UNABLE;
    }
    return sent;
}

static void send_some(struct mf_connection *c) {
    size_t budget = SEND_BUDGET;
    c->blocked = 0;
    while (c->sending && !c->mute && c->outcome == MF_UNDER_WAY) {
        struct iovec pieces[PIECES];
        size_t n = 0;
        int count = -1;
        ptrdiff_t sent = send_file(c, &n);
        if (sent == MF_LINK_UNABLE) {
            count = gather(c, pieces, &n);
            if (count < 0) {
                end(c, MF_CLOSE);
                return;
            }
            if (count) {
                size_t some = allowed(c, n);
                if (!some)
                    return;
                count = shorten(pieces, count, some);
                sent = mf_link_send(c->link, pieces, (size_t) count);
                moved(c, some, sent);
                n = some;
            } else
                sent = mf_link_flush(c->link);
        }
        if (sent == MF_LINK_BROKEN) {
            c->snapped = c->mute = 1;
            return;
        }
        if (sent < 0) {
            c->blocked = (int) sent;
            return;
        }
        if (!count) {
            all_sent(c);
            return;
        }
        c->touched |= sent > 0;
        if (sent > 0)
            c->given += (size_t) sent;
        if (count > 0)
            taken(c, (size_t) sent);
        mf_xfer_flow(c->xfer, c->body_at);
        c->xfer->uploaded += (size_t) sent;
        if (c->xfer->uploaded >= MF_STALL_BYTES) {
            c->xfer->uploaded = 0;
            c->xfer->progress_ns = mf_now_ns();
        }
        if ((size_t) sent >= budget || ((size_t) sent < n && !mf_link_secure(c->link))) {
            c->blocked = MF_LINK_WRITE;
            return;
        }
        budget -= (size_t) sent;
    }
}

/* ---- the poller's side ---- */

static void watch(struct mf_connection *c) {
    unsigned what = MF_READABLE;
    int code;
    if (c->outcome != MF_UNDER_WAY)
        return; /* looked at within the round */
    if (c->paced || (c->xfer && c->xfer->paused))
        what = 0;
    else if (c->stuck || (c->sending && !c->mute && c->blocked == MF_LINK_WRITE))
        what |= MF_WRITABLE;
    if ((code = mf_poller_want(c->worker->poller, &c->watch, what)) != 0) {
        if (c->xfer)
            fail(c, MF_INTERNAL, code, strerror(code));
        else
            end(c, MF_CLOSE);
    }
}

static void go_on(struct mf_connection *c, unsigned what) {
    if (c->outcome != MF_UNDER_WAY)
        return;
    if (!c->xfer) {
        if (!mf_link_idle(c->link))
            end(c, MF_CLOSE);
        return;
    }
    if (what & (MF_READABLE | MF_HUNG_UP) || c->stuck)
        receive(c);
    if (c->outcome == MF_UNDER_WAY && c->sending && !c->mute && !c->xfer->paused) {
        send_some(c);
        if (c->snapped && c->outcome == MF_UNDER_WAY)
            receive(c); /* an answer may have come before it broke */
    }
    watch(c);
}

static void become_ready(struct mf_watch *watch, unsigned what) {
    go_on((struct mf_connection *) watch, what);
}

void mf_connection_again(struct mf_connection *c) {
    c->again = 0;
    go_on(c, MF_READABLE);
}

void mf_connections_paced(struct mf_worker *worker) {
    struct mf_connection *c, *last = worker->paced_last;
    int others = last != NULL; /* who comes to the end of the list again waits for the next round */
    while (others && mf_pace_when(&worker->engine->pace) <= mf_now_ns()) {
        c = worker->paced;
        others = c != last;
        leave_paced(c);
        if (c->outcome != MF_UNDER_WAY || !c->xfer)
            continue;
        c->xfer->progress_ns = mf_now_ns(); /* that we waited is no stall of the server's */
        go_on(c, MF_READABLE);
    }
}

void mf_connection_begin(struct mf_connection *c, struct mf_xfer *xfer) {
    struct mf_worker *worker = c->worker;
    size_t n;
    int failure;
    xfer->connection = c;
    xfer->progress_ns = mf_now_ns();
    c->xfer = xfer;
    c->outcome = MF_UNDER_WAY;
    c->sending = c->blocked = c->mute = c->snapped = c->stuck = c->touched = c->keep = c->answered = 0;
    c->read = 0;
    c->part = c->part_at = c->body_at = c->seen = c->given = 0;
    c->phase = MF_PHASE_HEAD;
    if ((failure = mf_request_build(worker, xfer, &n)) != 0) {
        xfer->failure = failure;
        end(c, MF_KEEP); /* nothing was sent */
        return;
    }
    xfer->reused = c->served > 0;
    xfer->progress_ns = mf_now_ns();
    xfer->uploaded = 0;
    mf_xfer_flow(xfer, 0);
    xfer->sent = 0;
    c->sending = 1;
    c->out = worker->arena;
    c->out_at = 0;
    c->out_n = n;
    send_some(c);
    if (c->out == worker->arena) {
        char *rest = c->out + c->out_at;
        c->out = NULL;
        if (c->out_n && c->outcome == MF_UNDER_WAY && !c->snapped) {
            c->out = malloc(c->out_n);
            if (!c->out) {
                fail(c, MF_INTERNAL, 0, "out of memory");
                return;
            }
            memcpy(c->out, rest, c->out_n);
            c->out_at = 0;
        }
    }
    if (c->snapped && c->outcome == MF_UNDER_WAY)
        receive(c);
    watch(c);
}

void mf_connection_resume(struct mf_connection *c) {
    struct mf_xfer *xfer = c->xfer;
    size_t left = c->held_n;
    if (c->outcome != MF_UNDER_WAY || !heed(c, mf_response_resume(xfer)))
        return;
    if (c->phase == MF_PHASE_COMPLETE)
        complete(c, left);
    else
        go_on(c, MF_READABLE);
}
