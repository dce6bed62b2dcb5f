/* The inside of the native S3 engine: threads that drive libcurl. Nothing here knows Python.
 *
 * Each file calls only those below it:
 *
 *     engine.c                 starts and ends threads, hands requests to them
 *     loop.c        park.c     the thread of a worker            what a fork or an exit does to all threads
 *     request.c                a request: headers, signature, body
 *     response.c               a response: headers, where the body goes, what failed
 *     channel.c                events from workers to the caller
 *     wake.c        clock.h
 *
 * libcurl's handles are only ever touched by the worker that made them.
 */
#ifndef MFSTORE_HTTP_WORKER_H
#define MFSTORE_HTTP_WORKER_H
#include "http/engine.h" /* before curl.h, which may include OpenSSL's headers */

#include <curl/curl.h>
#include <pthread.h>
#include <sys/types.h>

/* These two are promised to callers: see Reply.announced and Call.stall in calls.py. */
#define MF_ANNOUNCED_ABOVE ((size_t) 1 << 20) /* longer bodies of a GET without target wait until they have one */
#define MF_STALL_BYTES ((size_t) 1 << 10)     /* fewer within the stall time-out are none */

#define MF_ERROR_BODY ((size_t) 64 << 10) /* of a body that is not 2xx this much is kept */
#define MF_REPLY_MAX ((size_t) 256 << 20) /* of a body that nobody can announce: lists and the like */
#define MF_HEAD_MAX ((size_t) 256 << 10)  /* headers longer than this are no S3's */

enum mf_want { MF_WANT_START = 1, MF_WANT_RESUME = 2, MF_WANT_CANCEL = 4 };

struct mf_channel {
    pthread_mutex_t lock;
    pthread_cond_t idle;
    struct mf_event *first, *last;
    size_t waiting;     /* events in the list */
    size_t outstanding; /* submitted, `ended` not yet in the list */
    size_t holders;     /* workers that will look at this channel at the end of their round */
    int urgent, signalled, closing;
    uint64_t oldest_ns;
    int wake[2]; /* read end, write end: the same eventfd on Linux */
};

/* One libcurl handle and the memory that a request built in it points into: reused for request after request. */
struct mf_slot {
    struct mf_slot *next;
    CURL *easy;
    uint64_t route_id;
    int mode;
    long buffer, upload_buffer;
    int fresh;
    char *arena;
    size_t arena_size;
    char error[CURL_ERROR_SIZE];
};

#define MF_SIGNING_KEYS 8

struct mf_worker {
    struct mf_engine *engine;
    pthread_t thread;
    pthread_mutex_t lock; /* inbox, asleep, stop, outstanding, and the fields of mf_xfer that say so */
    pthread_mutex_t run;  /* held whenever the thread is not asleep: who takes it has the thread parked */
    struct mf_xfer *inbox, *inbox_last;
    int asleep, stop;
    size_t outstanding;

    CURLM *multi;
    int poller, wake[2];
    uint64_t timer_ns; /* when libcurl wants to be called; 0: not */
    uint64_t tick_ns;
    struct mf_xfer *active;
    struct mf_slot *slots;
    struct mf_watch *watches; /* by descriptor */
    size_t watches_n;
    struct mf_channel *dirty[64];
    size_t dirty_n;
    struct {
        uint64_t creds_id;
        char region[64], service[32];
        struct mf_signing_key key;
    } keys[MF_SIGNING_KEYS];
    unsigned keys_next;
};

struct mf_engine {
    struct mf_engine *next; /* of those with threads */
    pthread_mutex_t lock; /* starting and ending threads */
    struct mf_config config;
    int running;
    uint64_t epoch; /* how often the threads were stopped */
    struct mf_worker *workers; /* config.threads of them while running */
};

/* ---- wake.c: what one thread waits for and another sets ---- */

int mf_wake_open(int wake[2]); /* 0 or errno */
void mf_wake_close(int wake[2]);
void mf_wake_set(int wake[2]);
void mf_wake_clear(int wake[2]);

/* ---- channel.c ---- */

void mf_channel_expect(struct mf_channel *channel, size_t n); /* that many requests are on their way */
void mf_announce(struct mf_xfer *xfer);
/* The end of xfer, which may be gone when this returns. The channel is not: its worker comes back with mf_deliver. */
void mf_end(struct mf_xfer *xfer);
/* Wakes who waits for events of this worker, or lowers *when to the time at which that shall be tried again. */
void mf_deliver(struct mf_worker *worker, uint64_t now, uint64_t *when);

/* ---- response.c ---- */

size_t mf_response_header(char *line, size_t size, size_t count, void *xfer);
size_t mf_response_write(char *data, size_t size, size_t count, void *xfer);
void mf_response_resume(struct mf_xfer *xfer); /* what had come before the announcement moves to the target */
void mf_response_end(struct mf_xfer *xfer, CURLcode code);

/* ---- request.c ---- */

struct mf_slot *mf_slot_new(struct mf_worker *worker);
void mf_slot_free(struct mf_slot *slot);
/* Sets up xfer->slot for xfer. 0, or the failure, with xfer->error and xfer->message set. */
int mf_request_build(struct mf_worker *worker, struct mf_xfer *xfer);

/* ---- park.c ---- */

int mf_global_init(void); /* 0 or errno */
void mf_engine_listed(struct mf_engine *engine, int listed);

/* ---- loop.c ---- */

void *mf_worker_main(void *worker);
int mf_worker_prepare(struct mf_worker *worker); /* 0 or errno; before the thread starts */
void mf_worker_release(struct mf_worker *worker);

#endif
