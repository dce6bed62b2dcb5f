/* The native S3 engine as its caller sees it: requests in, bytes where they belong, completions out.
 *
 * Threads. The caller fills a mf_xfer and submits it. From then until its `ended` event was taken from the channel
 * it is the worker's, but for `wanted`, `queued` and `done`, which the worker's lock guards, for `flowed`, and for
 * what an `announced` event says may be read. Any thread may call what is declared here; only closing and stopping
 * block for longer than microseconds. worker.h is the inside.
 */
#ifndef MFSTORE_HTTP_ENGINE_H
#define MFSTORE_HTTP_ENGINE_H
#include <stddef.h>
#include <stdint.h>

#include "sigv4/signature.h"

enum mf_failure { /* in the order of `failures` in transfer.pyx */
    MF_FINE, MF_CONNECT, MF_DNS, MF_TLS, MF_PROXY, MF_RESET, MF_TRUNCATED, MF_FIRST_BYTE, MF_STALL, MF_OVERFLOW,
    MF_PROTOCOL, MF_DISK, MF_CANCELLED, MF_INTERNAL, MF_WHOLE
};

enum mf_operation { MF_OTHER, MF_GET, MF_HEAD, MF_PUT, MF_PART, MF_DELETE };

/* Whose words a request and its answer are in. */
enum mf_dialect { MF_S3, MF_AZURE, MF_GOOGLE };

#define MF_NO_CRC (-1)

/* What all requests of one operation share. Only read after it was made. Outlives its requests: their owner sees to
 * it. */
struct mf_route {
    uint64_t id; /* unlike any other's, ever: an address may come back */
    enum mf_operation operation;
    enum mf_dialect dialect;
    int sign_payload;
    const char *method, *origin; /* with NUL */
    const char *host;            /* of the origin, with the port unless it is the scheme's own */
    const char *match_header;    /* what says mf_xfer.if_match: lower case */
    struct mf_text path, query, region, service;
    struct mf_header *headers; /* ascending, lower case */
    size_t headers_n;
    int absolute; /* the request line names the origin too: plain HTTP by way of an HTTP proxy */
    int whole;    /* one request, prepared and signed by others: path, query and headers are sent as they are */
};

struct mf_creds {
    uint64_t id; /* as above */
    struct mf_text access_key, secret_key, token;
};

struct mf_part {
    const uint8_t *at;
    size_t n;
};

/* Where bytes go: memory, or a file when fd >= 0. */
struct mf_target {
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

enum mf_sink { MF_SINK_NONE, MF_SINK_SMALL, MF_SINK_TARGET, MF_SINK_ERROR };

struct mf_xfer {
    /* ---- what is asked: filled before submission ---- */
    const struct mf_route *route;
    const struct mf_creds *creds; /* NULL: not signed */
    void *owner;
    struct mf_xfer *own_next, *own_prev; /* in the list of its channel's owner: the worker never looks */
    double skew;
    struct mf_text key, if_match, upload;
    int has_key, has_range, cut, if_none_match, fresh;
    int once; /* of a request that says its conditions itself: see mf_request_once */
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
    struct mf_target target;
    uint64_t first_byte_ns, stall_ns;

    uint64_t epoch; /* of the engine, at submission */

    /* Bytes of its body that have gone, or that have come to its target: mf_xfer_flowed may be asked at any time. */
    size_t flowed;

    /* ---- guarded by the worker's lock ---- */
    struct mf_xfer *in_next, *in_prev;
    unsigned wanted;
    int queued, done;
    struct mf_target resume_target;
    int64_t resume_stop, resume_skip;

    /* ---- the worker's ---- */
    struct mf_channel *channel;
    struct mf_worker *worker;
    struct mf_origin *origin;
    struct mf_connection *connection;       /* that it is on */
    struct mf_attempt *attempt;             /* at a connection that is for it alone */
    struct mf_xfer *wait_next, *wait_prev;  /* in the queue of its origin */
    struct mf_xfer *next, *prev;
    enum mf_sink sink;
    int active, waiting, paused, head_done, stopped;
    int renewed; /* once more, on a connection of its own: see mf_request_once */
    int sent; /* all of it */
    int64_t wanted_bytes;  /* after the skipped: stop of resume, or of a range that is cut out; < 0: all */
    int64_t skip;          /* bytes of the body that the target is not for, before those it is for */
    int64_t skipped;       /* of them have passed */
    size_t data_room;
    int64_t length;        /* Content-Length, < 0: not said */
    uint64_t progress_ns;
    size_t trickled;       /* bytes that came since progress_ns */
    size_t uploaded;       /* of the body, since progress_ns */
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

struct mf_config {
    int verify, threads;
    const char *ca_file, *certificate, *private_key, *proxy; /* NULL: none */
    /* For TLS to the proxy; without a file of its own it is trusted by ca_file. */
    const char *proxy_ca_file, *proxy_certificate, *proxy_private_key;
    long connect_timeout_ms;
    double max_bandwidth; /* bytes per second, both directions together; 0: as fast as can be */
};

/* ---- engine.c ---- */

uint64_t mf_next_id(void); /* for mf_route and mf_creds */
struct mf_engine *mf_engine_new(const struct mf_config *config); /* keeps the texts' addresses */
/* 0 or errno: then nothing was submitted. */
int mf_engine_submit(struct mf_engine *engine, struct mf_channel *channel, struct mf_xfer **xfers, size_t n);
void mf_engine_stop(struct mf_engine *engine); /* ends the threads, and joins them */
void mf_engine_free(struct mf_engine *engine); /* stopped */
void mf_xfer_resume(struct mf_engine *engine, struct mf_xfer *xfer, struct mf_target target, int64_t stop,
                    int64_t skip);
void mf_xfer_cancel(struct mf_engine *engine, struct mf_xfer *xfer);

/* Told without order: who looks a few times a second need not see the last bytes, and costs the worker a store. */
static inline void mf_xfer_flow(struct mf_xfer *xfer, size_t n) {
    __atomic_store_n(&xfer->flowed, n, __ATOMIC_RELAXED);
}

static inline size_t mf_xfer_flowed(const struct mf_xfer *xfer) {
    return __atomic_load_n(&xfer->flowed, __ATOMIC_RELAXED);
}

/* ---- channel.c ---- */

struct mf_channel *mf_channel_new(void); /* NULL: errno */
void mf_channel_free(struct mf_channel *channel); /* drained */
int mf_channel_fileno(const struct mf_channel *channel); /* readable while there are events */
struct mf_event *mf_channel_take(struct mf_channel *channel);
/* 1: something may be there; 0: no; -1: a signal came */
int mf_channel_wait(struct mf_channel *channel, int milliseconds);
void mf_channel_drain(struct mf_channel *channel); /* wait until workers are through with it */

#endif
