#include "http/worker.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#if defined(__linux__) && !defined(MF_NO_EPOLL)
#include <sys/epoll.h>
#define EPOLL 1
#else
#define EPOLL 0
#endif

#include "http/clock.h"

#define TICK_NS 100000000u
/* Connections that may idle in one worker: more than any window, so that the end of a burst closes none. */
#define IDLE_CONNECTIONS 2048L

/* What epoll was told about a descriptor, and what libcurl wants to hear of it. A socket of ours (opened and closed
 * through our callbacks, so that we know when the number changes hands) stays registered between requests: libcurl
 * says "remove" after each and "add" at the next, which would be two system calls per request. */
struct mf_watch {
    struct mf_xfer *user; /* who had it last; not to be followed */
    uint8_t told, wanted, ours;
    uint8_t idle; /* that transfer has ended: nothing may come before the next request has been sent */
};

/* ---- libcurl's wishes ---- */

static struct mf_watch *watch_of(struct mf_worker *worker, curl_socket_t fd) {
    if ((size_t) fd >= worker->watches_n) {
        size_t n = (size_t) fd + 256;
        struct mf_watch *grown = realloc(worker->watches, n * sizeof *grown);
        if (!grown)
            return NULL;
        memset(grown + worker->watches_n, 0, (n - worker->watches_n) * sizeof *grown);
        worker->watches = grown;
        worker->watches_n = n;
    }
    return worker->watches + fd;
}

static curl_socket_t on_open(void *arg, curlsocktype purpose, struct curl_sockaddr *address) {
    struct mf_worker *worker = arg;
    struct mf_watch *watch;
    int type = address->socktype;
    curl_socket_t fd;
    (void) purpose;
#if defined(SOCK_CLOEXEC)
    type |= SOCK_CLOEXEC; /* libcurl does not, and a child must not hold our connections open */
#endif
    fd = socket(address->family, type, address->protocol);
    if (fd < 0)
        return CURL_SOCKET_BAD;
    if ((watch = watch_of(worker, fd)) != NULL) {
        watch->told = watch->wanted = 0;
        watch->ours = 1;
    }
    return fd;
}

static int on_close(void *arg, curl_socket_t fd) {
    struct mf_worker *worker = arg;
    /* The kernel drops a closed descriptor from the epoll set by itself. */
    if ((size_t) fd < worker->watches_n)
        memset(worker->watches + fd, 0, sizeof *worker->watches);
    return close(fd);
}

#if EPOLL
static void tell(struct mf_worker *worker, curl_socket_t fd, struct mf_watch *watch, unsigned wanted) {
    struct epoll_event event;
    memset(&event, 0, sizeof event);
    event.events = ((wanted & CURL_POLL_IN) ? EPOLLIN : 0) | ((wanted & CURL_POLL_OUT) ? EPOLLOUT : 0);
    event.data.fd = fd;
    if (!wanted)
        epoll_ctl(worker->poller, EPOLL_CTL_DEL, fd, &event);
    else if (epoll_ctl(worker->poller, watch->told ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) < 0)
        epoll_ctl(worker->poller, errno == EEXIST ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event);
    watch->told = (uint8_t) wanted;
}

static int on_timer(CURLM *multi, long milliseconds, void *arg) {
    struct mf_worker *worker = arg;
    (void) multi;
    worker->timer_ns = milliseconds < 0 ? 0 : mf_now_ns() + (uint64_t) milliseconds * 1000000u;
    if (milliseconds == 0)
        worker->timer_ns = 1;
    return 0;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *unused) {
    struct mf_worker *worker = arg;
    struct mf_watch *watch = watch_of(worker, fd);
    struct mf_xfer *xfer = NULL;
    (void) unused;
    if (!watch)
        return -1;
    if (what != CURL_POLL_REMOVE) {
        watch->idle = 0;
        if (easy && curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **) &xfer) == CURLE_OK && xfer)
            xfer->socket_after = (int) fd + 1;
        watch->user = xfer;
    }
    watch->wanted = what == CURL_POLL_REMOVE ? 0 : (uint8_t) what;
    if (watch->wanted ? watch->wanted != watch->told : watch->told && !watch->ours)
        tell(worker, fd, watch, watch->wanted);
    return 0;
}
#endif

/* ---- requests in and out ---- */

static void unlink_active(struct mf_worker *worker, struct mf_xfer *xfer) {
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
    if (xfer->slot) {
        curl_multi_remove_handle(worker->multi, xfer->slot->easy);
        xfer->slot->next = worker->slots;
        worker->slots = xfer->slot;
        xfer->slot = NULL;
        unlink_active(worker, xfer);
    }
    xfer->finished_ns = mf_now_ns();
    if (xfer->socket_after && (size_t) xfer->socket_after <= worker->watches_n) {
        struct mf_watch *watch = worker->watches + xfer->socket_after - 1;
        if (watch->user == xfer) /* else the number is another connection's by now */
            watch->idle = 1;
    }
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
    xfer->failure = failure;
    if (message != xfer->message)
        snprintf(xfer->message, sizeof xfer->message, "%s", message);
    finish(worker, xfer);
}

static void start(struct mf_worker *worker, struct mf_xfer *xfer) {
    struct mf_slot *slot = worker->slots;
    int failure;
    if (slot)
        worker->slots = slot->next;
    else if ((slot = mf_slot_new(worker)) != NULL) {
        curl_easy_setopt(slot->easy, CURLOPT_OPENSOCKETFUNCTION, on_open);
        curl_easy_setopt(slot->easy, CURLOPT_OPENSOCKETDATA, worker);
        curl_easy_setopt(slot->easy, CURLOPT_CLOSESOCKETFUNCTION, on_close);
        curl_easy_setopt(slot->easy, CURLOPT_CLOSESOCKETDATA, worker);
    } else {
        fail(worker, xfer, MF_INTERNAL, "out of memory");
        return;
    }
    xfer->slot = slot;
    xfer->progress_ns = mf_now_ns();
    if ((failure = mf_request_build(worker, xfer)) != 0 ||
        (curl_multi_add_handle(worker->multi, slot->easy) != CURLM_OK && (failure = MF_INTERNAL))) {
        slot->next = worker->slots;
        worker->slots = slot;
        xfer->slot = NULL;
        fail(worker, xfer, failure, xfer->message[0] ? xfer->message : "libcurl refused the request");
        return;
    }
    xfer->next = worker->active;
    if (xfer->next)
        xfer->next->prev = xfer;
    worker->active = xfer;
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
            mf_response_resume(xfer);
            curl_easy_pause(xfer->slot->easy, CURLPAUSE_CONT);
        }
    }
}

static void reap(struct mf_worker *worker) {
    CURLMsg *message;
    int left;
    while ((message = curl_multi_info_read(worker->multi, &left)) != NULL) {
        struct mf_xfer *xfer;
        CURLcode code = message->data.result;
        if (message->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **) &xfer);
        mf_response_end(xfer, code);
        finish(worker, xfer);
    }
}

/* Every TICK_NS: who made no progress for too long? Not by libcurl's own time-outs, which would cost a timer per
 * request. */
static void tick(struct mf_worker *worker, uint64_t now) {
    struct mf_xfer *xfer, *next;
    for (xfer = worker->active; xfer; xfer = next) {
        curl_off_t uploaded = 0, sending_us = 0;
        next = xfer->next;
        if (xfer->paused)
            continue;
        if (xfer->begun || xfer->head_done) {
            if (now > xfer->progress_ns + xfer->stall_ns)
                fail(worker, xfer, MF_STALL, "too few bytes came for too long");
            continue;
        }
        curl_easy_getinfo(xfer->slot->easy, CURLINFO_PRETRANSFER_TIME_T, &sending_us);
        if (sending_us == 0)
            continue; /* not connected yet: libcurl's connect time-out counts */
        if (!xfer->sent_once) {
            xfer->sent_once = 1;
            xfer->progress_ns = now;
        }
        if (xfer->has_body)
            curl_easy_getinfo(xfer->slot->easy, CURLINFO_SIZE_UPLOAD_T, &uploaded);
        /* All of it, so much of it, or anew: after a rewind the count is smaller. */
        if (uploaded != xfer->uploaded && (uploaded < xfer->uploaded || (size_t) uploaded >= xfer->body_n ||
                                           (size_t) (uploaded - xfer->uploaded) >= MF_STALL_BYTES)) {
            xfer->uploaded = uploaded;
            xfer->progress_ns = now;
        } else if (xfer->has_body && (size_t) uploaded < xfer->body_n) {
            if (now > xfer->progress_ns + xfer->stall_ns)
                fail(worker, xfer, MF_STALL, "too few bytes could be sent for too long");
        } else if (now > xfer->progress_ns + xfer->first_byte_ns)
            fail(worker, xfer, MF_FIRST_BYTE, "no response for too long");
    }
}

/* ---- the thread ---- */

int mf_worker_prepare(struct mf_worker *worker) {
    int code = mf_wake_open(worker->wake);
    worker->poller = -1;
    if (code)
        return code;
    worker->multi = curl_multi_init();
    if (!worker->multi)
        return ENOMEM;
    curl_multi_setopt(worker->multi, CURLMOPT_MAXCONNECTS, IDLE_CONNECTIONS);
    curl_multi_setopt(worker->multi, CURLMOPT_PIPELINING, (long) CURLPIPE_NOTHING);
#if EPOLL
    {
        struct epoll_event event;
        memset(&event, 0, sizeof event);
        event.events = EPOLLIN;
        event.data.fd = worker->wake[0];
        worker->poller = epoll_create1(EPOLL_CLOEXEC);
        if (worker->poller < 0 || epoll_ctl(worker->poller, EPOLL_CTL_ADD, worker->wake[0], &event) < 0)
            return errno;
    }
    curl_multi_setopt(worker->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(worker->multi, CURLMOPT_SOCKETDATA, worker);
    curl_multi_setopt(worker->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(worker->multi, CURLMOPT_TIMERDATA, worker);
#endif
    return 0;
}

void mf_worker_release(struct mf_worker *worker) {
    struct mf_slot *slot, *next;
    for (slot = worker->slots; slot; slot = next) {
        next = slot->next;
        mf_slot_free(slot);
    }
    worker->slots = NULL;
    if (worker->multi)
        curl_multi_cleanup(worker->multi);
    if (worker->poller >= 0)
        close(worker->poller);
    mf_wake_close(worker->wake);
    free(worker->watches);
    for (unsigned i = 0; i < MF_SIGNING_KEYS; i++)
        mf_signing_key_forget(&worker->keys[i].key);
}

/* Whether a request is on this connection. libcurl may send it on a connection that was idle, read the answer's
 * beginning and have it paused, all in one go: then it never asked us to watch the socket, and only the port that it
 * told us before it sent says whose bytes are waiting. (Two connections to two addresses may share a port: then one
 * too many is in use.) */
static int in_use(struct mf_worker *worker, curl_socket_t fd) {
    struct sockaddr_storage own;
    socklen_t n = sizeof own;
    struct mf_xfer *xfer;
    int port;
    if (getsockname(fd, (struct sockaddr *) &own, &n) < 0)
        return 1;
    if (own.ss_family == AF_INET6)
        port = ntohs(((struct sockaddr_in6 *) &own)->sin6_port);
    else
        port = ntohs(((struct sockaddr_in *) &own)->sin_port);
    for (xfer = worker->active; xfer; xfer = xfer->next)
        if (xfer->local_port == port)
            return 1;
    return 0;
}

/* Bytes on an idle connection answer no request: the rest of a body longer than announced, a response sent twice.
 * libcurl 7.88 would take them for the answer to the next request. After this it finds the connection dead and opens
 * another. */
static void spoil(curl_socket_t fd) {
    char rest[16384];
    ssize_t n;
    int blocks;
    for (blocks = 0; blocks < 64; blocks++) {
        n = recv(fd, rest, sizeof rest, MSG_DONTWAIT);
        if (n <= 0)
            break;
    }
    if (blocks)
        shutdown(fd, SHUT_RDWR);
}

/* Milliseconds to sleep, rounded up: one too early would spin. */
static int pause_until(uint64_t when, uint64_t now) {
    if (when <= now)
        return 0;
    when = (when - now + 999999u) / 1000000u;
    return when > 60000 ? 60000 : (int) when;
}

static void wait_and_act(struct mf_worker *worker, int milliseconds) {
    int running;
#if EPOLL
    struct epoll_event events[128];
    int n, i;
    pthread_mutex_unlock(&worker->run);
    n = epoll_wait(worker->poller, events, 128, milliseconds);
    pthread_mutex_lock(&worker->run);
    for (i = 0; i < n; i++) {
        curl_socket_t fd = events[i].data.fd;
        unsigned happened = events[i].events, act = 0;
        struct mf_watch *watch;
        if (fd == worker->wake[0]) {
            mf_wake_clear(worker->wake);
            continue;
        }
        watch = worker->watches + fd;
        if (happened & EPOLLIN)
            act |= CURL_CSELECT_IN;
        if (happened & EPOLLOUT)
            act |= CURL_CSELECT_OUT;
        if (happened & (EPOLLERR | EPOLLHUP))
            act |= CURL_CSELECT_ERR | CURL_CSELECT_IN;
        if (!watch->wanted || (watch->told & ~watch->wanted & (((act & CURL_CSELECT_OUT) ? CURL_POLL_OUT : 0)))) {
            /* An idle connection that its server closed, or a direction nobody waits for any more: libcurl will see for
             * itself when it wants the connection again. */
            if (!watch->wanted && watch->idle && (happened & EPOLLIN) && !in_use(worker, fd))
                spoil(fd);
            if (watch->told)
                tell(worker, fd, watch, watch->wanted);
            if (!watch->wanted)
                continue;
        }
        curl_multi_socket_action(worker->multi, fd, (int) act, &running);
    }
    if (worker->timer_ns && worker->timer_ns <= mf_now_ns()) {
        worker->timer_ns = 0;
        curl_multi_socket_action(worker->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    }
#else
    struct curl_waitfd wake = {.fd = worker->wake[0], .events = CURL_WAIT_POLLIN};
    pthread_mutex_unlock(&worker->run);
    curl_multi_poll(worker->multi, &wake, 1, milliseconds, NULL);
    pthread_mutex_lock(&worker->run);
    mf_wake_clear(worker->wake);
    curl_multi_perform(worker->multi, &running);
#endif
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
        obey(worker);
        reap(worker);
        now = mf_now_ns();
        if (worker->active) {
            if (now >= worker->tick_ns) {
                tick(worker, now);
                worker->tick_ns = now + TICK_NS;
            }
            when = worker->tick_ns;
        }
        mf_deliver(worker, now, &when);
        if (worker->timer_ns && worker->timer_ns < when)
            when = worker->timer_ns;
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
