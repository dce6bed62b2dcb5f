#include "http/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/eventfd.h>
#endif

/* A completion waits this long for others to be taken with it: waking the reader costs 5 to 10 us, as much as a third of a
 * small request. */
#define GATHER_NS 1000000u
#define GATHER_COUNT 64u

int mf_wake_open(int wake[2]) {
#if defined(__linux__)
    wake[0] = wake[1] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return wake[0] < 0 ? errno : 0;
#else
    int side;
    if (pipe(wake) < 0) {
        wake[0] = wake[1] = -1;
        return errno;
    }
    for (side = 0; side < 2; side++) {
        fcntl(wake[side], F_SETFD, FD_CLOEXEC);
        fcntl(wake[side], F_SETFL, O_NONBLOCK);
    }
    return 0;
#endif
}

void mf_wake_close(int wake[2]) {
    if (wake[0] >= 0)
        close(wake[0]);
    if (wake[1] >= 0 && wake[1] != wake[0])
        close(wake[1]);
    wake[0] = wake[1] = -1;
}

void mf_wake_set(int wake[2]) {
    uint64_t one = 1;
    ssize_t written;
    /* EAGAIN: it is set as can be. */
    do
        written = write(wake[1], &one, wake[0] == wake[1] ? sizeof one : 1);
    while (written < 0 && errno == EINTR);
}

void mf_wake_clear(int wake[2]) {
    uint64_t count[8];
    while (read(wake[0], count, sizeof count) > 0 && wake[0] != wake[1]) {
    }
}

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

void mf_channel_push(struct mf_channel *channel, struct mf_event *event, uint64_t now, int hold) {
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

int mf_channel_flush(struct mf_channel *channel, uint64_t now, uint64_t *when) {
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
