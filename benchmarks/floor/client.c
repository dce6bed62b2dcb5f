/* The floor: what a client takes that does nothing but move S3's requests and responses, over epoll, in C.
 *
 * Each request is signed by mfstore's own kernel and has the headers that mfstore sends; PUTs carry what integrity is
 * asked for. What is got goes to one place for each connection, again and again. Left out is what makes a client: time-
 * outs, retries, proxies, allocation, strict parsing, results. It trusts the server, and ends upon anything unexpected.
 *
 *   client URL CA BUCKET METHOD SIZE EXIST COUNT ROUNDS CONNECTIONS THREADS PAYLOAD CHECKSUM
 *
 * URL: http[s]://127.0.0.1:PORT. METHOD: GET or PUT, of BUCKET/get/SIZE/N or put, N < EXIST. COUNT requests a round,
 * divided among THREADS, each of which has CONNECTIONS. PAYLOAD: signed or unsigned. CHECKSUM: none or CRC64NVME.
 * AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION are the environment's. Prints a line for each round: seconds
 * of CPU, of them the kernel's, and of wall time. The first round only connects.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "crc/checksum.h"
#include "sigv4/signature.h"
#include <openssl/ssl.h>

#define HEAD_ROOM ((size_t) 8 << 10)
#define RECEIVE ((size_t) 256 << 10)
#define READ_AHEAD ((size_t) 128 << 10)
#define JOINED ((size_t) 256 << 10) /* plain bytes that become one send */
#define HELD (JOINED + (64 << 10))  /* the same with TLS's own */
#define EVENTS 64

static struct {
    int port, secure, put, payload_signed, checksum;
    size_t size;
    long exist, count;
    int rounds, connections, threads;
    const char *bucket, *method, *access_key;
    char host[32], prefix[96]; /* "/BUCKET/get/SIZE/" */
    size_t prefix_n;
    SSL_CTX *tls;
    BIO_METHOD *joining;
    struct mf_signing_key key;
    uint8_t *data;
    pthread_barrier_t begin, end;
} asked;

static void die(const char *format, ...) {
    va_list more;
    va_start(more, format);
    vfprintf(stderr, format, more);
    va_end(more);
    fprintf(stderr, " (errno: %s)\n", strerror(errno));
    exit(1);
}

struct connection {
    int fd, writing;
    SSL *tls;
    char head[2048]; /* of the request */
    size_t head_n, sent;
    char *place; /* where the response comes: its head first */
    size_t got, answer_n;
    uint8_t *held; /* records that were not sent yet */
    size_t held_n, held_at;
};

/* ---- records joined: a BIO that only stores ---- */

static int joining_write(BIO *bio, const char *at, int n) {
    struct connection *c = BIO_get_data(bio);
    if (c->held_n + (size_t) n > HELD)
        die("records of %zu bytes", c->held_n + (size_t) n);
    memcpy(c->held + c->held_n, at, (size_t) n);
    c->held_n += (size_t) n;
    return n;
}

static long joining_ctrl(BIO *bio, int command, long n, void *at) {
    (void) bio, (void) n, (void) at;
    return command == BIO_CTRL_FLUSH;
}

static int joining_create(BIO *bio) {
    BIO_set_init(bio, 1);
    return 1;
}

/* ---- one connection ---- */

static void connect_to(struct connection *c) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t) asked.port)};
    int one = 1;
    BIO *joining;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *) &to, sizeof to) < 0)
        die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->place = malloc(HEAD_ROOM + (asked.put ? 0 : asked.size));
    if (!c->place)
        die("memory");
    if (!asked.secure)
        return;
    c->tls = SSL_new(asked.tls);
    c->held = malloc(HELD);
    if (!c->tls || !c->held || !SSL_set_fd(c->tls, c->fd) || SSL_connect(c->tls) != 1)
        die("TLS handshake");
    joining = BIO_new(asked.joining);
    BIO_set_data(joining, c);
    SSL_set0_wbio(c->tls, joining);
}

static char *put(char *at, const char *text, size_t n) {
    memcpy(at, text, n);
    return at + n;
}

static char *put_number(char *at, unsigned long number) {
    char digits[20];
    size_t n = 0;
    do
        digits[n++] = (char) ('0' + number % 10);
    while (number /= 10);
    while (n)
        *at++ = digits[--n];
    return at;
}

#define PUT(AT, TEXT) put(AT, TEXT, sizeof(TEXT) - 1)
#define TEXT(S) ((struct mf_text) {S, strlen(S)})
#define ADD(NAME, VALUE) (headers[n].name = (struct mf_text) {NAME, sizeof(NAME) - 1}, headers[n++].value = VALUE)

static void compose(struct connection *c, long number) {
    static _Thread_local time_t dated;
    static _Thread_local char date[MF_AMZ_DATE], payload[MF_SHA256_HEX];
    char path[128], crc[MF_CRC_TEXT], authorization[1024], *at = path;
    struct mf_header headers[5];
    struct mf_request request = {.headers = headers};
    struct mf_sha256 hash;
    time_t now = time(NULL);
    size_t n = 0, i;
    at = put(at, asked.prefix, asked.prefix_n);
    at = put_number(at, (unsigned long) (number % asked.exist));
    request.path = (struct mf_text) {path, (size_t) (at - path)};
    if (now != dated)
        mf_amz_date((int64_t) (dated = now), date);
    if (!*payload || (asked.put && asked.payload_signed)) {
        mf_sha256_init(&hash);
        if (asked.put)
            mf_sha256_update(&hash, asked.data, asked.size);
        mf_sha256_hex(&hash, payload);
    }
    ADD("host", TEXT(asked.host));
    if (asked.put && asked.checksum) {
        i = mf_crc_encode(MF_CRC64NVME, mf_crc_update(MF_CRC64NVME, 0, asked.data, asked.size), crc);
        ADD("x-amz-checksum-crc64nvme", ((struct mf_text) {crc, i}));
    }
    if (!asked.put)
        ADD("x-amz-checksum-mode", TEXT("ENABLED"));
    ADD("x-amz-content-sha256", TEXT(asked.put && !asked.payload_signed ? "UNSIGNED-PAYLOAD" : payload));
    ADD("x-amz-date", TEXT(date));
    request.method = TEXT(asked.method);
    request.headers_n = n;
    request.payload = headers[n - 2].value;
    if (!(i = mf_sigv4_authorization(&asked.key, TEXT(asked.access_key), date, &request, authorization,
                                     sizeof authorization)))
        die("signature");
    at = put(c->head, asked.method, 3);
    at = PUT(at, " ");
    at = put(at, request.path.at, request.path.n);
    at = PUT(at, " HTTP/1.1\r\nuser-agent: mfstore/0.2\r\nauthorization: ");
    at = put(at, authorization, i);
    for (i = 0; i < n; i++) {
        at = PUT(at, "\r\n");
        at = put(at, headers[i].name.at, headers[i].name.n);
        at = PUT(at, ": ");
        at = put(at, headers[i].value.at, headers[i].value.n);
    }
    if (asked.put)
        at = put_number(PUT(at, "\r\ncontent-length: "), asked.size);
    at = PUT(at, "\r\n\r\n");
    c->head_n = (size_t) (at - c->head);
    c->sent = c->got = c->answer_n = 0;
}

/* Bytes of the head that at[0:n] begins with, and of the body that follows; 0: it is not whole. */
static size_t read_head(const char *at, size_t n, size_t *body) {
    const char *line = at, *end;
    size_t told = SIZE_MAX;
    while ((end = memchr(line, '\n', (size_t) (at + n - line)))) {
        if (end - line > 15 && strncasecmp(line, "content-length:", 15) == 0)
            told = (size_t) atol(line + 15);
        if (end - line == 1) {
            if (memcmp(at, "HTTP/1.1 20", 11) != 0 || (told == SIZE_MAX && at[11] != '4'))
                die("unexpected: %.*s", (int) (end - at), at);
            *body = told == SIZE_MAX ? 0 : told;
            return (size_t) (end - at) + 1;
        }
        line = end + 1;
    }
    return 0;
}

/* 1: the request is out; 0: the socket takes no more. */
static int send_on(struct connection *c) {
    size_t all = c->head_n + (asked.put ? asked.size : 0);
    for (;;) {
        ssize_t n;
        if (c->held_at < c->held_n) {
            n = send(c->fd, c->held + c->held_at, c->held_n - c->held_at, MSG_NOSIGNAL);
        } else if (c->sent == all) {
            return 1;
        } else if (c->tls) {
            size_t joined = 0, took, from;
            c->held_n = c->held_at = 0;
            for (; joined < JOINED && c->sent < all; joined += took, c->sent += took) {
                from = c->sent < c->head_n ? 0 : c->sent - c->head_n;
                took = c->sent < c->head_n ? c->head_n - c->sent : asked.size - from;
                if (took > JOINED - joined)
                    took = JOINED - joined;
                if (!SSL_write_ex(c->tls, c->sent < c->head_n ? (void *) (c->head + c->sent) : asked.data + from, took,
                                  &took))
                    die("SSL_write");
            }
            continue;
        } else {
            struct iovec pieces[2];
            struct msghdr message = {.msg_iov = pieces};
            if (c->sent < c->head_n)
                pieces[message.msg_iovlen++] = (struct iovec) {c->head + c->sent, c->head_n - c->sent};
            if (asked.put) {
                size_t from = c->sent < c->head_n ? 0 : c->sent - c->head_n;
                pieces[message.msg_iovlen++] = (struct iovec) {asked.data + from, asked.size - from};
            }
            n = sendmsg(c->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        }
        if (n < 0 && errno == EAGAIN)
            return 0;
        if (n < 0)
            die("send");
        if (c->tls)
            c->held_at += (size_t) n;
        else
            c->sent += (size_t) n;
    }
}

/* 1: the response is whole; 0: nothing more is there. */
static int receive_on(struct connection *c) {
    for (;;) {
        size_t room = c->answer_n ? c->answer_n - c->got : HEAD_ROOM + (asked.put ? 0 : asked.size) - c->got;
        ptrdiff_t n;
        if (room > RECEIVE)
            room = RECEIVE;
        if (c->tls) {
            size_t got = 0;
            n = (ptrdiff_t) (SSL_read_ex(c->tls, c->place + c->got, room, &got) ? got : 0);
            if (n == 0 && SSL_get_error(c->tls, 0) == SSL_ERROR_WANT_READ)
                return 0;
        } else {
            n = recv(c->fd, c->place + c->got, room, MSG_DONTWAIT);
            if (n < 0 && errno == EAGAIN)
                return 0;
        }
        if (n <= 0)
            die("the server ended a connection");
        c->got += (size_t) n;
        if (!c->answer_n) {
            size_t body, head = read_head(c->place, c->got, &body);
            if (!head)
                continue;
            c->answer_n = head + body;
            if (c->answer_n > HEAD_ROOM + (asked.put ? 0 : asked.size))
                die("unexpected: %zu bytes", c->answer_n);
        }
        if (c->got == c->answer_n)
            return 1;
        if (c->tls ? !SSL_has_pending(c->tls) : (size_t) n < room)
            return 0; /* what epoll tells later costs less than a call in vain */
    }
}

/* ---- a thread ---- */

static void watch(int poller, struct connection *c, int writing, int operation) {
    struct epoll_event event = {.events = writing ? EPOLLOUT : EPOLLIN, .data.ptr = c};
    if (c->writing == writing && operation == EPOLL_CTL_MOD)
        return;
    c->writing = writing;
    if (epoll_ctl(poller, operation, c->fd, &event) < 0)
        die("epoll_ctl");
}

static void go(int poller, struct connection *c, long number) {
    compose(c, number);
    watch(poller, c, !send_on(c), EPOLL_CTL_MOD);
}

static void round_of(int poller, struct connection *all, long count, long first) {
    long begun = 0, done = 0;
    struct epoll_event events[EVENTS];
    for (; begun < count && begun < asked.connections; begun++)
        go(poller, all + begun, first + begun);
    while (done < count) {
        int i, n = epoll_wait(poller, events, EVENTS, -1);
        for (i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            if (c->writing) {
                watch(poller, c, !send_on(c), EPOLL_CTL_MOD);
            } else if (receive_on(c)) {
                done++;
                if (begun < count)
                    go(poller, c, first + begun++);
            }
        }
    }
}

static void *thread_of(void *number) {
    struct connection *all = calloc((size_t) asked.connections, sizeof *all);
    int i, poller = epoll_create1(EPOLL_CLOEXEC);
    long share = asked.count / asked.threads;
    for (i = 0; i < asked.connections; i++) {
        connect_to(all + i);
        watch(poller, all + i, 0, EPOLL_CTL_ADD);
    }
    for (i = 0; i <= asked.rounds; i++) {
        pthread_barrier_wait(&asked.begin);
        /* The first makes the server ready, and its memory ours. */
        round_of(poller, all, i ? share : asked.connections, share * (long) (intptr_t) number);
        pthread_barrier_wait(&asked.end);
    }
    return NULL;
}

static double seconds(struct timeval at) {
    return (double) at.tv_sec + (double) at.tv_usec / 1e6;
}

int main(int n, char **given) {
    char timestamp[MF_AMZ_DATE];
    pthread_t thread;
    int i;
    if (n != 13)
        die("12 arguments");
    asked.secure = strncmp(given[1], "https", 5) == 0;
    asked.port = atoi(strrchr(given[1], ':') + 1);
    asked.bucket = given[3];
    asked.method = given[4];
    asked.put = strcmp(given[4], "PUT") == 0;
    asked.size = (size_t) atol(given[5]);
    asked.exist = atol(given[6]);
    asked.count = atol(given[7]);
    asked.rounds = atoi(given[8]);
    asked.connections = atoi(given[9]);
    asked.threads = atoi(given[10]);
    asked.payload_signed = strcmp(given[11], "signed") == 0;
    asked.checksum = strcmp(given[12], "CRC64NVME") == 0;
    asked.access_key = getenv("AWS_ACCESS_KEY_ID");
    snprintf(asked.host, sizeof asked.host, "127.0.0.1:%d", asked.port);
    asked.prefix_n = (size_t) snprintf(asked.prefix, sizeof asked.prefix, "/%s/%s/%zu/", asked.bucket,
                                       asked.put ? "put" : "get", asked.size);
    mf_amz_date((int64_t) time(NULL), timestamp);
    if (!asked.access_key || !mf_signing_key_derive(&asked.key, TEXT(getenv("AWS_SECRET_ACCESS_KEY")), timestamp,
                                                    TEXT(getenv("AWS_REGION")), TEXT("s3")))
        die("credentials");
    if (asked.secure) {
        asked.tls = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_verify(asked.tls, SSL_VERIFY_PEER, NULL);
        SSL_CTX_set_read_ahead(asked.tls, 1);
        SSL_CTX_set_default_read_buffer_len(asked.tls, READ_AHEAD);
        if (!SSL_CTX_load_verify_file(asked.tls, given[2]))
            die("CA file");
        asked.joining = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "joining");
        BIO_meth_set_write(asked.joining, joining_write);
        BIO_meth_set_ctrl(asked.joining, joining_ctrl);
        BIO_meth_set_create(asked.joining, joining_create);
    }
    asked.data = malloc(asked.size);
    for (i = 0; (size_t) i < asked.size; i++)
        asked.data[i] = (uint8_t) (i * 2654435761u >> 24);
    pthread_barrier_init(&asked.begin, NULL, (unsigned) asked.threads + 1);
    pthread_barrier_init(&asked.end, NULL, (unsigned) asked.threads + 1);
    for (i = 0; i < asked.threads; i++)
        pthread_create(&thread, NULL, thread_of, (void *) (intptr_t) i);
    for (i = 0; i <= asked.rounds; i++) {
        struct rusage before, after;
        struct timespec begin, end;
        getrusage(RUSAGE_SELF, &before);
        clock_gettime(CLOCK_MONOTONIC, &begin);
        pthread_barrier_wait(&asked.begin);
        pthread_barrier_wait(&asked.end);
        clock_gettime(CLOCK_MONOTONIC, &end);
        getrusage(RUSAGE_SELF, &after);
        if (i)
            printf("%.6f %.6f %.6f\n",
                   seconds(after.ru_utime) + seconds(after.ru_stime) - seconds(before.ru_utime)
                       - seconds(before.ru_stime),
                   seconds(after.ru_stime) - seconds(before.ru_stime),
                   (double) (end.tv_sec - begin.tv_sec) + (double) (end.tv_nsec - begin.tv_nsec) / 1e9);
    }
    return 0;
}
