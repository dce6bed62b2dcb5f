#include "http/poller.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#if defined(__linux__) && !defined(MF_NO_EPOLL)
#define MF_EPOLL
#include <sys/epoll.h>
#elif defined(MF_NO_EPOLL)
#include <poll.h>
#elif defined(__APPLE__) || defined(__FreeBSD__) || defined(__NetBSD__) || defined(__OpenBSD__)
#define MF_KQUEUE
#include <sys/event.h>
#include <sys/time.h>
#else
#include <poll.h>
#endif

/* Events fetched at a time. Those that did not fit come with the next call: the kernel hands them out in turn. */
#define ROUND 128

struct mf_poller {
    int fd; /* of epoll or kqueue */
    int fetched, at; /* events of this round, and which of them is told */
#if defined(MF_EPOLL)
    struct epoll_event events[ROUND];
#elif defined(MF_KQUEUE)
    struct kevent events[ROUND];
#else
    struct pollfd *asked;
    struct mf_watch **watches; /* asked[i] is of watches[i]; NULL: of none any more */
    size_t n, room;
#endif
};

static int wait_without(pthread_mutex_t *lock, struct mf_poller *poller, int milliseconds);
static void tell_all(struct mf_poller *poller);

int mf_poller_wait(struct mf_poller *poller, int milliseconds, void *lock) {
    int n = wait_without(lock, poller, milliseconds);
    if (n < 0)
        return errno == EINTR ? 0 : -1;
    poller->fetched = n;
    tell_all(poller);
    poller->fetched = 0;
    return n;
}

#if defined(MF_EPOLL)

struct mf_poller *mf_poller_new(void) {
    struct mf_poller *poller = calloc(1, sizeof *poller);
    if (!poller)
        return NULL;
    poller->fd = epoll_create1(EPOLL_CLOEXEC);
    if (poller->fd < 0) {
        int code = errno;
        free(poller);
        errno = code;
        return NULL;
    }
    return poller;
}

void mf_poller_free(struct mf_poller *poller) {
    close(poller->fd);
    free(poller);
}

int mf_poller_want(struct mf_poller *poller, struct mf_watch *watch, unsigned what) {
    struct epoll_event event;
    int i;
    if (what == watch->told)
        return 0;
    memset(&event, 0, sizeof event);
    event.events = ((what & MF_READABLE) ? EPOLLIN : 0) | ((what & MF_WRITABLE) ? EPOLLOUT : 0);
    event.data.ptr = watch;
    if (!what) {
        epoll_ctl(poller->fd, EPOLL_CTL_DEL, watch->fd, &event);
        for (i = poller->at; i < poller->fetched; i++)
            if (poller->events[i].data.ptr == watch)
                poller->events[i].data.ptr = NULL;
    } else if (epoll_ctl(poller->fd, watch->told ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, watch->fd, &event) < 0)
        return errno;
    watch->told = what;
    return 0;
}

static int wait_without(pthread_mutex_t *lock, struct mf_poller *poller, int milliseconds) {
    int n, code;
    if (lock)
        pthread_mutex_unlock(lock);
    n = epoll_wait(poller->fd, poller->events, ROUND, milliseconds);
    code = errno;
    if (lock)
        pthread_mutex_lock(lock);
    errno = code;
    return n;
}

static void tell_all(struct mf_poller *poller) {
    for (poller->at = 0; poller->at < poller->fetched; poller->at++) {
        struct epoll_event *event = poller->events + poller->at;
        struct mf_watch *watch = event->data.ptr;
        unsigned what = 0;
        if (!watch)
            continue;
        if (event->events & EPOLLIN)
            what |= MF_READABLE;
        if (event->events & EPOLLOUT)
            what |= MF_WRITABLE;
        what &= watch->told; /* which may have changed in this round */
        if (event->events & (EPOLLERR | EPOLLHUP))
            what |= MF_READABLE | MF_HUNG_UP;
        if (what)
            watch->ready(watch, what);
    }
}

#elif defined(MF_KQUEUE)

struct mf_poller *mf_poller_new(void) {
    struct mf_poller *poller = calloc(1, sizeof *poller);
    if (!poller)
        return NULL;
    poller->fd = kqueue(); /* no child inherits it */
    if (poller->fd < 0) {
        int code = errno;
        free(poller);
        errno = code;
        return NULL;
    }
    return poller;
}

void mf_poller_free(struct mf_poller *poller) {
    close(poller->fd);
    free(poller);
}

int mf_poller_want(struct mf_poller *poller, struct mf_watch *watch, unsigned what) {
    struct kevent changes[2];
    unsigned changed = what ^ watch->told;
    int i, n = 0;
    if (!changed)
        return 0;
    if (changed & MF_READABLE)
        EV_SET(changes + n++, watch->fd, EVFILT_READ, (what & MF_READABLE) ? EV_ADD : EV_DELETE, 0, 0, watch);
    if (changed & MF_WRITABLE)
        EV_SET(changes + n++, watch->fd, EVFILT_WRITE, (what & MF_WRITABLE) ? EV_ADD : EV_DELETE, 0, 0, watch);
    if (kevent(poller->fd, changes, n, NULL, 0, NULL) < 0 && what)
        return errno;
    if (!what)
        for (i = poller->at; i < poller->fetched; i++)
            if (poller->events[i].udata == watch)
                poller->events[i].udata = NULL;
    watch->told = what;
    return 0;
}

static int wait_without(pthread_mutex_t *lock, struct mf_poller *poller, int milliseconds) {
    struct timespec pause = {milliseconds / 1000, (long) (milliseconds % 1000) * 1000000};
    int n, code;
    if (lock)
        pthread_mutex_unlock(lock);
    n = kevent(poller->fd, NULL, 0, poller->events, ROUND, milliseconds < 0 ? NULL : &pause);
    code = errno;
    if (lock)
        pthread_mutex_lock(lock);
    errno = code;
    return n;
}

static void tell_all(struct mf_poller *poller) {
    for (poller->at = 0; poller->at < poller->fetched; poller->at++) {
        struct kevent *event = poller->events + poller->at;
        struct mf_watch *watch = event->udata;
        unsigned what;
        if (!watch)
            continue;
        what = (event->filter == EVFILT_READ ? MF_READABLE : MF_WRITABLE) & watch->told;
        if (what && (event->flags & EV_EOF))
            what |= MF_READABLE | MF_HUNG_UP;
        if (what)
            watch->ready(watch, what);
    }
}

#else

struct mf_poller *mf_poller_new(void) {
    struct mf_poller *poller = calloc(1, sizeof *poller);
    if (poller)
        poller->fd = -1;
    return poller;
}

void mf_poller_free(struct mf_poller *poller) {
    free(poller->asked);
    free(poller->watches);
    free(poller);
}

int mf_poller_want(struct mf_poller *poller, struct mf_watch *watch, unsigned what) {
    size_t i = 0;
    if (what == watch->told)
        return 0;
    if (watch->told)
        while (poller->watches[i] != watch)
            i++;
    else {
        if (poller->n == poller->room) {
            size_t room = poller->room ? 2 * poller->room : 64;
            struct mf_watch **watches = realloc(poller->watches, room * sizeof *watches);
            struct pollfd *asked;
            if (watches)
                poller->watches = watches;
            asked = watches ? realloc(poller->asked, room * sizeof *asked) : NULL;
            if (!asked)
                return ENOMEM;
            poller->asked = asked;
            poller->room = room;
        }
        i = poller->n++;
        poller->watches[i] = watch;
        poller->asked[i].revents = 0;
    }
    poller->asked[i].fd = what ? watch->fd : -1;
    poller->asked[i].events = (short) (((what & MF_READABLE) ? POLLIN : 0) | ((what & MF_WRITABLE) ? POLLOUT : 0));
    if (!what)
        poller->watches[i] = NULL; /* its place is taken out before the next wait: a round may be under way */
    watch->told = what;
    return 0;
}

static int wait_without(pthread_mutex_t *lock, struct mf_poller *poller, int milliseconds) {
    size_t i, kept = 0;
    int n, code;
    for (i = 0; i < poller->n; i++)
        if (poller->watches[i]) {
            poller->watches[kept] = poller->watches[i];
            poller->asked[kept++] = poller->asked[i];
        }
    poller->n = kept;
    if (lock)
        pthread_mutex_unlock(lock);
    n = poll(poller->asked, (nfds_t) poller->n, milliseconds);
    code = errno;
    if (lock)
        pthread_mutex_lock(lock);
    errno = code;
    return n;
}

static void tell_all(struct mf_poller *poller) {
    size_t i, n = poller->n; /* those added in this round come after */
    if (!poller->fetched)
        return;
    for (i = 0; i < n; i++) {
        struct mf_watch *watch = poller->watches[i];
        short happened = poller->asked[i].revents;
        unsigned what = 0;
        if (!watch || !happened)
            continue;
        if (happened & POLLIN)
            what |= MF_READABLE;
        if (happened & POLLOUT)
            what |= MF_WRITABLE;
        what &= watch->told;
        if (happened & (POLLERR | POLLHUP | POLLNVAL))
            what |= MF_READABLE | MF_HUNG_UP;
        if (what)
            watch->ready(watch, what);
    }
}

#endif
