/* The native S3 engine: requests in, bytes where they belong, completions out. Nothing here knows Python.
 *
 * Threads. The caller fills a mf_xfer and submits it; from then until its `ended` event was taken from the channel it is the
 * worker's, but for `wanted`, `queued` and `done`, which the worker's lock guards, and for what an `announced` event says may
 * be read. libcurl's handles are only ever touched by the worker that made them.
 */
#ifndef MFSTORE_HTTP_ENGINE_H
#define MFSTORE_HTTP_ENGINE_H
#include "sigv4/signature.h" /* before curl.h, which may include OpenSSL's headers */

#include "crc/checksum.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum mf_failure { /* in the order of FAILURES in transfer.pyx */
    MF_FINE, MF_CONNECT, MF_DNS, MF_TLS, MF_PROXY, MF_RESET, MF_TRUNCATED, MF_FIRST_BYTE, MF_STALL, MF_OVERFLOW, MF_PROTOCOL,
    MF_DISK, MF_CANCELLED, MF_INTERNAL
};

enum mf_kind { MF_OTHER, MF_GET, MF_HEAD, MF_PUT, MF_PART, MF_DELETE };

#define MF_NO_CRC (-1)
#define MF_SMALL ((size_t) 1 << 20)       /* SMALL of engine.py */
#define MF_STALL_BYTES ((size_t) 1 << 10) /* STALL_BYTES of engine.py */
#define MF_ERROR_BODY ((size_t) 64 << 10) /* of a body that is not 2xx this much is kept */
#define MF_REPLY_MAX ((size_t) 256 << 20) /* of a body that nobody can announce: lists and the like */
#define MF_HEAD_MAX ((size_t) 256 << 10)  /* headers longer than this are no S3's */

/* What all requests of one operation share. Only read after it was made; outlives its requests (their owner sees to it). */
struct mf_route {
    uint64_t id; /* unlike any other's, ever: an address may come back */
    enum mf_kind kind;
    int sign_payload;
    const char *method, *origin; /* with NUL */
    const char *host;            /* of the origin, with the port unless it is the scheme's own: as libcurl sends it */
    struct mf_text path, query, region, service;
    struct mf_header *headers; /* ascending, lower case */
    size_t headers_n;
    int absolute; /* the request line names the origin too: plain HTTP by way of an HTTP proxy */
};

struct mf_creds {
    uint64_t id; /* as above */
    struct mf_text access_key, secret_key, token;
};

struct mf_part {
    const uint8_t *at;
    size_t n;
};

/* Where bytes come from or go: memory, or a file when fd >= 0. */
struct mf_place {
    uint8_t *at;
    int fd;
    int64_t offset;
    size_t n;
};

struct mf_event {
    struct mf_event *next;
    struct mf_xfer *xfer;
    int announced;
};

enum mf_want { MF_WANT_START = 1, MF_WANT_RESUME = 2, MF_WANT_CANCEL = 4 };

enum mf_sink { MF_SINK_NONE, MF_SINK_SMALL, MF_SINK_PLACE, MF_SINK_ERROR };

struct mf_xfer {
    /* ---- what is asked: filled before submission ---- */
    const struct mf_route *route;
    const struct mf_creds *creds; /* NULL: not signed */
    void *owner;
    struct mf_xfer *own_next, *own_prev; /* in the list of its channel's owner: the worker never looks */
    double skew;
    struct mf_text key, if_match, upload;
    int has_key, has_range, if_none_match, fresh;
    unsigned part;
    int64_t start, stop;      /* stop < 0: none */
    struct mf_header *extra;  /* metadata, lower case, any order */
    size_t extra_n;
    struct mf_part *parts; /* of the body; with body_fd >= 0 unused */
    size_t parts_n, body_n;
    int has_body, body_fd;
    int64_t body_offset;
    int crc_kind; /* of the body sent, or of what arrives; MF_NO_CRC */
    int has_target;
    struct mf_place target;
    uint64_t first_byte_ns, stall_ns;

    uint64_t epoch; /* of the engine, at submission */

    /* ---- guarded by the worker's lock ---- */
    struct mf_xfer *in_next, *in_prev;
    unsigned wanted;
    int queued, done;
    struct mf_place resume_target;
    int64_t resume_stop;

    /* ---- the worker's ---- */
    struct mf_channel *channel;
    struct mf_worker *worker;
    struct mf_slot *slot; /* while libcurl has it */
    struct mf_xfer *next, *prev;
    enum mf_sink sink;
    int paused, head_done, begun, stopped, sent_once, sendings;
    int socket_after; /* its connection's socket + 1; 0: none yet */
    int local_port;        /* of its connection, before it sends; 0: none yet */
    int64_t wanted_bytes;  /* stop of resume; < 0: all */
    size_t head_room, data_room, body_at;
    int64_t length;        /* Content-Length, < 0: not said */
    uint64_t started_ns, progress_ns;
    size_t trickled;       /* bytes that came since progress_ns */
    int64_t uploaded;      /* sent by progress_ns */
    struct mf_event announce_event, end_event;

    /* ---- what came of it: to be read when the event was taken ---- */
    int status, failure, error, reused;
    char message[160];
    char *head; /* "name: value\r\n" each, without the status line */
    size_t head_n;
    uint8_t *data;
    size_t data_n, received;
    int has_crc;
    uint64_t crc;
    uint64_t submitted_ns, first_ns, finished_ns;
};

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

struct mf_config {
    int verify, threads;
    const char *ca_file, *certificate, *private_key, *proxy; /* NULL: none */
    long connect_timeout_ms;
};

#define MF_KEYS 8

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
    } keys[MF_KEYS];
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

/* ---- engine.c: the caller's side; any thread, may block for microseconds, close and stop for longer ---- */

uint64_t mf_next_id(void); /* for mf_route and mf_creds */
uint64_t mf_now_ns(void); /* the clock of time.monotonic() */
struct mf_engine *mf_engine_new(const struct mf_config *config); /* keeps the texts' addresses */
int mf_engine_submit(struct mf_engine *engine, struct mf_channel *channel, struct mf_xfer **xfers, size_t n); /* 0 or errno */
void mf_engine_stop(struct mf_engine *engine);                                                               /* joins */
void mf_engine_free(struct mf_engine *engine);                                                               /* stopped */
void mf_xfer_resume(struct mf_engine *engine, struct mf_xfer *xfer, struct mf_place target, int64_t stop);
void mf_xfer_cancel(struct mf_engine *engine, struct mf_xfer *xfer);

/* ---- park.c ---- */

int mf_global_init(void); /* 0 or errno */
void mf_engine_listed(struct mf_engine *engine, int listed);

/* ---- channel.c ---- */

int mf_wake_open(int wake[2]); /* 0 or errno */
void mf_wake_close(int wake[2]);
void mf_wake_set(int wake[2]);
void mf_wake_clear(int wake[2]);
struct mf_channel *mf_channel_new(void);
void mf_channel_free(struct mf_channel *channel);
struct mf_event *mf_channel_take(struct mf_channel *channel);
int mf_channel_wait(struct mf_channel *channel, int milliseconds); /* 1: something may be there; 0: no; -1: a signal came */
void mf_channel_drain(struct mf_channel *channel);                 /* wait until workers are through with it */
/* hold: the worker will come back to it with mf_channel_flush. */
void mf_channel_push(struct mf_channel *channel, struct mf_event *event, uint64_t now, int hold);
int mf_channel_flush(struct mf_channel *channel, uint64_t now, uint64_t *when); /* 1: the worker is through with it */

/* ---- loop.c: the worker's thread ---- */

void *mf_worker_main(void *worker);
int mf_worker_prepare(struct mf_worker *worker); /* 0 or errno; before the thread starts */
void mf_worker_release(struct mf_worker *worker);
void mf_announce(struct mf_xfer *xfer);

/* ---- request.c ---- */

struct mf_slot *mf_slot_new(struct mf_worker *worker);
void mf_slot_free(struct mf_slot *slot);
/* Sets up xfer->slot for xfer. 0, or the failure, with xfer->error and xfer->message set. */
int mf_request_build(struct mf_worker *worker, struct mf_xfer *xfer);
size_t mf_request_read(char *out, size_t size, size_t count, void *xfer);
int mf_request_seek(void *xfer, curl_off_t offset, int origin);

/* ---- response.c ---- */

size_t mf_response_header(char *line, size_t size, size_t count, void *xfer);
size_t mf_response_write(char *data, size_t size, size_t count, void *xfer);
void mf_response_resume(struct mf_xfer *xfer); /* what had come before the announcement moves to the target */
void mf_response_end(struct mf_xfer *xfer, CURLcode code);

#endif
