/* Which sockets are ready: epoll on Linux, kqueue on macOS and the BSDs, poll elsewhere. One for each worker; used by
 * its thread alone.
 *
 * A watch stays registered from request to request: level-triggered, so that what was not read is told again.
 */
#ifndef MFSTORE_HTTP_POLLER_H
#define MFSTORE_HTTP_POLLER_H

enum { MF_READABLE = 1, MF_WRITABLE = 2, MF_HUNG_UP = 4 /* told with MF_READABLE, never asked for */ };

struct mf_watch {
    int fd;
    unsigned told; /* what the poller was asked to look for: its own; 0 before the first time */
    void (*ready)(struct mf_watch *watch, unsigned what);
};

struct mf_poller;

struct mf_poller *mf_poller_new(void); /* NULL: errno */
void mf_poller_free(struct mf_poller *poller);
/* In a forked child, where it is not used any more: closes its descriptor, if the child has one. */
void mf_poller_abandon(struct mf_poller *poller);
/* What to look for on watch->fd from now on. 0: nothing, which cannot fail; the watch may be freed at once, and an
 * event of it that was already fetched is not told. Nothing is done where it is asked for already. 0 or errno.
 *
 * To be asked with 0 before the descriptor is closed: where a forked child holds it too, closing ours would not
 * unregister it. */
int mf_poller_want(struct mf_poller *poller, struct mf_watch *watch, unsigned what);
/* Waits at most so many milliseconds (-1: for ever) without ``lock``, which the caller holds, and then calls ready() of
 * each watch that is. The number of events, 0 also after a signal; or -1 with errno. */
int mf_poller_wait(struct mf_poller *poller, int milliseconds, void *lock /* pthread_mutex_t; NULL: none */);

#endif
