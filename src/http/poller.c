#include "http/poller.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* Tests ask for what is not this system's own: MF_POLL, or MF_KQUEUE with a sys/event.h of theirs. */
#if !defined(MF_POLL) && !defined(MF_KQUEUE)
#if defined(__linux__)
#define MF_EPOLL
#elif defined(__APPLE__) || defined(__FreeBSD__) || defined(__NetBSD__) || defined(__OpenBSD__)
#define MF_KQUEUE
#else
#define MF_POLL
#endif
#endif
#if defined(MF_EPOLL)
#include <sys/epoll.h>
typedef struct epoll_event event_of_kernel;
#elif defined(MF_KQUEUE)
#include <sys/event.h>
#include <sys/time.h>
typedef struct kevent event_of_kernel;
#else
#include <poll.h>
#endif

/* Events fetched at a time. Those that did not fit come with the next call: the kernel hands them out in turn. */
#define ROUND 128

struct mf_poller {
#if defined(MF_POLL)
    struct pollfd *asked;
    struct mf_watch **watches; /* asked[i] is of watches[i]; NULL: of none any more */
    size_t n, room;
#else
    int fd;
    int at, fetched; /* the event that is told, and how many there are in this round */
    event_of_kernel events[ROUND];
#endif
};

/* ---- what each of them does in its own way ---- */

#if defined(MF_EPOLL)

static int open_queue(void) {
    return epoll_create1(EPOLL_CLOEXEC);
}

static int ask(int queue, struct mf_watch *watch, unsigned what) {
    int how = !what ? EPOLL_CTL_DEL : watch->told ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    struct epoll_event event;
    memset(&event, 0, sizeof event);
    event.events = ((what & MF_READABLE) ? EPOLLIN : 0) | ((what & MF_WRITABLE) ? EPOLLOUT : 0);
    event.data.ptr = watch;
    return epoll_ctl(queue, how, watch->fd, &event);
}

static int fetch(struct mf_poller *poller, int milliseconds) {
    return epoll_wait(poller->fd, poller->events, ROUND, milliseconds);
}

static struct mf_watch *watch_of(const struct epoll_event *event) {
    return event->data.ptr;
}

static void forget(struct epoll_event *event) {
    event->data.ptr = NULL;
}

static unsigned what_of(const struct epoll_event *event) {
    unsigned what = 0;
    if (event->events & EPOLLIN)
        what |= MF_READABLE;
    if (event->events & EPOLLOUT)
        what |= MF_WRITABLE;
    if (event->events & (EPOLLERR | EPOLLHUP))
        what |= MF_HUNG_UP;
    return what;
}

#elif defined(MF_KQUEUE)

static int open_queue(void) {
    return kqueue(); /* no child inherits it */
}

static int ask(int queue, struct mf_watch *watch, unsigned what) {
    struct kevent changes[2];
    unsigned changed = what ^ watch->told;
    int n = 0;
    memset(changes, 0, sizeof changes);
    if (changed & MF_READABLE)
        EV_SET(changes + n++, watch->fd, EVFILT_READ, (what & MF_READABLE) ? EV_ADD : EV_DELETE, 0, 0, watch);
    if (changed & MF_WRITABLE)
        EV_SET(changes + n++, watch->fd, EVFILT_WRITE, (what & MF_WRITABLE) ? EV_ADD : EV_DELETE, 0, 0, watch);
    return kevent(queue, changes, n, NULL, 0, NULL);
}

static int fetch(struct mf_poller *poller, int milliseconds) {
    struct timespec pause = {milliseconds / 1000, (long) (milliseconds % 1000) * 1000000};
    return kevent(poller->fd, NULL, 0, poller->events, ROUND, milliseconds < 0 ? NULL : &pause);
}

static struct mf_watch *watch_of(const struct kevent *event) {
    return (struct mf_watch *) event->udata;
}

static void forget(struct kevent *event) {
    event->udata = 0;
}

/* One of reading and one of writing may come in a round: the watch is told twice. */
static unsigned what_of(const struct kevent *event) {
    return (event->filter == EVFILT_READ ? MF_READABLE : MF_WRITABLE) | ((event->flags & EV_EOF) ? MF_HUNG_UP : 0);
}

#endif

/* ---- what is alike ---- */

static void tell(struct mf_watch *watch, unsigned what) {
    what &= watch->told | MF_HUNG_UP; /* which may have changed in this round */
    if (what & MF_HUNG_UP)
        what |= MF_READABLE;
    if (what)
        watch->ready(watch, what);
}

#if !defined(MF_POLL)

struct mf_poller *mf_poller_new(void) {
    struct mf_poller *poller = calloc(1, sizeof *poller);
    if (!poller)
        return NULL;
    poller->fd = open_queue();
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

void mf_poller_abandon(struct mf_poller *poller) {
#if defined(MF_EPOLL)
    close(poller->fd);
#else
    (void) poller;
#endif
}

int mf_poller_want(struct mf_poller *poller, struct mf_watch *watch, unsigned what) {
    int i;
    if (what == watch->told)
        return 0;
    if (ask(poller->fd, watch, what) < 0 && what)
        return errno;
    if (!what)
        for (i = poller->at; i < poller->fetched; i++)
            if (watch_of(poller->events + i) == watch)
                forget(poller->events + i);
    watch->told = what;
    return 0;
}

static void prepare(struct mf_poller *poller) {
    (void) poller;
}

static void tell_all(struct mf_poller *poller, int n) {
    poller->fetched = n;
    for (poller->at = 0; poller->at < n; poller->at++) {
        struct mf_watch *watch = watch_of(poller->events + poller->at);
        if (watch)
            tell(watch, what_of(poller->events + poller->at));
    }
    poller->fetched = 0;
}

#else

struct mf_poller *mf_poller_new(void) {
    return calloc(1, sizeof(struct mf_poller));
}

void mf_poller_free(struct mf_poller *poller) {
    free(poller->asked);
    free(poller->watches);
    free(poller);
}

void mf_poller_abandon(struct mf_poller *poller) {
    (void) poller;
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

static void prepare(struct mf_poller *poller) {
    size_t i, kept = 0;
    for (i = 0; i < poller->n; i++)
        if (poller->watches[i]) {
            poller->watches[kept] = poller->watches[i];
            poller->asked[kept++] = poller->asked[i];
        }
    poller->n = kept;
}

static int fetch(struct mf_poller *poller, int milliseconds) {
    return poll(poller->asked, (nfds_t) poller->n, milliseconds);
}

static void tell_all(struct mf_poller *poller, int fetched) {
    size_t i, n = fetched ? poller->n : 0; /* those added in this round come after */
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
        if (happened & (POLLERR | POLLHUP | POLLNVAL))
            what |= MF_HUNG_UP;
        tell(watch, what);
    }
}

#endif

int mf_poller_wait(struct mf_poller *poller, int milliseconds, void *lock) {
    int n, code;
    prepare(poller);
    if (lock)
        pthread_mutex_unlock(lock);
    n = fetch(poller, milliseconds);
    code = errno;
    if (lock)
        pthread_mutex_lock(lock);
    if (n >= 0) {
        tell_all(poller, n);
        return n;
    }
    errno = code;
    return code == EINTR ? 0 : -1;
}
