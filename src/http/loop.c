#include "http/worker.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#include "http/clock.h"

#define TICK_NS 100000000u
/* Who looks so much later than meant was stopped, or at work on a slow disk: meanwhile no peer was slow. */
#define AWAY_NS 1000000000u

/* ---- requests in and out ---- */

static void unlink_active(struct mf_worker *worker, struct mf_xfer *xfer) {
    if (!xfer->active)
        return;
    xfer->active = 0;
    if (xfer->prev)
        xfer->prev->next = xfer->next;
    else
        worker->active = xfer->next;
    if (xfer->next)
        xfer->next->prev = xfer->prev;
    xfer->next = xfer->prev = NULL;
}

static void queue_remove(struct mf_worker *worker, struct mf_xfer *xfer) {
    if (xfer->in_prev)
        xfer->in_prev->in_next = xfer->in_next;
    else
        worker->inbox = xfer->in_next;
    if (xfer->in_next)
        xfer->in_next->in_prev = xfer->in_prev;
    else
        worker->inbox_last = xfer->in_prev;
    xfer->in_next = xfer->in_prev = NULL;
    xfer->queued = 0;
}

/* The end of a request, whatever came of it: afterwards the worker knows nothing of it any more. */
static void finish(struct mf_worker *worker, struct mf_xfer *xfer) {
    mf_pool_leave(worker, xfer);
    unlink_active(worker, xfer);
    xfer->finished_ns = mf_now_ns();
    if (xfer->sink != MF_SINK_TARGET)
        xfer->received = xfer->data_n;
    pthread_mutex_lock(&worker->lock);
    xfer->done = 1; /* no cancel or resume reaches it any more */
    if (xfer->queued)
        queue_remove(worker, xfer);
    worker->outstanding--;
    pthread_mutex_unlock(&worker->lock);
    mf_end(xfer);
}

static void fail(struct mf_worker *worker, struct mf_xfer *xfer, int failure, const char *message) {
    struct mf_connection *connection = xfer->connection;
    mf_give_up(xfer, failure, 0, message);
    xfer->connection = NULL;
    if (connection)
        mf_pool_drop(connection);
    finish(worker, xfer);
}

static void start(struct mf_worker *worker, struct mf_xfer *xfer) {
    xfer->next = worker->active;
    if (xfer->next)
        xfer->next->prev = xfer;
    else if (worker->tick_ns < xfer->submitted_ns)
        worker->tick_ns = xfer->submitted_ns; /* nobody was to be looked at before */
    worker->active = xfer;
    xfer->active = 1;
    if (mf_pool_enter(worker, xfer) != 0)
        finish(worker, xfer);
}

static void obey(struct mf_worker *worker) {
    for (;;) {
        struct mf_xfer *xfer;
        unsigned wanted;
        pthread_mutex_lock(&worker->lock);
        xfer = worker->inbox;
        if (!xfer) {
            pthread_mutex_unlock(&worker->lock);
            return;
        }
        queue_remove(worker, xfer);
        wanted = xfer->wanted;
        xfer->wanted = 0;
        if (wanted & MF_WANT_RESUME) {
            xfer->target = xfer->resume_target;
            xfer->wanted_bytes = xfer->resume_stop;
            xfer->skip = xfer->resume_skip;
        }
        pthread_mutex_unlock(&worker->lock);
        if (wanted & MF_WANT_CANCEL)
            fail(worker, xfer, MF_CANCELLED, "cancelled");
        else if (wanted & MF_WANT_START)
            start(worker, xfer);
        else if (wanted & MF_WANT_RESUME && xfer->paused) {
            xfer->paused = 0;
            xfer->progress_ns = mf_now_ns();
            mf_connection_resume(xfer->connection);
        }
    }
}

/* What has ended since, and what begins on the connections that this frees. */
static void reap(struct mf_worker *worker) {
    struct mf_connection *c;
    struct mf_xfer *xfer;
    for (;;) {
        while ((c = worker->ended) != NULL) {
            enum mf_outcome outcome = c->outcome;
            worker->ended = c->ended_next;
            if (!worker->ended)
                worker->ended_last = NULL;
            c->outcome = MF_UNDER_WAY;
            if ((xfer = c->xfer) != NULL)
                xfer->connection = NULL;
            if (outcome == MF_KEEP)
                mf_pool_return(c);
            else
                mf_pool_drop(c);
            if (xfer && outcome == MF_REPEAT) {
                mf_pool_leave(worker, xfer);
                xfer->renewed = 1;
                if (mf_pool_enter(worker, xfer) != 0)
                    finish(worker, xfer);
            } else if (xfer)
                finish(worker, xfer);
        }
        if ((xfer = worker->over) == NULL)
            return;
        worker->over = xfer->wait_next;
        xfer->wait_next = NULL;
        finish(worker, xfer);
    }
}

/* Every TICK_NS: who made no progress for too long? Not by a timer for each request. Who has no connection yet waits
 * for the connect time-out, which is the dialer's. */
static void tick(struct mf_worker *worker, uint64_t now) {
    struct mf_xfer *xfer, *next;
    uint64_t away = now - worker->tick_ns > AWAY_NS ? now - worker->tick_ns : 0;
    for (xfer = worker->active; xfer; xfer = next) {
        next = xfer->next;
        if (away)
            xfer->progress_ns = xfer->progress_ns + away < now ? xfer->progress_ns + away : now;
        if (xfer->paused || !xfer->connection || xfer->connection->paced || now <= xfer->progress_ns)
            continue;
        if (xfer->head_done || !xfer->sent) {
            if (now > xfer->progress_ns + xfer->stall_ns)
                fail(worker, xfer, MF_STALL,
                     xfer->head_done ? "too few bytes came for too long" : "too few bytes could be sent for too long");
        } else if (now > xfer->progress_ns + xfer->first_byte_ns)
            fail(worker, xfer, MF_FIRST_BYTE, "no response for too long");
    }
    mf_pool_prune(worker, now);
}

/* ---- the thread ---- */

static void awoken(struct mf_watch *watch, unsigned what) {
    struct mf_worker *worker = (struct mf_worker *) ((char *) watch - offsetof(struct mf_worker, waker));
    (void) what;
    mf_wake_clear(worker->wake);
}

int mf_worker_prepare(struct mf_worker *worker) {
    int code = mf_wake_open(worker->wake);
    if (code)
        return code;
    if (!(worker->poller = mf_poller_new()))
        return errno;
    worker->waker.fd = worker->wake[0];
    worker->waker.ready = awoken;
    if ((code = mf_poller_want(worker->poller, &worker->waker, MF_READABLE)) != 0)
        return code;
    worker->scratch = malloc(MF_SCRATCH);
    worker->dialer = mf_dialer_new(&worker->engine->config, worker->poller, mf_pool_dialed);
    return worker->scratch && worker->dialer ? 0 : ENOMEM;
}

static void bury(struct mf_worker *worker) {
    struct mf_connection *c;
    while ((c = worker->dead) != NULL) {
        worker->dead = c->ended_next;
        free(c);
    }
}

void mf_worker_release(struct mf_worker *worker) {
    mf_pool_clear(worker);
    bury(worker);
    if (worker->dialer)
        mf_dialer_free(worker->dialer);
    if (worker->poller) {
        mf_poller_want(worker->poller, &worker->waker, 0);
        mf_poller_free(worker->poller);
    }
    mf_wake_close(worker->wake);
    free(worker->scratch);
    free(worker->arena);
    for (unsigned i = 0; i < MF_SIGNING_KEYS; i++)
        mf_signing_key_forget(&worker->keys[i].key);
}

/* Milliseconds to sleep, rounded up: one too early would spin. */
static int pause_until(uint64_t when, uint64_t now) {
    if (when <= now)
        return 0;
    when = (when - now + 999999u) / 1000000u;
    return when > 60000 ? 60000 : (int) when;
}

static void wait_and_act(struct mf_worker *worker, int milliseconds) {
    struct mf_connection *again, *c;
    uint64_t now;
    mf_poller_wait(worker->poller, worker->again ? 0 : milliseconds, &worker->run);
    now = mf_now_ns();
    if (worker->attempts_n || mf_dialer_when(worker->dialer) <= now)
        mf_dialer_act(worker->dialer, now);
    mf_connections_paced(worker);
    for (again = worker->again, worker->again = NULL; (c = again) != NULL;) {
        again = c->again_next;
        mf_connection_again(c);
    }
}

void *mf_worker_main(void *arg) {
    struct mf_worker *worker = arg;
    int stop = 0;
    pthread_mutex_lock(&worker->run);
    while (!stop) {
        uint64_t now, when = UINT64_MAX;
        pthread_mutex_lock(&worker->lock);
        worker->asleep = 0;
        stop = worker->stop;
        pthread_mutex_unlock(&worker->lock);
        if (stop)
            break;
        reap(worker); /* first, so that a request that has ended is not cancelled */
        obey(worker);
        reap(worker);
        bury(worker);
        now = mf_now_ns();
        if (worker->active) {
            if (now >= worker->tick_ns) {
                tick(worker, now);
                worker->tick_ns = now + TICK_NS;
            }
            when = worker->tick_ns;
        }
        mf_deliver(worker, now, &when);
        if (mf_dialer_when(worker->dialer) < when)
            when = mf_dialer_when(worker->dialer);
        if (worker->paced && mf_pace_when(&worker->engine->pace) < when)
            when = mf_pace_when(&worker->engine->pace);
        pthread_mutex_lock(&worker->lock);
        if (worker->inbox || worker->stop)
            when = 0;
        else
            worker->asleep = 1;
        pthread_mutex_unlock(&worker->lock);
        wait_and_act(worker, when == UINT64_MAX ? -1 : pause_until(when, now));
    }
    for (;;) { /* nobody submits to a worker that stops: the engine's lock is held by who stops it */
        struct mf_xfer *xfer;
        pthread_mutex_lock(&worker->lock);
        xfer = worker->inbox;
        pthread_mutex_unlock(&worker->lock);
        if (!xfer && !(xfer = worker->active))
            break;
        fail(worker, xfer, MF_CANCELLED, "the engine was closed");
    }
    while (worker->dirty_n) {
        uint64_t when;
        mf_deliver(worker, UINT64_MAX, &when);
    }
    pthread_mutex_unlock(&worker->run);
    return NULL;
}
