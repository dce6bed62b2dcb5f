#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "http/clock.h"
#include "http/worker.h"

/* Servers close what idles: nginx and radosgw after 60 to 75 s by default. A connection that is given up before costs a
 * new one, one that is kept too long a request that is sent twice. */
#define IDLE_NS 55000000000u
/* Connections that may idle in one worker, to all origins together: more than any window, so that the end of a burst
 * closes none, and not most of the descriptors that the process may have. */
#define IDLE_CONNECTIONS 2048u
#define IDLE_OF_DESCRIPTORS 4u

/* ---- origins ---- */

static struct mf_origin *origin_of(struct mf_worker *worker, const char *name) {
    struct mf_origin **at, *origin;
    for (at = &worker->origins; (origin = *at) != NULL; at = &origin->next)
        if (strcmp(origin->name, name) == 0) {
            *at = origin->next;
            break;
        }
    if (!origin) {
        size_t n = strlen(name) + 1;
        if (!(origin = calloc(1, sizeof *origin + n)))
            return NULL;
        memcpy(origin + 1, name, n);
        origin->name = (const char *) (origin + 1);
    }
    origin->next = worker->origins;
    worker->origins = origin;
    return origin;
}

static void leave(struct mf_worker *worker, struct mf_origin *origin) {
    struct mf_origin **at;
    if (--origin->users)
        return;
    for (at = &worker->origins; *at != origin; at = &(*at)->next) {
    }
    *at = origin->next;
    free(origin);
}

/* ---- who waits ---- */

static void enqueue(struct mf_origin *origin, struct mf_xfer *xfer) {
    xfer->waiting = 1;
    xfer->wait_next = NULL;
    xfer->wait_prev = origin->waiting_last;
    if (origin->waiting_last)
        origin->waiting_last->wait_next = xfer;
    else
        origin->waiting = xfer;
    origin->waiting_last = xfer;
    origin->waiting_n++;
}

static void dequeue(struct mf_origin *origin, struct mf_xfer *xfer) {
    if (xfer->wait_prev)
        xfer->wait_prev->wait_next = xfer->wait_next;
    else
        origin->waiting = xfer->wait_next;
    if (xfer->wait_next)
        xfer->wait_next->wait_prev = xfer->wait_prev;
    else
        origin->waiting_last = xfer->wait_prev;
    xfer->wait_next = xfer->wait_prev = NULL;
    xfer->waiting = 0;
    origin->waiting_n--;
}

static struct mf_xfer *first_waiting(struct mf_origin *origin) {
    struct mf_xfer *xfer = origin->waiting;
    if (xfer)
        dequeue(origin, xfer);
    return xfer;
}

/* ---- idle connections ---- */

static void unlink_idle(struct mf_connection *c) {
    struct mf_origin *origin = c->origin;
    if (c->prev)
        c->prev->next = c->next;
    else
        origin->idle = c->next;
    if (c->next)
        c->next->prev = c->prev;
    else
        origin->idle_last = c->prev;
    c->next = c->prev = NULL;
    c->idle_ns = 0;
    c->worker->idle_n--;
}

void mf_pool_drop(struct mf_connection *c) {
    if (c->idle_ns)
        unlink_idle(c);
    mf_connection_close(c);
    leave(c->worker, c->origin);
}

static struct mf_connection *take(struct mf_origin *origin) {
    uint64_t now = origin->idle ? mf_now_ns() : 0;
    struct mf_connection *c;
    while ((c = origin->idle) != NULL) {
        /* Bytes that came since are the answer to nothing: the rest of a body longer than announced, a response sent
         * twice. They must not be taken for the answer to the next request. */
        if (c->outcome == MF_UNDER_WAY && now - c->idle_ns < IDLE_NS && mf_link_idle(c->link)) {
            unlink_idle(c);
            return c;
        }
        mf_pool_drop(c);
    }
    return NULL;
}

static size_t most_idle(struct mf_worker *worker) {
    struct rlimit limit;
    if (!worker->idle_most) {
        worker->idle_most = IDLE_CONNECTIONS;
        if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur / IDLE_OF_DESCRIPTORS < IDLE_CONNECTIONS)
            worker->idle_most = limit.rlim_cur / IDLE_OF_DESCRIPTORS + 1;
    }
    return worker->idle_most;
}

/* There is one. */
static struct mf_connection *idle_longest(const struct mf_worker *worker) {
    const struct mf_origin *origin;
    struct mf_connection *found = NULL;
    for (origin = worker->origins; origin; origin = origin->next)
        if (origin->idle_last && (!found || origin->idle_last->idle_ns < found->idle_ns))
            found = origin->idle_last;
    return found;
}

void mf_pool_return(struct mf_connection *c) {
    struct mf_origin *origin = c->origin;
    struct mf_xfer *xfer;
    if (mf_connection_rest(c) != 0) {
        mf_pool_drop(c);
        return;
    }
    if (origin->waiting) {
        if (!mf_link_idle(c->link)) {
            mf_pool_drop(c);
            return;
        }
        xfer = first_waiting(origin);
        mf_connection_begin(c, xfer);
        return;
    }
    while (c->worker->idle_n >= most_idle(c->worker))
        mf_pool_drop(idle_longest(c->worker));
    c->idle_ns = mf_now_ns();
    c->prev = NULL;
    c->next = origin->idle;
    if (c->next)
        c->next->prev = c;
    else
        origin->idle_last = c;
    origin->idle = c;
    c->worker->idle_n++;
}

void mf_pool_prune(struct mf_worker *worker, uint64_t now) {
    struct mf_origin *origin, *next;
    for (origin = worker->origins; origin; origin = next) {
        next = origin->next;
        origin->users++; /* the last of its connections would take it along */
        while (origin->idle_last && now > origin->idle_last->idle_ns + IDLE_NS)
            mf_pool_drop(origin->idle_last);
        leave(worker, origin);
    }
}

/* ---- attempts at new ones ---- */

static void unlink_attempt(struct mf_attempt *attempt) {
    struct mf_origin *origin = attempt->origin;
    if (attempt->prev)
        attempt->prev->next = attempt->next;
    else
        origin->attempts = attempt->next;
    if (attempt->next)
        attempt->next->prev = attempt->prev;
    if (attempt->xfer)
        attempt->xfer->attempt = NULL;
    else
        origin->shared_n--;
    attempt->worker->attempts_n--;
}

static void give_up(struct mf_attempt *attempt) {
    mf_dial_drop(attempt->dial);
    unlink_attempt(attempt);
    leave(attempt->worker, attempt->origin);
    free(attempt);
}

static int dial(struct mf_worker *worker, struct mf_origin *origin, int fresh, struct mf_xfer *xfer) {
    struct mf_attempt *attempt = calloc(1, sizeof *attempt);
    if (!attempt)
        return -1;
    attempt->worker = worker;
    attempt->origin = origin;
    attempt->xfer = xfer;
    attempt->dial = mf_dial_start(worker->dialer, origin->name, fresh, attempt);
    if (!attempt->dial) {
        free(attempt);
        return -1;
    }
    if (xfer)
        xfer->attempt = attempt;
    else
        origin->shared_n++;
    attempt->next = origin->attempts;
    if (attempt->next)
        attempt->next->prev = attempt;
    origin->attempts = attempt;
    origin->users++;
    worker->attempts_n++;
    return 0;
}

static void over(struct mf_worker *worker, struct mf_xfer *xfer, int failure, int error, const char *message) {
    mf_give_up(xfer, failure, error, message);
    xfer->wait_next = worker->over;
    worker->over = xfer;
}

/* Whether some can be had. Looking a name up takes a few, and fails like any look-up when there are none. */
static int has_descriptors(const struct mf_worker *worker) {
    int some[4], n, had;
    for (n = 0; n < 4 && (some[n] = fcntl(worker->wake[0], F_DUPFD_CLOEXEC, 0)) >= 0; n++) {
    }
    had = n == 4;
    while (n)
        close(some[--n]);
    return had;
}

void mf_pool_dialed(void *owner, struct mf_dial *dial, struct mf_link *link, int failure, int error,
                    const char *message) {
    struct mf_attempt *attempt = owner;
    struct mf_worker *worker = attempt->worker;
    struct mf_origin *origin = attempt->origin;
    struct mf_xfer *xfer = attempt->xfer;
    struct mf_connection *c;
    (void) dial;
    unlink_attempt(attempt);
    free(attempt);
    if (!link) {
        if (failure == MF_DNS && !has_descriptors(worker)) {
            failure = MF_CONNECT;
            error = EMFILE;
            message = strerror(EMFILE);
        }
        if (error == EMFILE || error == ENFILE)
            mf_pool_prune(worker, UINT64_MAX); /* none shall idle while there are too few: for the next try */
        if (!xfer && origin->waiting_n > origin->shared_n)
            xfer = first_waiting(origin);
        if (xfer)
            over(worker, xfer, failure, error, message);
    } else {
        if (!xfer)
            xfer = first_waiting(origin);
        c = mf_connection_new(worker, origin, link);
        if (c)
            origin->users++;
        if (c && xfer)
            mf_connection_begin(c, xfer);
        else if (c)
            mf_pool_return(c);
        else if (xfer)
            over(worker, xfer, MF_INTERNAL, 0, "out of memory");
    }
    leave(worker, origin);
}

/* ---- requests ---- */

int mf_pool_enter(struct mf_worker *worker, struct mf_xfer *xfer) {
    struct mf_origin *origin = origin_of(worker, xfer->route->origin);
    int own = xfer->fresh || xfer->renewed;
    struct mf_connection *c;
    if (!origin) {
        mf_give_up(xfer, MF_INTERNAL, 0, "out of memory");
        return MF_INTERNAL;
    }
    origin->users++;
    xfer->origin = origin;
    if (!own && (c = take(origin)) != NULL) {
        mf_connection_begin(c, xfer);
        return 0;
    }
    if (dial(worker, origin, xfer->fresh, own ? xfer : NULL) < 0) {
        mf_give_up(xfer, MF_INTERNAL, 0, "out of memory");
        return MF_INTERNAL; /* mf_pool_leave follows */
    }
    if (!own)
        enqueue(origin, xfer);
    return 0;
}

void mf_pool_leave(struct mf_worker *worker, struct mf_xfer *xfer) {
    struct mf_origin *origin = xfer->origin;
    struct mf_attempt *attempt;
    if (!origin)
        return;
    if (xfer->attempt)
        give_up(xfer->attempt);
    if (xfer->waiting) {
        dequeue(origin, xfer);
        for (attempt = origin->attempts; attempt && attempt->xfer; attempt = attempt->next) {
        }
        if (attempt && origin->shared_n > origin->waiting_n)
            give_up(attempt);
    }
    xfer->origin = NULL;
    leave(worker, origin);
}

void mf_pool_clear(struct mf_worker *worker) {
    struct mf_origin *origin;
    while ((origin = worker->origins) != NULL) {
        origin->users++;
        while (origin->idle)
            mf_pool_drop(origin->idle);
        while (origin->attempts)
            give_up(origin->attempts);
        leave(worker, origin);
    }
}
