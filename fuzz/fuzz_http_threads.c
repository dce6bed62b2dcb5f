/* The S3 engine with threads that submit, cancel, resume, close, stop and fork at once, against a server in another
 * process, with TLS and without, under ThreadSanitizer. Arguments: seconds, seed. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fuzzing.h"
#include "http/clock.h"
#include "http/engine.h"

#define SUBMITTERS 4
#define MOST 12 /* requests of one submitter at a time */
#define LONG (((size_t) 1 << 20) + 5000) /* is announced */
#define TARGET ((size_t) 2 << 20)

/* fuzz/run renames fcntl. ThreadSanitizer does not see that it makes a descriptor, and takes it for the one that had
 * its number before, perhaps in another thread. It does see a socket being made, whose place the duplicate takes. */
int really_fcntl(int fd, int command, ...) __asm__("fcntl");

int mf_threads_fcntl(int fd, int command, ...) {
    va_list arguments;
    long argument;
    va_start(arguments, command);
    argument = va_arg(arguments, long);
    va_end(arguments);
    if (command == F_DUPFD_CLOEXEC) {
        int made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        return made < 0 ? -1 : (int) syscall(SYS_dup3, fd, made, O_CLOEXEC);
    }
    return really_fcntl(fd, command, argument);
}

/* OpenSSL and libcurl are not instrumented: how their threads wait for each other is not seen. */
const char *__tsan_default_suppressions(void) {
    return "called_from_lib:libssl\ncalled_from_lib:libcrypto\ncalled_from_lib:libcurl\n";
}

static uint64_t until;
static int over(void) {
    return mf_now_ns() >= until;
}

static unsigned next(unsigned *random) {
    *random = *random * 1664525u + 1013904223u;
    return *random >> 16;
}

/* What only this file touches is not looked at: it would take most of the time. */
#define PLAIN __attribute__((no_sanitize("thread")))

PLAIN static uint8_t pattern(unsigned id, size_t at) {
    return (uint8_t) (0x80 | (id * 37 + at * 11 + (at >> 9) * 3));
}

/* ---- the server: what to do stands in the path, /b/WHAT-ID ---- */

struct client {
    int fd;
    SSL *tls; /* NULL: none */
};

static int listeners[2]; /* without TLS, with it */
static char origins[2][64], hosts[2][64];
static SSL_CTX *server_context;

static ssize_t hear(const struct client *client, char *at, size_t n) {
    return client->tls ? SSL_read(client->tls, at, (int) n) : recv(client->fd, at, n, 0);
}

static int say(const struct client *client, const char *at, size_t n) {
    while (n) {
        ssize_t sent = client->tls ? SSL_write(client->tls, at, (int) n) : send(client->fd, at, n, MSG_NOSIGNAL);
        if (sent <= 0)
            return 0;
        at += sent;
        n -= (size_t) sent;
    }
    return 1;
}

PLAIN static void fill(uint8_t *at, unsigned id, size_t n) {
    for (size_t i = 0; i < n; i++)
        at[i] = pattern(id, i);
}

static int say_object(const struct client *client, unsigned id, size_t n, size_t whole) {
    char head[256];
    uint8_t *body = malloc(n + 1);
    int fine, length;
    length = snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: %zu\r\n\r\n", whole);
    fill(body, id, n);
    fine = say(client, head, (size_t) length) && say(client, (char *) body, n) && n == whole;
    free(body);
    return fine;
}

static int serve_one(const struct client *client, char *head) {
    unsigned id = 0;
    char what[32] = "";
    const char *length = strstr(head, "\r\nContent-Length: ");
    size_t left = length ? (size_t) atol(length + 18) : 0;
    char sink[4096];
    REQUIRE(sscanf(strchr(head, ' '), " /b/%31[a-z]-%u ", what, &id) == 2);
    if (!strcmp(what, "early")) {
        say(client, "HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", 66);
        return 0;
    }
    while (left) {
        ssize_t got = hear(client, sink, left < sizeof sink ? left : sizeof sink);
        if (got <= 0)
            return 0;
        left -= (size_t) got;
    }
    if (!strcmp(what, "cut"))
        return say_object(client, id, 2000, 4000);
    if (!strcmp(what, "reset"))
        return 0;
    if (!strcmp(what, "never")) {
        struct pollfd one = {.fd = client->fd, .events = POLLIN};
        poll(&one, 1, 2000);
        return 0;
    }
    if (!strcmp(what, "slow"))
        usleep(20000);
    if (!strcmp(what, "close")) {
        say(client, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 57);
        return 0;
    }
    return say_object(client, id, !strcmp(what, "long") ? LONG : 4096, !strcmp(what, "long") ? LONG : 4096);
}

static void *serve(void *arg) {
    struct client *client = arg;
    char head[4096];
    size_t n = 0;
    struct timeval patience = {.tv_sec = 1};
    int going;
    setsockopt(client->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    going = !client->tls || (SSL_set_fd(client->tls, client->fd) && SSL_accept(client->tls) == 1);
    while (going) {
        char *end;
        ssize_t got = hear(client, head + n, 1);
        if (got <= 0 || n == sizeof head - 2)
            break;
        n += (size_t) got;
        head[n] = 0;
        end = n >= 4 ? head + n - 4 : head;
        if (strcmp(end, "\r\n\r\n") != 0)
            continue;
        n = 0;
        going = serve_one(client, head);
    }
    if (client->tls && !going)
        SSL_shutdown(client->tls);
    SSL_free(client->tls);
    close(client->fd);
    free(client);
    return NULL;
}

static SSL_CTX *new_server_context(void) {
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    REQUIRE(context && key && certificate);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 86400);
    X509_set_pubkey(certificate, key);
    REQUIRE(X509_sign(certificate, key, EVP_sha256()));
    REQUIRE(SSL_CTX_use_certificate(context, certificate) && SSL_CTX_use_PrivateKey(context, key));
    SSL_CTX_set_session_id_context(context, (const unsigned char *) "x", 1);
    return context;
}

static void listen_at(int secure) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof at;
    int listener = listeners[secure] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(listener >= 0 && !bind(listener, (struct sockaddr *) &at, sizeof at) && !listen(listener, 512));
    REQUIRE(!getsockname(listener, (struct sockaddr *) &at, &n));
    snprintf(hosts[secure], sizeof hosts[secure], "127.0.0.1:%d", ntohs(at.sin_port));
    snprintf(origins[secure], sizeof origins[secure], "http%s://%s", secure ? "s" : "", hosts[secure]);
}

/* In a process of its own: what is looked at is the engine. */
static pid_t start_server(void) {
    pid_t pid, parent = getpid();
    listen_at(0);
    listen_at(1);
    pid = fork();
    REQUIRE(pid >= 0);
    if (pid)
        return pid;
    signal(SIGPIPE, SIG_IGN);
    server_context = new_server_context();
    while (getppid() == parent) {
        struct pollfd both[] = {{.fd = listeners[0], .events = POLLIN}, {.fd = listeners[1], .events = POLLIN}};
        pthread_t thread;
        if (poll(both, 2, 1000) <= 0)
            continue;
        for (int secure = 0; secure < 2; secure++) {
            int fd = both[secure].revents ? accept(listeners[secure], NULL, NULL) : -1;
            struct client *client = fd < 0 ? NULL : calloc(1, sizeof *client);
            if (!client)
                continue;
            client->fd = fd;
            client->tls = secure ? SSL_new(server_context) : NULL;
            if (!pthread_create(&thread, NULL, serve, client))
                pthread_detach(thread);
        }
    }
    _exit(0);
}

/* ---- who asks ---- */

static const char *const WHAT[] = {
    "small", "small", "small", "small", "long", "long", "slow", "cut", "reset", "never", "close", "early",
};
static struct mf_engine *engine;
static struct mf_route get_routes[2], put_routes[2]; /* without TLS, with it */

struct request {
    struct mf_xfer xfer;
    struct mf_part part;
    char key[32];
    unsigned what, id;
    int cancelled, resumed;
    uint8_t *memory;
};

struct submitter {
    pthread_t thread, meddler;
    pthread_mutex_t lock; /* requests, which the meddler cancels and resumes too */
    struct request *live[MOST];
    unsigned random, meddling, id;
    int done;
    size_t ended, fine, secure, announced, cancelled; /* secure: of those that are fine */
};

static int is(const struct request *r, const char *what) {
    return !strcmp(WHAT[r->what], what);
}

static struct request *new_request(struct submitter *s) {
    struct request *r = calloc(1, sizeof *r);
    struct mf_xfer *x = &r->xfer;
    int putting, secure;
    r->id = s->id += SUBMITTERS;
    r->what = next(&s->random) % (sizeof WHAT / sizeof *WHAT);
    secure = next(&s->random) % 2;
    putting = is(r, "early") || (is(r, "small") && next(&s->random) % 4 == 0);
    x->route = (putting ? put_routes : get_routes) + secure;
    snprintf(r->key, sizeof r->key, "%s-%u", WHAT[r->what], r->id);
    x->key = (struct mf_text){r->key, strlen(r->key)};
    x->has_key = 1;
    x->owner = r;
    x->crc_kind = MF_NO_CRC;
    x->body_fd = -1;
    x->stop = x->wanted_bytes = x->length = -1;
    x->first_byte_ns = 300000000u;
    x->stall_ns = 1000000000u;
    x->fresh = next(&s->random) % 16 == 0;
    if (putting) {
        size_t n = is(r, "early") ? LONG : 5000;
        r->memory = malloc(n);
        memset(r->memory, 1, n);
        r->part = (struct mf_part){r->memory, n};
        x->parts = &r->part;
        x->parts_n = 1;
        x->body_n = n;
        x->has_body = 1;
    } else if (next(&s->random) % 2) {
        x->has_target = 1;
        x->target = (struct mf_target){.at = r->memory = malloc(TARGET), .fd = -1, .n = TARGET};
    }
    return r;
}

PLAIN static int is_object(const uint8_t *at, unsigned id, size_t n) {
    size_t i = 0;
    while (i < n && at[i] == pattern(id, i))
        i++;
    return i == n;
}

static void check(struct submitter *s, struct request *r) {
    const struct mf_xfer *x = &r->xfer;
    const uint8_t *data = x->sink == MF_SINK_TARGET ? x->target.at : x->data;
    s->ended++;
    s->cancelled += x->failure == MF_CANCELLED;
    if (x->failure != MF_FINE)
        return;
    s->fine++;
    s->secure += x->route->origin == origins[1];
    REQUIRE(!is(r, "cut") && !is(r, "reset") && !is(r, "never"));
    REQUIRE(x->status == (is(r, "early") ? 503 : 200));
    REQUIRE(x->received == (is(r, "long") ? LONG : is(r, "close") || is(r, "early") ? 0 : 4096));
    REQUIRE(is_object(data, r->id, x->received));
}

static void release(struct request *r) {
    free(r->xfer.head);
    free(r->xfer.data);
    free(r->memory);
    free(r);
}

static void resume(struct submitter *s, struct request *r) {
    struct mf_target target = {.fd = -1, .n = TARGET};
    if (r->resumed || r->xfer.has_target)
        return;
    r->resumed = 1;
    s->announced++;
    target.at = r->memory = malloc(TARGET);
    mf_xfer_resume(engine, &r->xfer, target, -1, 0);
}

static void submit(struct submitter *s, struct mf_channel *channel) {
    struct mf_xfer *batch[MOST];
    size_t n = 0;
    for (int i = 0; i < MOST; i++)
        if (!s->live[i] && next(&s->random) % 2) {
            s->live[i] = new_request(s);
            batch[n++] = &s->live[i]->xfer;
        }
    if (n)
        REQUIRE(mf_engine_submit(engine, channel, batch, n) == 0);
}

static void collect(struct submitter *s, struct mf_event *event) {
    while (event) {
        struct mf_event *following = event->next;
        struct request *r = event->xfer->owner;
        if (event->announced) {
            if (next(&s->random) % 4)
                resume(s, r);
            else
                mf_xfer_cancel(engine, &r->xfer);
        } else {
            for (int i = 0; i < MOST; i++)
                if (s->live[i] == r)
                    s->live[i] = NULL;
            check(s, r);
            release(r);
        }
        event = following;
    }
}

/* As Channel.close() in transfer.pyx. */
static void close_channel(struct submitter *s, struct mf_channel *channel) {
    for (int i = 0; i < MOST; i++)
        if (s->live[i])
            mf_xfer_cancel(engine, &s->live[i]->xfer);
    mf_channel_drain(channel);
    collect(s, mf_channel_take(channel));
    for (int i = 0; i < MOST; i++)
        REQUIRE(!s->live[i]);
    mf_channel_free(channel);
}

static void *ask(void *arg) {
    struct submitter *s = arg;
    struct mf_channel *channel = NULL;
    while (!over()) {
        if (!channel)
            REQUIRE((channel = mf_channel_new()) != NULL);
        pthread_mutex_lock(&s->lock);
        submit(s, channel);
        pthread_mutex_unlock(&s->lock);
        mf_channel_wait(channel, 20);
        pthread_mutex_lock(&s->lock);
        collect(s, mf_channel_take(channel));
        if (next(&s->random) % 64 == 0) {
            close_channel(s, channel);
            channel = NULL;
        }
        pthread_mutex_unlock(&s->lock);
    }
    pthread_mutex_lock(&s->lock);
    if (channel)
        close_channel(s, channel);
    s->done = 1;
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* Another thread than the one that submits: cancels what it likes. */
static void *meddle(void *arg) {
    struct submitter *s = arg;
    unsigned random = s->meddling;
    while (!over()) {
        usleep(20000 + next(&random) % 60000);
        pthread_mutex_lock(&s->lock);
        struct request *r = s->live[next(&random) % MOST];
        if (r)
            mf_xfer_cancel(engine, &r->xfer);
        pthread_mutex_unlock(&s->lock);
    }
    return NULL;
}

int main(int argc, char **argv) {
    struct mf_config config = {.verify = 0, .threads = 3, .connect_timeout_ms = 2000};
    struct submitter submitters[SUBMITTERS];
    unsigned random = argc > 2 ? (unsigned) atoi(argv[2]) : 1, stops = 0, forks = 0;
    size_t ended = 0, fine = 0, secure = 0, announced = 0, cancelled = 0;
    pid_t server = start_server();
    REQUIRE(argc > 1);
    alarm((unsigned) atoi(argv[1]) + 60); /* a deadlock is a finding */
    config.max_bandwidth = random % 2 ? 0 : 5e7;
    until = mf_now_ns() + (uint64_t) atoi(argv[1]) * 1000000000u;
    for (int secure = 0; secure < 2; secure++) {
        struct mf_route *get = get_routes + secure, *put = put_routes + secure;
        *get = (struct mf_route){.id = mf_next_id(), .operation = MF_GET, .method = "GET"};
        get->origin = origins[secure];
        get->host = hosts[secure];
        get->match_header = "if-match";
        get->path = (struct mf_text){"/b/", 3};
        get->query = get->region = get->service = (struct mf_text){"", 0};
        *put = *get;
        put->id = mf_next_id();
        put->operation = MF_PUT;
        put->method = "PUT";
    }
    REQUIRE((engine = mf_engine_new(&config)) != NULL);
    for (unsigned i = 0; i < SUBMITTERS; i++) {
        submitters[i] = (struct submitter){.random = random * 131 + i, .meddling = random * 137 + i, .id = i};
        pthread_mutex_init(&submitters[i].lock, NULL);
        REQUIRE(!pthread_create(&submitters[i].thread, NULL, ask, submitters + i));
        REQUIRE(!pthread_create(&submitters[i].meddler, NULL, meddle, submitters + i));
    }
    while (!over()) {
        usleep(300000 + 20 * (next(&random) % 40000));
        if (next(&random) % 2) {
            mf_engine_stop(engine); /* it starts again with the next that is submitted */
            stops++;
        } else {
            int status;
            pid_t child = fork();
            REQUIRE(child >= 0);
            if (!child)
                _exit(0); /* what a fork does in a child is done */
            REQUIRE(waitpid(child, &status, 0) == child && status == 0);
            forks++;
        }
    }
    for (unsigned i = 0; i < SUBMITTERS; i++) {
        pthread_join(submitters[i].thread, NULL);
        pthread_join(submitters[i].meddler, NULL);
        REQUIRE(submitters[i].done);
        ended += submitters[i].ended;
        fine += submitters[i].fine;
        secure += submitters[i].secure;
        announced += submitters[i].announced;
        cancelled += submitters[i].cancelled;
    }
    mf_engine_stop(engine);
    mf_engine_free(engine);
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    fprintf(stderr, "%zu requests: %zu fine, %zu of them with TLS, %zu announced, ", ended, fine, secure, announced);
    fprintf(stderr, "%zu cancelled; %u stops, %u forks\n", cancelled, stops, forks);
    REQUIRE(fine > ended / 20 && secure && secure < fine && announced && cancelled && stops + forks);
    return 0;
}
