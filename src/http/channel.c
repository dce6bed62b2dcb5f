#include "http/worker.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include "http/clock.h"

/* A completion waits this long for others to be taken with it: waking the reader costs 5 to 10 us, as much as a third
 * of a small request. */
#define GATHER_NS 1000000u
#define GATHER_COUNT 64u

/* ---- the caller's side ---- */

struct mf_channel *mf_channel_new(void) {
    struct mf_channel *channel = calloc(1, sizeof *channel);
    int code;
    if (!channel)
        return NULL;
    if ((code = mf_wake_open(channel->wake)) != 0) {
        free(channel);
        errno = code;
        return NULL;
    }
    pthread_mutex_init(&channel->lock, NULL);
    pthread_cond_init(&channel->idle, NULL);
    return channel;
}

void mf_channel_free(struct mf_channel *channel) {
    mf_wake_close(channel->wake);
    pthread_cond_destroy(&channel->idle);
    pthread_mutex_destroy(&channel->lock);
    free(channel);
}

int mf_channel_fileno(const struct mf_channel *channel) {
    return channel->wake[0];
}

struct mf_event *mf_channel_take(struct mf_channel *channel) {
    struct mf_event *list;
    pthread_mutex_lock(&channel->lock);
    list = channel->first;
    channel->first = channel->last = NULL;
    channel->waiting = 0;
    channel->urgent = 0;
    if (channel->signalled) {
        mf_wake_clear(channel->wake);
        channel->signalled = 0;
    }
    pthread_mutex_unlock(&channel->lock);
    return list;
}

int mf_channel_wait(struct mf_channel *channel, int milliseconds) {
    struct pollfd one = {.fd = channel->wake[0], .events = POLLIN};
    return poll(&one, 1, milliseconds);
}

void mf_channel_drain(struct mf_channel *channel) {
    pthread_mutex_lock(&channel->lock);
    channel->closing = 1;
    while (channel->outstanding || channel->holders)
        pthread_cond_wait(&channel->idle, &channel->lock);
    pthread_mutex_unlock(&channel->lock);
}

/* ---- the workers' side ---- */

void mf_channel_expect(struct mf_channel *channel, size_t n) {
    pthread_mutex_lock(&channel->lock);
    channel->outstanding += n;
    pthread_mutex_unlock(&channel->lock);
}

/* hold: the worker will come back to it. */
static void append(struct mf_channel *channel, struct mf_event *event, uint64_t now, int hold) {
    event->next = NULL;
    pthread_mutex_lock(&channel->lock);
    if (channel->last)
        channel->last->next = event;
    else {
        channel->first = event;
        channel->oldest_ns = now;
    }
    channel->last = event;
    channel->waiting++;
    if (hold)
        channel->holders++;
    if (event->announced)
        channel->urgent = 1;
    else
        channel->outstanding--;
    pthread_mutex_unlock(&channel->lock);
}

/* 1: the worker is through with it; 0: not before *when. */
static int signal_reader(struct mf_channel *channel, uint64_t now, uint64_t *when) {
    int through = 1;
    pthread_mutex_lock(&channel->lock);
    if (channel->waiting && !channel->signalled) {
        /* As many waiting as still under way: a caller who keeps a few going must not idle for the sake of company. */
        if (channel->urgent || channel->closing || channel->waiting >= GATHER_COUNT ||
            channel->waiting >= channel->outstanding || now >= channel->oldest_ns + GATHER_NS) {
            channel->signalled = 1;
            mf_wake_set(channel->wake);
        } else {
            *when = channel->oldest_ns + GATHER_NS;
            through = 0;
        }
    }
    if (through) {
        channel->holders--;
        /* Under the lock: whoever waits for this frees the channel as soon as it gets the lock. */
        if (channel->closing && !channel->holders && !channel->outstanding)
            pthread_cond_broadcast(&channel->idle);
    }
    pthread_mutex_unlock(&channel->lock);
    return through;
}

static void push(struct mf_worker *worker, struct mf_channel *channel, struct mf_event *event, uint64_t now) {
    uint64_t when;
    size_t i;
    for (i = 0; i < worker->dirty_n; i++)
        if (worker->dirty[i] == channel) {
            append(channel, event, now, 0);
            return;
        }
    append(channel, event, now, 1);
    /* From here on the request may be gone, the channel may not. */
    if (worker->dirty_n < sizeof worker->dirty / sizeof *worker->dirty)
        worker->dirty[worker->dirty_n++] = channel;
    else
        while (!signal_reader(channel, UINT64_MAX, &when)) {
        }
}

void mf_announce(struct mf_xfer *xfer) {
    xfer->announce_event.xfer = xfer;
    xfer->announce_event.announced = 1;
    push(xfer->worker, xfer->channel, &xfer->announce_event, mf_now_ns());
}

void mf_end(struct mf_xfer *xfer) {
    xfer->end_event.xfer = xfer;
    xfer->end_event.announced = 0;
    push(xfer->worker, xfer->channel, &xfer->end_event, xfer->finished_ns);
}

void mf_deliver(struct mf_worker *worker, uint64_t now, uint64_t *when) {
    size_t i, kept = 0;
    for (i = 0; i < worker->dirty_n; i++) {
        uint64_t later;
        if (!signal_reader(worker->dirty[i], now, &later)) {
            worker->dirty[kept++] = worker->dirty[i];
            if (later < *when)
                *when = later;
        }
    }
    worker->dirty_n = kept;
}
