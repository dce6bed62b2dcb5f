/* kqueue as its manual describes it, over epoll: for tests of poller.c on Linux (-DMF_KQUEUE -Itests/rigs/kqueue).
 *
 * Sockets and pipes; reading and writing; EV_ADD and EV_DELETE. Level-triggered, one event for each filter, EV_EOF when
 * the other side has ended (reading) or is gone (both). Deleting what was not added is ENOENT. A file that includes
 * this has queues of its own. */
#ifndef TESTS_KQUEUE_EVENT_H
#define TESTS_KQUEUE_EVENT_H
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>

#define EVFILT_READ (-1)
#define EVFILT_WRITE (-2)
#define EV_ADD 0x1
#define EV_DELETE 0x2
#define EV_EOF 0x8000

struct kevent {
    uintptr_t ident;
    int16_t filter;
    uint16_t flags;
    uint32_t fflags;
    int64_t data;
    void *udata;
};

#define EV_SET(at, i, f, how, ff, d, u) (*(at) = (struct kevent){(uintptr_t) (i), (f), (how), (ff), (d), (u)})

/* One descriptor in one queue. */
struct kqueue_note {
    struct kqueue_note *next;
    int queue, fd;
    unsigned events; /* EPOLLIN, EPOLLOUT */
    void *udata[2];  /* of reading, of writing */
};

static struct kqueue_note *kqueue_notes;
static pthread_mutex_t kqueue_lock = PTHREAD_MUTEX_INITIALIZER;

static void kqueue_hold(void) {
    pthread_mutex_lock(&kqueue_lock);
}

static void kqueue_release(void) {
    pthread_mutex_unlock(&kqueue_lock);
}

/* A real one has no lock for a child to find taken. At the beginning, so that it is taken last around a fork: after the
 * threads that wait for it are parked. */
__attribute__((constructor)) static void kqueue_begin(void) {
    pthread_atfork(kqueue_hold, kqueue_release, kqueue_release);
}

static struct kqueue_note *kqueue_note_of(int queue, int fd) {
    struct kqueue_note *note = kqueue_notes;
    while (note && (note->queue != queue || note->fd != fd))
        note = note->next;
    return note;
}

static void kqueue_drop(struct kqueue_note *note) {
    struct kqueue_note **at = &kqueue_notes;
    while (*at != note)
        at = &(*at)->next;
    *at = note->next;
    free(note);
}

static int kqueue(void) {
    int queue = epoll_create1(EPOLL_CLOEXEC);
    struct kqueue_note *note, *next;
    pthread_mutex_lock(&kqueue_lock);
    for (note = kqueue_notes; note; note = next) { /* of a queue that was closed */
        next = note->next;
        if (note->queue == queue)
            kqueue_drop(note);
    }
    pthread_mutex_unlock(&kqueue_lock);
    return queue;
}

/* 0 or errno */
static int kqueue_change(int queue, const struct kevent *change) {
    int fd = (int) change->ident, writing = change->filter == EVFILT_WRITE;
    unsigned bit = writing ? EPOLLOUT : EPOLLIN;
    struct kqueue_note *note = kqueue_note_of(queue, fd);
    struct epoll_event event = {.data.fd = fd};
    if (change->flags & EV_DELETE) {
        if (!note || !(note->events & bit))
            return ENOENT;
        note->events &= ~bit;
    } else {
        if (!note) {
            note = calloc(1, sizeof *note);
            if (!note)
                return ENOMEM;
            *note = (struct kqueue_note){.next = kqueue_notes, .queue = queue, .fd = fd};
            kqueue_notes = note;
        }
        note->events |= bit;
        note->udata[writing] = change->udata;
    }
    event.events = note->events | EPOLLRDHUP;
    if (!note->events) {
        kqueue_drop(note);
        return epoll_ctl(queue, EPOLL_CTL_DEL, fd, &event) < 0 ? errno : 0;
    }
    /* Closing a descriptor removes it: then a note is of one that had this number before. */
    if (epoll_ctl(queue, EPOLL_CTL_MOD, fd, &event) == 0 ||
        (errno == ENOENT && epoll_ctl(queue, EPOLL_CTL_ADD, fd, &event) == 0))
        return 0;
    bit = (unsigned) errno;
    kqueue_drop(note);
    return (int) bit;
}

static int kevent(int queue, const struct kevent *changes, int changes_n, struct kevent *events, int events_n,
                  const struct timespec *patience) {
    struct epoll_event got[128];
    int i, n, writing, told = 0, code = 0, most = events_n < 128 ? events_n : 128;
    pthread_mutex_lock(&kqueue_lock);
    for (i = 0; i < changes_n && !code; i++)
        code = kqueue_change(queue, changes + i);
    pthread_mutex_unlock(&kqueue_lock);
    if (code || !events_n) {
        errno = code;
        return code ? -1 : 0;
    }
    n = epoll_wait(queue, got, most, patience ? (int) (patience->tv_sec * 1000 + patience->tv_nsec / 1000000) : -1);
    if (n < 0)
        return -1;
    pthread_mutex_lock(&kqueue_lock);
    for (i = 0; i < n; i++) {
        struct kqueue_note *note = kqueue_note_of(queue, got[i].data.fd);
        unsigned gone = got[i].events & (EPOLLHUP | EPOLLERR);
        for (writing = 0; note && writing < 2 && told < events_n; writing++) {
            unsigned bit = writing ? EPOLLOUT : EPOLLIN, ended = gone | (writing ? 0 : got[i].events & EPOLLRDHUP);
            if (!(note->events & bit) || !((got[i].events & bit) || ended))
                continue;
            events[told++] = (struct kevent){(uintptr_t) note->fd, writing ? EVFILT_WRITE : EVFILT_READ,
                                             ended ? EV_EOF : 0, 0, 0, note->udata[writing]};
        }
    }
    pthread_mutex_unlock(&kqueue_lock);
    return told;
}

#endif
