#include "http/worker.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "http/clock.h"

uint64_t mf_next_id(void) {
    static uint64_t last;
    return __atomic_add_fetch(&last, 1, __ATOMIC_RELAXED);
}

struct mf_engine *mf_engine_new(const struct mf_config *config) {
    struct mf_engine *engine = calloc(1, sizeof *engine);
    if (!engine)
        return NULL;
    engine->config = *config;
    if (engine->config.threads < 1)
        engine->config.threads = 1;
    mf_pace_begin(&engine->pace, engine->config.max_bandwidth);
    pthread_mutex_init(&engine->lock, NULL);
    return engine;
}

void mf_engine_free(struct mf_engine *engine) {
    pthread_mutex_destroy(&engine->lock);
    free(engine);
}

static void tell_stop(struct mf_worker *worker) {
    pthread_mutex_lock(&worker->lock);
    worker->stop = 1;
    pthread_mutex_unlock(&worker->lock);
    mf_wake_set(worker->wake);
}

static void release(struct mf_worker *worker) {
    mf_worker_release(worker);
    pthread_mutex_destroy(&worker->lock);
    pthread_mutex_destroy(&worker->run);
}

/* While forks are held. */
static int start_held(struct mf_engine *engine) {
    int n = engine->config.threads, made, code;
    sigset_t all, before;
    if ((code = mf_global_init()) != 0)
        return code;
    engine->workers = calloc((size_t) n, sizeof *engine->workers);
    if (!engine->workers)
        return ENOMEM;
    /* Signals are Python's main thread's: with all of them blocked here the kernel never picks one of ours for
     * Ctrl-C. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (made = 0; made < n; made++) {
        struct mf_worker *worker = engine->workers + made;
        worker->engine = engine;
        pthread_mutex_init(&worker->lock, NULL);
        pthread_mutex_init(&worker->run, NULL);
        code = mf_worker_prepare(worker);
        if (!code)
            code = pthread_create(&worker->thread, NULL, mf_worker_main, worker);
        if (code) {
            release(worker);
            break;
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!code) {
        engine->running = 1;
        mf_engine_listed(engine, 1);
        return 0;
    }
    while (made-- > 0) {
        tell_stop(engine->workers + made);
        pthread_join(engine->workers[made].thread, NULL);
        release(engine->workers + made);
    }
    free(engine->workers);
    engine->workers = NULL;
    return code;
}

static int start_threads(struct mf_engine *engine) {
    int code = mf_hold_forks();
    if (code)
        return code;
    code = start_held(engine);
    mf_let_forks();
    return code;
}

static void enqueue(struct mf_worker *worker, struct mf_xfer *xfer) {
    xfer->in_next = NULL;
    xfer->in_prev = worker->inbox_last;
    if (worker->inbox_last)
        worker->inbox_last->in_next = xfer;
    else
        worker->inbox = xfer;
    worker->inbox_last = xfer;
    xfer->queued = 1;
}

int mf_engine_submit(struct mf_engine *engine, struct mf_channel *channel, struct mf_xfer **xfers, size_t n) {
    size_t i, threads;
    int code = 0;
    uint64_t now;
    pthread_mutex_lock(&engine->lock);
    if (!engine->running && (code = start_threads(engine)) != 0) {
        pthread_mutex_unlock(&engine->lock);
        return code;
    }
    mf_channel_expect(channel, n);
    threads = (size_t) engine->config.threads;
    now = mf_now_ns();
    /* All locks of the workers for the whole batch (always in the same order): one lock and at most one wake per worker
     * and batch, and an exact view of who has the least to do. */
    for (i = 0; i < threads; i++)
        pthread_mutex_lock(&engine->workers[i].lock);
    for (i = 0; i < n; i++) {
        struct mf_worker *worker = engine->workers;
        size_t other;
        for (other = 1; other < threads; other++)
            if (engine->workers[other].outstanding < worker->outstanding)
                worker = engine->workers + other;
        xfers[i]->worker = worker;
        xfers[i]->channel = channel;
        xfers[i]->epoch = engine->epoch;
        xfers[i]->submitted_ns = now;
        xfers[i]->wanted = MF_WANT_START;
        worker->outstanding++;
        enqueue(worker, xfers[i]);
    }
    for (i = 0; i < threads; i++) {
        struct mf_worker *worker = engine->workers + i;
        int wake = worker->asleep && worker->inbox;
        if (wake)
            worker->asleep = 0;
        pthread_mutex_unlock(&worker->lock);
        if (wake)
            mf_wake_set(worker->wake);
    }
    pthread_mutex_unlock(&engine->lock);
    return 0;
}

static void tell(struct mf_xfer *xfer, unsigned want) {
    struct mf_worker *worker = xfer->worker;
    int wake = 0;
    xfer->wanted |= want;
    if (!xfer->queued)
        enqueue(worker, xfer);
    if (worker->asleep) {
        worker->asleep = 0;
        wake = 1;
    }
    if (wake)
        mf_wake_set(worker->wake);
}

/* The engine's lock: its workers may have been stopped and freed meanwhile, and then every request of theirs has
 * ended. */
static void command(struct mf_engine *engine, struct mf_xfer *xfer, unsigned want, const struct mf_target *target,
                    int64_t stop, int64_t skip) {
    pthread_mutex_lock(&engine->lock);
    if (engine->running && engine->epoch == xfer->epoch) {
        struct mf_worker *worker = xfer->worker;
        pthread_mutex_lock(&worker->lock);
        if (!xfer->done) {
            if (target) {
                xfer->resume_target = *target;
                xfer->resume_stop = stop;
                xfer->resume_skip = skip;
            }
            tell(xfer, want);
        }
        pthread_mutex_unlock(&worker->lock);
    }
    pthread_mutex_unlock(&engine->lock);
}

void mf_xfer_resume(struct mf_engine *engine, struct mf_xfer *xfer, struct mf_target target, int64_t stop,
                    int64_t skip) {
    command(engine, xfer, MF_WANT_RESUME, &target, stop, skip);
}

void mf_xfer_cancel(struct mf_engine *engine, struct mf_xfer *xfer) {
    command(engine, xfer, MF_WANT_CANCEL, NULL, 0, 0);
}

void mf_engine_stop(struct mf_engine *engine) {
    int i, n = engine->config.threads;
    pthread_mutex_lock(&engine->lock);
    if (engine->running) {
        for (i = 0; i < n; i++)
            tell_stop(engine->workers + i);
        for (i = 0; i < n; i++)
            pthread_join(engine->workers[i].thread, NULL);
        (void) mf_hold_forks(); /* which was possible when the threads were started */
        mf_engine_listed(engine, 0);
        for (i = 0; i < n; i++)
            release(engine->workers + i);
        mf_let_forks();
        free(engine->workers);
        engine->workers = NULL;
        engine->running = 0;
        engine->epoch++;
    }
    pthread_mutex_unlock(&engine->lock);
}
