/* The inside of the native S3 engine: threads that move requests and responses. Nothing here knows Python.
 *
 * Each file calls only those below it:
 *
 *     engine.c                 starts and ends threads, hands requests to them
 *     loop.c        park.c     the thread of a worker            what a fork or an exit does to all threads
 *     pool.c                   which connection a request goes on: idle ones, attempts at new ones, who waits
 *     connection.c             one exchange on one connection: what is sent, what comes, when it has ended
 *     request.c  response.c    a request's bytes: head, signature, body; where the bytes of a response go
 *     parser.c                 what a response says, by HTTP's rules
 *     dial.c  link.c  tls.c    connections by libcurl; their bytes, with TLS or without; whom to trust
 *     poller.c  channel.c      which sockets are ready; events from workers to the caller
 *     pace.c                   how many bytes may move now
 *     wake.c        clock.h
 *
 * All that a worker has made is only ever touched by its own thread.
 */
#ifndef MFSTORE_HTTP_WORKER_H
#define MFSTORE_HTTP_WORKER_H
#include <pthread.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "http/dial.h"
#include "http/engine.h"
#include "http/link.h"
#include "http/pace.h"
#include "http/parser.h"
#include "http/poller.h"

/* Each limit that decides about bytes can be given to the compiler, small: so a fuzzer comes to what lies behind it. */

/* These two are promised to callers: see Reply.announced and Call.stall in calls.py. */
#ifndef MF_ANNOUNCED_ABOVE
#define MF_ANNOUNCED_ABOVE ((size_t) 1 << 20) /* longer bodies of a GET without target wait until they have one */
#endif
#define MF_STALL_BYTES ((size_t) 1 << 10)     /* fewer within the stall time-out are none */

#ifndef MF_ERROR_BODY
#define MF_ERROR_BODY ((size_t) 64 << 10) /* of a body that is not 2xx this much is kept */
#endif
#ifndef MF_REPLY_MAX
#define MF_REPLY_MAX ((size_t) 256 << 20) /* of a body that nobody can announce: lists and the like */
#endif

/* What is received for a file, and the beginning of each response, before it goes where it belongs: one for each
 * worker, so that an idle connection holds no memory. It stays in the L2 cache between recv, checksum and pwrite. */
#ifndef MF_SCRATCH
#define MF_SCRATCH ((size_t) 256 << 10)
#endif

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

/* One scheme, host and port. */
struct mf_origin {
    struct mf_origin *next;
    const char *name;                     /* lies behind it */
    struct mf_connection *idle, *idle_last; /* the one used last first */
    struct mf_xfer *waiting, *waiting_last; /* for whichever connection is there first */
    struct mf_attempt *attempts;
    size_t waiting_n, shared_n; /* shared_n: attempts that are for whoever waits; never fewer than wait */
    size_t users;               /* connections, attempts and requests that look at this */
};

/* A connection that is being made. */
struct mf_attempt {
    struct mf_attempt *next, *prev;
    struct mf_worker *worker;
    struct mf_origin *origin;
    struct mf_xfer *xfer; /* whom it is for; NULL: who waits longest */
    struct mf_dial *dial;
};

enum mf_phase { MF_PHASE_HEAD, MF_PHASE_BODY, MF_PHASE_COMPLETE };

enum mf_outcome {
    MF_UNDER_WAY,
    MF_KEEP,   /* ended, and the connection is good for another request */
    MF_CLOSE,  /* ended, and it is not; or it was idle and is good for nothing any more */
    MF_REPEAT  /* nothing came: the request is to be made again, on a new connection */
};

struct mf_connection {
    struct mf_watch watch; /* the first: what the poller hands back */
    struct mf_worker *worker;
    struct mf_origin *origin;
    struct mf_link *link;
    struct mf_connection *next, *prev; /* among its origin's idle ones */
    struct mf_connection *ended_next;  /* in the worker's list of those that loop.c has to look at; then of the dead */
    struct mf_connection *again_next;
    struct mf_xfer *xfer; /* NULL: idle */
    enum mf_outcome outcome;
    uint64_t idle_ns;
    unsigned served;
    int again;  /* in the worker's list of those with bytes that no socket will tell of */
    int paced;  /* in the worker's list of those that may move no byte now, for so many have */
    struct mf_connection *paced_next;

    int sending;  /* something of the request is not sent */
    int blocked;  /* by what: MF_LINK_READ, MF_LINK_WRITE */
    int stuck;    /* TLS has to write before it can read on */
    int mute;     /* ... and will not be: the peer has answered, or does not take it */
    int snapped;  /* the connection broke while sending: what had come before is still to be read */
    int touched;  /* bytes were handed to the network */
    char *out;    /* what is left of the head */
    size_t out_at, out_n;
    char *file;   /* what was read of a body's file */
    size_t file_at, file_n;
    int read;             /* the file cannot be sent otherwise */
    size_t part, part_at; /* the next byte of the body: in which piece, where in it */
    size_t body_at;       /* of the body the link has taken this much */
    size_t given;         /* of the whole request; with TLS some of it may be held back */

    enum mf_phase phase;
    int keep;       /* it may serve again, by the response's head and by what came behind its body */
    int answered;   /* a byte of a response has come */
    char *held;     /* bytes that came and could not be dealt with yet */
    size_t held_at, held_n, held_room;
    size_t seen;    /* of them the parser has seen so many of a head */
    struct mf_head head;
    struct mf_body body;
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

    struct mf_poller *poller;
    struct mf_dialer *dialer;
    struct mf_watch waker;
    int wake[2];
    uint64_t tick_ns;
    struct mf_xfer *active;
    struct mf_origin *origins; /* the one asked for last first */
    struct mf_connection *ended, *ended_last, *again, *dead;
    struct mf_connection *paced, *paced_last; /* who waits longest first */
    struct mf_xfer *over; /* that will get no connection */
    size_t idle_n, idle_most, attempts_n; /* idle_most: 0 before the first */
    char *scratch, *arena;
    size_t arena_size;
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
    struct mf_pace pace;
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

/* ---- response.c: into what a response turns. Nothing here knows connections. ---- */

enum mf_verdict {
    MF_ON,     /* go on */
    MF_HOLD,   /* what came is kept; the request waits for a target, and is announced */
    MF_ENOUGH, /* nothing more of this body is wanted */
    MF_FAILED  /* xfer->failure says why */
};

/* The head of the response, with its header lines. */
enum mf_verdict mf_response_head(struct mf_xfer *xfer, const struct mf_head *head, const char *fields);
/* The next bytes of the body. */
enum mf_verdict mf_response_body(struct mf_xfer *xfer, const uint8_t *data, size_t n);
/* Where the next bytes of the body may be received straight to, at most *n, of which straight are sure to come in one
 * piece. NULL: nowhere. */
uint8_t *mf_response_room(struct mf_xfer *xfer, uint64_t straight, size_t *n);
/* n bytes lie there. */
enum mf_verdict mf_response_landed(struct mf_xfer *xfer, size_t n);
/* What had come before the announcement moves to the target. */
enum mf_verdict mf_response_resume(struct mf_xfer *xfer);
/* MF_FAILED */
enum mf_verdict mf_give_up(struct mf_xfer *xfer, int failure, int error, const char *message);

/* ---- request.c ---- */

/* Writes the head of xfer's request into worker->arena: *n bytes of it. 0, or the failure, with xfer->error and
 * xfer->message set. */
int mf_request_build(struct mf_worker *worker, struct mf_xfer *xfer, size_t *n);
/* body[at:at+n] of a body that lies in a file; -1 with xfer->failure. */
ssize_t mf_request_read(struct mf_xfer *xfer, size_t at, char *out, size_t n);
/* Whether the request must not be made a second time unasked. */
int mf_request_once(const struct mf_xfer *xfer);

/* ---- connection.c ---- */

/* Takes the link; NULL: no memory, and it is closed. */
struct mf_connection *mf_connection_new(struct mf_worker *worker, struct mf_origin *origin, struct mf_link *link);
/* Closes it. The memory goes at the end of the round. */
void mf_connection_close(struct mf_connection *connection);
/* Its request has ended, and it has none. 0, or errno: then it is of no more use. */
int mf_connection_rest(struct mf_connection *connection);
/* Sends a request on a connection that has none. */
void mf_connection_begin(struct mf_connection *connection, struct mf_xfer *xfer);
/* xfer, which was announced, has got a target. */
void mf_connection_resume(struct mf_connection *connection);
/* Goes on with bytes that were received already. */
void mf_connection_again(struct mf_connection *connection);
/* Goes on with those that had to wait, as long as bytes may move. */
void mf_connections_paced(struct mf_worker *worker);

/* ---- pool.c ---- */

/* Puts xfer on a connection, or in line for one. 0, or a failure with xfer->message set. */
int mf_pool_enter(struct mf_worker *worker, struct mf_xfer *xfer);
/* xfer has left its connection, or shall wait no longer. */
void mf_pool_leave(struct mf_worker *worker, struct mf_xfer *xfer);
/* A connection whose request has ended: to the next that waits, or to the idle ones. */
void mf_pool_return(struct mf_connection *connection);
/* ... to its end. */
void mf_pool_drop(struct mf_connection *connection);
/* Closes what has been idle for too long. */
void mf_pool_prune(struct mf_worker *worker, uint64_t now);
void mf_pool_clear(struct mf_worker *worker);
mf_dialed mf_pool_dialed; /* what mf_dialer_new is to call */

/* ---- park.c ---- */

/* No fork of this process until mf_let_forks: whoever starts threads, or frees what was theirs, uses libcurl and
 * OpenSSL too, and is not parked. 0 or errno. The other two are called in between. */
int mf_hold_forks(void);
void mf_let_forks(void);
int mf_global_init(void); /* 0 or errno */
void mf_engine_listed(struct mf_engine *engine, int listed);

/* ---- loop.c ---- */

void *mf_worker_main(void *worker);
int mf_worker_prepare(struct mf_worker *worker); /* 0 or errno; before the thread starts */
void mf_worker_release(struct mf_worker *worker);

#endif
