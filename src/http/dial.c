#include "http/dial.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http/clock.h"
#include "http/parser.h"
#include "http/tls.h"

/* Of a proxy's answers to CONNECT, interim ones too. */
#define ANSWER_MAX ((size_t) 16 << 10)

enum stage { STAGE_TCP, STAGE_PROXY_TLS, STAGE_ASK, STAGE_ANSWER, STAGE_TLS, STAGE_ENDED };

/* A place: of an origin or a proxy. */
struct place {
    int secure;
    char host[256]; /* without brackets */
    char port[8];
    int v6;
};

struct mf_dial {
    struct mf_watch watch; /* of the link's socket, while we speak on it */
    struct mf_dialer *dialer;
    struct mf_dial *next, *prev; /* all that are under way */
    struct mf_dial *touched_next;
    int touched;
    void *owner;
    enum stage stage;
    uint64_t deadline;
    struct place origin;
    CURL *easy; /* NULL after STAGE_TCP */
    struct mf_link *link;
    char *text; /* what is asked of the proxy, then what it answers */
    size_t text_n, text_at;
    struct mf_head head; /* of the answer that begins at text_at */
    int failure, error;
    char words[CURL_ERROR_SIZE];
};

/* A descriptor that libcurl wants to hear of. */
struct socket {
    struct mf_watch watch;
    struct mf_dialer *dialer;
    struct socket *next, *prev;
    CURL *easy; /* whose it is */
};

struct mf_dialer {
    const struct mf_config *config;
    struct mf_poller *poller;
    mf_dialed *dialed;
    CURLM *multi;
    uint64_t timer_ns; /* when libcurl wants to be called; UINT64_MAX: not */
    struct mf_dial *dials, *touched;
    struct socket *sockets;
    CURL **spare; /* handles that are not in use */
    size_t spare_n, spare_room;
    int http_proxy; /* config's, and not SOCKS */
    struct place proxy;
    char *authorization; /* NULL: none */
    SSL_CTX *context, *proxy_context;
    struct mf_link_memory memory;
};

/* ---- where to ---- */

/* A port that is not said is the scheme's, of a proxy too: so botocore and urllib have it, and libcurl has not. */
static int parse(const char *text, struct place *place) {
    CURLU *url = curl_url();
    char *scheme = NULL, *host = NULL, *port = NULL;
    size_t n;
    int fine = url && curl_url_set(url, CURLUPART_URL, text, CURLU_NON_SUPPORT_SCHEME) == CURLUE_OK &&
               curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
               curl_url_get(url, CURLUPART_HOST, &host, 0) == CURLUE_OK && (n = strlen(host)) > 0 &&
               n < sizeof place->host;
    if (fine) {
        place->secure = strcmp(scheme, "https") == 0;
        place->v6 = host[0] == '[';
        if (place->v6) {
            memcpy(place->host, host + 1, n - 2);
            place->host[n - 2] = 0;
        } else
            memcpy(place->host, host, n + 1);
        if (curl_url_get(url, CURLUPART_PORT, &port, 0) != CURLUE_OK)
            port = NULL;
        snprintf(place->port, sizeof place->port, "%s", port ? port : place->secure ? "443" : "80");
    }
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(url);
    return fine;
}

/* "host:port", as URLs and CONNECT name it. */
static void spell(const struct place *place, char *text, size_t n) {
    snprintf(text, n, place->v6 ? "[%s]:%s" : "%s:%s", place->host, place->port);
}

/* Basic, of user and password in the proxy's URL. -1: no memory. */
static int authorize(struct mf_dialer *dialer) {
    CURLU *url = curl_url();
    char *user = NULL, *password = NULL, *both = NULL;
    int code = -1;
    /* A libcurl that is for dialing alone may know no https. */
    unsigned flags = CURLU_GUESS_SCHEME | CURLU_NON_SUPPORT_SCHEME;
    if (url && curl_url_set(url, CURLUPART_URL, dialer->config->proxy, flags) == CURLUE_OK) {
        curl_url_get(url, CURLUPART_USER, &user, CURLU_URLDECODE);
        curl_url_get(url, CURLUPART_PASSWORD, &password, CURLU_URLDECODE);
        code = 0;
    }
    if (user) {
        size_t n = strlen(user) + 1 + (password ? strlen(password) : 0);
        both = malloc(n + 1);
        dialer->authorization = malloc(6 + (n + 2) / 3 * 4 + 1);
        if (both && dialer->authorization) {
            snprintf(both, n + 1, "%s:%s", user, password ? password : "");
            memcpy(dialer->authorization, "Basic ", 6);
            EVP_EncodeBlock((unsigned char *) dialer->authorization + 6, (unsigned char *) both, (int) n);
        } else
            code = -1;
    }
    free(both);
    curl_free(user);
    curl_free(password);
    curl_url_cleanup(url);
    return code;
}

/* ---- libcurl's wishes ---- */

static void socket_ready(struct mf_watch *watch, unsigned what) {
    struct socket *socket = (struct socket *) watch;
    int running, act = 0;
    if (what & MF_READABLE)
        act |= CURL_CSELECT_IN;
    if (what & MF_WRITABLE)
        act |= CURL_CSELECT_OUT;
    if (what & MF_HUNG_UP)
        act |= CURL_CSELECT_ERR;
    curl_multi_socket_action(socket->dialer->multi, watch->fd, act, &running);
}

static struct socket *socket_of(struct mf_dialer *dialer, int fd) {
    struct socket *socket = dialer->sockets;
    while (socket && socket->watch.fd != fd)
        socket = socket->next;
    return socket;
}

static void free_socket(struct socket *socket) {
    mf_poller_want(socket->dialer->poller, &socket->watch, 0);
    if (socket->prev)
        socket->prev->next = socket->next;
    else
        socket->dialer->sockets = socket->next;
    if (socket->next)
        socket->next->prev = socket->prev;
    free(socket);
}

/* libcurl (7.88) closes a socket that has not connected before it says that it wants to hear of it no more, and without
 * on_close. By then another thread may have a descriptor of that number. */
static void free_sockets(struct mf_dialer *dialer, const CURL *easy) {
    struct socket *socket, *next;
    for (socket = dialer->sockets; socket; socket = next) {
        next = socket->next;
        if (socket->easy == easy)
            free_socket(socket);
    }
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known) {
    struct mf_dialer *dialer = arg;
    struct socket *socket = socket_of(dialer, fd);
    unsigned wanted = 0;
    (void) known;
    if (what == CURL_POLL_REMOVE) {
        if (socket)
            free_socket(socket);
        return 0;
    }
    if (!socket) {
        socket = calloc(1, sizeof *socket);
        if (!socket)
            return -1;
        socket->watch.fd = fd;
        socket->watch.ready = socket_ready;
        socket->dialer = dialer;
        socket->next = dialer->sockets;
        if (socket->next)
            socket->next->prev = socket;
        dialer->sockets = socket;
    }
    socket->easy = easy;
    if (what & CURL_POLL_IN)
        wanted |= MF_READABLE;
    if (what & CURL_POLL_OUT)
        wanted |= MF_WRITABLE;
    return mf_poller_want(dialer->poller, &socket->watch, wanted) == 0 ? 0 : -1;
}

static int on_timer(CURLM *multi, long milliseconds, void *arg) {
    struct mf_dialer *dialer = arg;
    (void) multi;
    if (milliseconds > 0)
        dialer->timer_ns = mf_now_ns() + (uint64_t) milliseconds * 1000000u;
    else
        dialer->timer_ns = milliseconds < 0 ? UINT64_MAX : 0;
    return 0;
}

static curl_socket_t on_open(void *arg, curlsocktype purpose, struct curl_sockaddr *address) {
    int type = address->socktype, one = 1;
    struct mf_dial *dial = arg;
    struct mf_dialer *dialer = dial->dialer;
    struct socket *old;
    curl_socket_t fd;
    (void) purpose;
#if defined(SOCK_CLOEXEC)
    type |= SOCK_CLOEXEC; /* libcurl does not, and a child must not hold our connections open */
#endif
    fd = socket(address->family, type, address->protocol);
    if (fd < 0) {
        dial->error = errno; /* libcurl does not tell */
        return CURL_SOCKET_BAD;
    }
#if defined(SO_NOSIGPIPE)
    setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &one, sizeof one);
#endif
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if ((old = socket_of(dialer, fd)) != NULL) {
        /* It was closed without a word, and libcurl believes that we still look for the same on this one. */
        unsigned what = old->watch.told;
        mf_poller_want(dialer->poller, &old->watch, 0);
        mf_poller_want(dialer->poller, &old->watch, what);
    }
    return fd;
}

/* The poller is told before the number can be used again, whatever libcurl says of it and when. */
static int on_close(void *arg, curl_socket_t fd) {
    struct socket *socket = socket_of(arg, fd);
    if (socket)
        free_socket(socket);
    return close(fd);
}

static CURL *take_easy(struct mf_dialer *dialer) {
    const struct mf_config *config = dialer->config;
    CURL *easy;
    if (dialer->spare_n)
        return dialer->spare[--dialer->spare_n];
    easy = curl_easy_init();
    if (!easy)
        return NULL;
    curl_easy_setopt(easy, CURLOPT_CONNECT_ONLY, 1L);
    curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
#if LIBCURL_VERSION_NUM >= 0x075500
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http");
#else
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS, (long) CURLPROTO_HTTP);
#endif
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 1024L); /* nothing is read into it */
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, config->connect_timeout_ms);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_DNS_SHUFFLE_ADDRESSES, 1L);
    /* "": not the environment's either. */
    curl_easy_setopt(easy, CURLOPT_PROXY, config->proxy && !dialer->http_proxy ? config->proxy : "");
    /* Whether the proxy is for this host was decided above; libcurl would ask no_proxy of the environment once more,
     * also of a proxy that was given, and send the origin a request that is meant for a proxy. */
    curl_easy_setopt(easy, CURLOPT_NOPROXY, "");
#if LIBCURL_VERSION_NUM >= 0x075700
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L); /* a dropped dial does not wait for the resolver's thread */
#endif
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, on_close);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, dialer);
    return easy;
}

static void give_easy(struct mf_dialer *dialer, CURL *easy) {
    free_sockets(dialer, easy);
    curl_multi_remove_handle(dialer->multi, easy);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, NULL);
    if (dialer->spare_n < dialer->spare_room)
        dialer->spare[dialer->spare_n++] = easy;
    else
        curl_easy_cleanup(easy);
}

/* ---- a dial ---- */

static void touch(struct mf_dial *dial) {
    if (dial->touched)
        return;
    dial->touched = 1;
    dial->touched_next = dial->dialer->touched;
    dial->dialer->touched = dial;
}

static void link_ready(struct mf_watch *watch, unsigned what) {
    (void) what;
    touch((struct mf_dial *) watch);
}

static void fail(struct mf_dial *dial, int failure, int error, const char *words) {
    dial->stage = STAGE_ENDED;
    dial->failure = failure;
    dial->error = error;
    if (words != dial->words)
        snprintf(dial->words, sizeof dial->words, "%s", words);
}

struct mf_dial *mf_dial_start(struct mf_dialer *dialer, const char *origin, int fresh, void *owner) {
    struct mf_dial *dial = calloc(1, sizeof *dial);
    char where[300], url[320];
    if (!dial)
        return NULL;
    dial->dialer = dialer;
    dial->owner = owner;
    dial->watch.ready = link_ready;
    dial->deadline = mf_now_ns() + (uint64_t) dialer->config->connect_timeout_ms * 1000000u;
    if (!parse(origin, &dial->origin))
        fail(dial, MF_CONNECT, 0, "the origin's URL cannot be understood");
    else if (dialer->http_proxy && !dialer->proxy.host[0])
        fail(dial, MF_PROXY, 0, "the proxy's URL cannot be understood");
    else {
        dial->easy = take_easy(dialer);
        if (!dial->easy) {
            free(dial);
            return NULL;
        }
        spell(dialer->http_proxy ? &dialer->proxy : &dial->origin, where, sizeof where);
        snprintf(url, sizeof url, "http://%s/", where);
        curl_easy_setopt(dial->easy, CURLOPT_URL, url);
        curl_easy_setopt(dial->easy, CURLOPT_ERRORBUFFER, dial->words);
        curl_easy_setopt(dial->easy, CURLOPT_PRIVATE, dial);
        curl_easy_setopt(dial->easy, CURLOPT_OPENSOCKETDATA, dial);
        curl_easy_setopt(dial->easy, CURLOPT_DNS_CACHE_TIMEOUT, fresh ? 0L : 30L);
        if (curl_multi_add_handle(dialer->multi, dial->easy) != CURLM_OK) {
            curl_easy_cleanup(dial->easy);
            free(dial);
            return NULL;
        }
    }
    dial->next = dialer->dials;
    if (dial->next)
        dial->next->prev = dial;
    dialer->dials = dial;
    if (dial->failure)
        touch(dial);
    return dial;
}

/* Takes it out of everything; its link, if there is one, stays open. */
static void forget(struct mf_dial *dial) {
    struct mf_dialer *dialer = dial->dialer;
    struct mf_dial **at;
    if (dial->easy)
        give_easy(dialer, dial->easy);
    dial->easy = NULL;
    mf_poller_want(dialer->poller, &dial->watch, 0);
    if (dial->touched)
        for (at = &dialer->touched; *at; at = &(*at)->touched_next)
            if (*at == dial) {
                *at = dial->touched_next;
                break;
            }
    if (dial->prev)
        dial->prev->next = dial->next;
    else
        dialer->dials = dial->next;
    if (dial->next)
        dial->next->prev = dial->prev;
}

void mf_dial_drop(struct mf_dial *dial) {
    forget(dial);
    if (dial->link)
        mf_link_close(dial->link);
    free(dial->text);
    free(dial);
}

static void end(struct mf_dial *dial) {
    struct mf_link *link = dial->link;
    forget(dial);
    if (dial->failure && link) {
        mf_link_close(link);
        link = NULL;
    }
    dial->dialer->dialed(dial->owner, dial, link, dial->failure, dial->error, dial->words);
    free(dial->text);
    free(dial);
}

/* The one place where libcurl's codes become those of engine.h. */
static int failure_of(const struct mf_dialer *dialer, CURLcode code) {
    int proxy = dialer->config->proxy != NULL;
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
        return dialer->http_proxy ? MF_PROXY : MF_DNS;
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_PROXY:
        return MF_PROXY;
    case CURLE_COULDNT_CONNECT:
    case CURLE_RECV_ERROR: /* of what SOCKS says */
    case CURLE_SEND_ERROR:
        return proxy ? MF_PROXY : MF_CONNECT;
    case CURLE_OPERATION_TIMEDOUT:
        return MF_CONNECT;
    default:
        return MF_INTERNAL;
    }
}

/* libcurl has connected, or not. Its descriptor is duplicated, so that it can forget and close its own. */
static void connected(struct mf_dial *dial, CURLcode code) {
    struct mf_dialer *dialer = dial->dialer;
    curl_socket_t theirs = CURL_SOCKET_BAD;
    int fd = -1;
    if (code == CURLE_OK && curl_easy_getinfo(dial->easy, CURLINFO_ACTIVESOCKET, &theirs) == CURLE_OK &&
        theirs != CURL_SOCKET_BAD)
        fd = fcntl(theirs, F_DUPFD_CLOEXEC, 0);
    if (code != CURLE_OK) {
        long error = 0;
        curl_easy_getinfo(dial->easy, CURLINFO_OS_ERRNO, &error);
        if (error || code != CURLE_COULDNT_CONNECT)
            dial->error = (int) error;
        else if (dial->error)
            snprintf(dial->words, sizeof dial->words, "%s", strerror(dial->error));
        fail(dial, failure_of(dialer, code), dial->error, dial->words[0] ? dial->words : curl_easy_strerror(code));
    } else if (fd < 0)
        fail(dial, MF_CONNECT, errno, strerror(errno)); /* as for a socket: others may close theirs */
    give_easy(dialer, dial->easy);
    dial->easy = NULL;
    if (fd < 0)
        return;
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    dial->link = mf_link_new(fd, &dialer->memory);
    if (!dial->link) {
        fail(dial, MF_INTERNAL, ENOMEM, "out of memory");
        return;
    }
    dial->watch.fd = fd;
    dial->words[0] = 0;
}

/* Begins TLS on dial's link. */
static int secure(struct mf_dial *dial, int proxy) {
    struct mf_dialer *dialer = dial->dialer;
    const struct mf_config *config = dialer->config;
    SSL_CTX **context = proxy ? &dialer->proxy_context : &dialer->context;
    const struct mf_trust ours = {config->verify, config->ca_file, config->certificate, config->private_key};
    const struct mf_trust theirs = {config->verify, config->proxy_ca_file ? config->proxy_ca_file : config->ca_file,
                                    config->proxy_certificate, config->proxy_private_key};
    const struct place *place = proxy ? &dialer->proxy : &dial->origin;
    SSL *tls;
    if (!*context) {
        *context = mf_tls_context(proxy ? &theirs : &ours, dial->words, sizeof dial->words);
        if (!*context) {
            fail(dial, MF_TLS, 0, dial->words);
            return -1;
        }
    }
    tls = mf_tls_client(*context, place->host, place->port);
    if (!tls || mf_link_secure_with(dial->link, tls) < 0) {
        fail(dial, MF_INTERNAL, ENOMEM, "out of memory");
        return -1;
    }
    return 0;
}

static int ask(struct mf_dial *dial) {
    const char *authorization = dial->dialer->authorization;
    size_t room = ANSWER_MAX + 1024 + (authorization ? strlen(authorization) : 0);
    char where[300];
    spell(&dial->origin, where, sizeof where);
    dial->text = malloc(room);
    if (!dial->text) {
        fail(dial, MF_INTERNAL, ENOMEM, "out of memory");
        return -1;
    }
    dial->text_n = (size_t) snprintf(dial->text, room, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s%s%s\r\n", where, where,
                                     authorization ? "Proxy-Authorization: " : "", authorization ? authorization : "",
                                     authorization ? "\r\n" : "");
    dial->text_at = 0;
    return 0;
}

/* A code of link.h; 0: it was sent. */
static int send_question(struct mf_dial *dial) {
    while (dial->text_at < dial->text_n) {
        struct iovec piece = {dial->text + dial->text_at, dial->text_n - dial->text_at};
        ptrdiff_t sent = mf_link_send(dial->link, &piece, 1);
        if (sent < 0)
            return (int) sent;
        dial->text_at += (size_t) sent;
    }
    return mf_link_flush(dial->link);
}

/* A code of link.h; 0: the tunnel stands, or the dial has failed. Interim answers (1xx) are heads of their own before
 * the one that counts. */
static int read_answer(struct mf_dial *dial) {
    for (;;) {
        size_t left = ANSWER_MAX - dial->text_n, seen;
        ptrdiff_t got = left ? mf_link_receive(dial->link, dial->text + dial->text_n, left) : 0;
        enum mf_http code = MF_HTTP_DONE;
        if (got < 0)
            return (int) got;
        if (got == 0) {
            fail(dial, MF_PROXY, left ? ECONNRESET : 0,
                 left ? "the proxy ended the connection" : "the proxy's answer does not end");
            return 0;
        }
        seen = dial->text_n - dial->text_at;
        dial->text_n += (size_t) got;
        /* As to HEAD, for no body follows that anybody wants. */
        while (dial->text_at < dial->text_n) {
            code = mf_head_read(dial->text + dial->text_at, dial->text_n - dial->text_at, seen, 1, &dial->head);
            if (code != MF_HTTP_DONE)
                break;
            dial->text_at += dial->head.n;
            seen = 0;
            if (dial->head.status >= 200)
                break;
        }
        if (code == MF_HTTP_MORE || (code == MF_HTTP_DONE && dial->head.status < 200))
            continue;
        if (code != MF_HTTP_DONE) {
            char words[128];
            snprintf(words, sizeof words, "the proxy's answer is no HTTP: %s", mf_http_words(code));
            fail(dial, MF_PROXY, 0, words);
        } else if (dial->head.status / 100 != 2) {
            char words[64];
            snprintf(words, sizeof words, "the proxy refused the tunnel with status %d", dial->head.status);
            fail(dial, MF_PROXY, 0, words);
        } else if (dial->text_at != dial->text_n)
            fail(dial, MF_PROXY, 0, "the proxy sent more than its answer");
        return 0;
    }
}

/* What broke while we spoke on a link that stands. */
static void broke(struct mf_dial *dial) {
    const char *words;
    int error = mf_link_error(dial->link, &words), failure;
    if (error == 0 && (dial->stage == STAGE_TLS || dial->stage == STAGE_PROXY_TLS))
        failure = MF_TLS; /* what one side objects to */
    else if (error == ENOMEM)
        failure = MF_INTERNAL;
    else
        failure = dial->stage == STAGE_TLS ? MF_RESET : MF_PROXY;
    fail(dial, failure, error, words);
}

/* As far as it goes now: afterwards the dial has ended, or waits for its socket. */
static void advance(struct mf_dial *dial) {
    struct mf_dialer *dialer = dial->dialer;
    int code = 0;
    while (dial->stage != STAGE_ENDED) {
        switch (dial->stage) {
        case STAGE_TCP:
            if (dialer->http_proxy && dialer->proxy.secure) {
                if (secure(dial, 1) == 0)
                    dial->stage = STAGE_PROXY_TLS;
                continue;
            }
            break;
        case STAGE_PROXY_TLS:
            code = mf_link_handshake(dial->link);
            break;
        case STAGE_ASK:
            code = send_question(dial);
            if (code == 0) {
                dial->text_n = dial->text_at = 0;
                dial->stage = STAGE_ANSWER;
                continue;
            }
            break;
        case STAGE_ANSWER:
            code = read_answer(dial);
            break;
        default:
            code = mf_link_handshake(dial->link);
        }
        if (dial->stage == STAGE_ENDED)
            break;
        if (code == MF_LINK_BROKEN) {
            broke(dial);
            break;
        }
        if (code < 0) {
            if ((code = mf_poller_want(dialer->poller, &dial->watch,
                                       code == MF_LINK_READ ? MF_READABLE : MF_WRITABLE)) != 0)
                fail(dial, MF_INTERNAL, code, strerror(code));
            break;
        }
        /* On to the next stage. */
        if (!dial->origin.secure || dial->stage == STAGE_TLS)
            dial->stage = STAGE_ENDED;
        else if (dialer->http_proxy && dial->stage != STAGE_ANSWER) {
            if (ask(dial) == 0)
                dial->stage = STAGE_ASK;
        } else if (secure(dial, 0) == 0)
            dial->stage = STAGE_TLS;
    }
}

/* ---- the dialer ---- */

struct mf_dialer *mf_dialer_new(const struct mf_config *config, struct mf_poller *poller, mf_dialed *dialed) {
    struct mf_dialer *dialer = calloc(1, sizeof *dialer);
    if (!dialer)
        return NULL;
    dialer->config = config;
    dialer->poller = poller;
    dialer->dialed = dialed;
    dialer->timer_ns = UINT64_MAX;
    dialer->spare_room = 16;
    dialer->spare = calloc(dialer->spare_room, sizeof(CURL *));
    dialer->multi = curl_multi_init();
    if (config->proxy && strncasecmp(config->proxy, "socks", 5) != 0) {
        dialer->http_proxy = 1;
        if (!parse(config->proxy, &dialer->proxy))
            dialer->proxy.host[0] = 0; /* then no dial succeeds */
        else if (authorize(dialer) < 0) {
            mf_dialer_free(dialer);
            return NULL;
        }
    }
    if (!dialer->spare || !dialer->multi) {
        mf_dialer_free(dialer);
        return NULL;
    }
    curl_multi_setopt(dialer->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(dialer->multi, CURLMOPT_SOCKETDATA, dialer);
    curl_multi_setopt(dialer->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(dialer->multi, CURLMOPT_TIMERDATA, dialer);
    return dialer;
}

void mf_dialer_free(struct mf_dialer *dialer) {
    while (dialer->dials)
        mf_dial_drop(dialer->dials);
    while (dialer->spare_n)
        curl_easy_cleanup(dialer->spare[--dialer->spare_n]);
    free(dialer->spare);
    if (dialer->multi)
        curl_multi_cleanup(dialer->multi);
    while (dialer->sockets)
        free_socket(dialer->sockets);
    mf_tls_context_free(dialer->context);
    mf_tls_context_free(dialer->proxy_context);
    mf_link_memory_free(&dialer->memory);
    free(dialer->authorization);
    free(dialer);
}

void mf_dialer_abandon(struct mf_dialer *dialer) {
    const struct socket *socket;
    for (socket = dialer->sockets; socket; socket = socket->next)
        if (socket->watch.told)
            close(socket->watch.fd);
    mf_links_abandon(&dialer->memory);
}

const char *mf_dialer_proxy_authorization(const struct mf_dialer *dialer) {
    return dialer->authorization;
}

uint64_t mf_dialer_when(const struct mf_dialer *dialer) {
    uint64_t when = dialer->timer_ns;
    const struct mf_dial *dial;
    if (dialer->touched)
        return 0;
    for (dial = dialer->dials; dial; dial = dial->next)
        if (!dial->easy && dial->deadline < when)
            when = dial->deadline;
    return when;
}

static void reap(struct mf_dialer *dialer) {
    CURLMsg *message;
    int left;
    while ((message = curl_multi_info_read(dialer->multi, &left)) != NULL) {
        struct mf_dial *dial;
        CURLcode code = message->data.result;
        if (message->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **) &dial);
        connected(dial, code);
        touch(dial);
    }
}

void mf_dialer_act(struct mf_dialer *dialer, uint64_t now) {
    struct mf_dial *dial, *next;
    int running;
    if (dialer->timer_ns <= now) {
        dialer->timer_ns = UINT64_MAX;
        curl_multi_socket_action(dialer->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    }
    if (!dialer->dials)
        return;
    reap(dialer);
    for (dial = dialer->dials; dial; dial = next) {
        next = dial->next;
        if (!dial->easy && !dial->touched && dial->deadline <= now) {
            fail(dial, MF_CONNECT, ETIMEDOUT, "no connection within the time allowed");
            touch(dial);
        }
    }
    while ((dial = dialer->touched) != NULL) {
        dialer->touched = dial->touched_next;
        dial->touched = 0;
        if (!dial->failure)
            advance(dial);
        if (dial->stage == STAGE_ENDED || dial->failure)
            end(dial);
    }
}
