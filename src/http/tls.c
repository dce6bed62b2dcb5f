#include "http/tls.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- sessions ---- */

/* Of so many hosts and ports the newest session is kept: a bucket in the host's name makes each bucket one. */
#define SESSIONS 64

struct sessions {
    pthread_mutex_t lock;
    unsigned next;
    struct {
        char place[280];
        SSL_SESSION *newest; /* NULL: none */
    } of[SESSIONS];
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int sessions_index = -1, place_index = -1;

static void free_sessions(void *parent, void *data, CRYPTO_EX_DATA *all, int index, long argl, void *argp) {
    struct sessions *sessions = data;
    int i;
    (void) parent, (void) all, (void) index, (void) argl, (void) argp;
    if (!sessions)
        return;
    for (i = 0; i < SESSIONS; i++)
        SSL_SESSION_free(sessions->of[i].newest);
    pthread_mutex_destroy(&sessions->lock);
    free(sessions);
}

static void free_place(void *parent, void *data, CRYPTO_EX_DATA *all, int index, long argl, void *argp) {
    (void) parent, (void) all, (void) index, (void) argl, (void) argp;
    free(data);
}

static void get_indexes(void) {
    sessions_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, free_sessions);
    place_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, free_place);
}

/* OpenSSL has one for us: with TLS 1.3 whenever the peer sends a ticket. 1: it is ours. */
static int on_session(SSL *tls, SSL_SESSION *session) {
    struct sessions *sessions = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(tls), sessions_index);
    const char *place = SSL_get_ex_data(tls, place_index);
    SSL_SESSION *before;
    unsigned i;
    if (!sessions || !place)
        return 0;
    pthread_mutex_lock(&sessions->lock);
    for (i = 0; i < SESSIONS && strcmp(sessions->of[i].place, place) != 0; i++) {
    }
    if (i == SESSIONS) {
        i = sessions->next++ % SESSIONS;
        snprintf(sessions->of[i].place, sizeof sessions->of[i].place, "%s", place);
    }
    before = sessions->of[i].newest;
    sessions->of[i].newest = session;
    pthread_mutex_unlock(&sessions->lock);
    SSL_SESSION_free(before);
    return 1;
}

static int keep_sessions(SSL_CTX *context) {
    struct sessions *sessions = calloc(1, sizeof *sessions);
    if (!sessions)
        return 0;
    pthread_mutex_init(&sessions->lock, NULL);
    pthread_once(&once, get_indexes);
    if (!SSL_CTX_set_ex_data(context, sessions_index, sessions)) {
        free_sessions(NULL, sessions, NULL, 0, 0, NULL);
        return 0;
    }
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, on_session);
    return 1;
}

static int take_up(SSL *tls, const char *host, const char *port) {
    struct sessions *sessions = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(tls), sessions_index);
    size_t n = strlen(host) + strlen(port) + 2;
    char *place = malloc(n);
    int i;
    if (!place)
        return 0;
    snprintf(place, n, "%s:%s", host, port);
    if (!SSL_set_ex_data(tls, place_index, place)) {
        free(place);
        return 0;
    }
    pthread_mutex_lock(&sessions->lock);
    for (i = 0; i < SESSIONS; i++)
        if (sessions->of[i].newest && strcmp(sessions->of[i].place, place) == 0)
            SSL_set_session(tls, sessions->of[i].newest);
    pthread_mutex_unlock(&sessions->lock);
    return 1;
}

/* ---- contexts ---- */

static SSL_CTX *refused(SSL_CTX *context, const char *what, const char *file, char *words, size_t words_n) {
    const char *reason = ERR_reason_error_string(ERR_peek_error());
    snprintf(words, words_n, "%s%s%s: %s", what, file ? " " : "", file ? file : "", reason ? reason : "no memory");
    ERR_clear_error();
    SSL_CTX_free(context);
    return NULL;
}

/* OpenSSL would ask for one on the terminal, and all that this thread does would wait for it. */
static int no_password(char *at, int n, int writing, void *arg) {
    (void) at, (void) n, (void) writing, (void) arg;
    return -1;
}

static SSL_CTX *make(const struct mf_trust *trust, char *words, size_t words_n) {
    static const unsigned char protocols[] = "\x08http/1.1";
    SSL_CTX *context;
    ERR_clear_error();
    context = SSL_CTX_new(TLS_client_method());
    if (!context || !SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) ||
        SSL_CTX_set_alpn_protos(context, protocols, sizeof protocols - 1) || !keep_sessions(context))
        return refused(context, "TLS", NULL, words, words_n);
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    /* A stream that ends without a goodbye may have been cut, whatever openssl.cnf says. */
    SSL_CTX_clear_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_verify(context, trust->verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    /* Whoever trusts an intermediate or a server's own certificate says so by putting it into the bundle. */
    X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(context), X509_V_FLAG_PARTIAL_CHAIN);
    X509_VERIFY_PARAM_set_hostflags(SSL_CTX_get0_param(context), X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (trust->verify && !(trust->ca_file ? SSL_CTX_load_verify_file(context, trust->ca_file)
                                          : SSL_CTX_set_default_verify_paths(context)))
        return refused(context, "certificates", trust->ca_file, words, words_n);
    SSL_CTX_set_default_passwd_cb(context, no_password);
    if (trust->certificate) {
        const char *private_key = trust->private_key ? trust->private_key : trust->certificate;
        if (SSL_CTX_use_certificate_chain_file(context, trust->certificate) != 1)
            return refused(context, "client certificate", trust->certificate, words, words_n);
        if (SSL_CTX_use_PrivateKey_file(context, private_key, SSL_FILETYPE_PEM) != 1 ||
            SSL_CTX_check_private_key(context) != 1)
            return refused(context, "client key", private_key, words, words_n);
    }
    return context;
}

/* ---- those that were made ---- */

/* A process speaks to few services; each client beyond them reads its files again. */
#define KEPT 4

#if defined(__APPLE__)
#define CHANGED st_ctimespec
#else
#define CHANGED st_ctim
#endif

struct file {
    char *path; /* NULL: none */
    struct stat found;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct kept {
    SSL_CTX *context; /* NULL: free */
    int verify;
    struct file files[3];
} kept[KEPT];
static unsigned next_kept;

static void look(const struct mf_trust *trust, struct file files[3]) {
    const char *paths[3] = {trust->ca_file, trust->certificate, trust->private_key};
    int i;
    memset(files, 0, 3 * sizeof *files);
    for (i = 0; i < 3; i++) {
        files[i].path = (char *) paths[i];
        if (paths[i] && stat(paths[i], &files[i].found) < 0)
            memset(&files[i].found, 0, sizeof files[i].found);
    }
}

static int is_same_file(const struct file *one, const struct file *other) {
    if (!one->path || !other->path)
        return one->path == other->path;
    return strcmp(one->path, other->path) == 0 && one->found.st_dev == other->found.st_dev &&
           one->found.st_ino == other->found.st_ino && one->found.st_size == other->found.st_size &&
           one->found.CHANGED.tv_sec == other->found.CHANGED.tv_sec &&
           one->found.CHANGED.tv_nsec == other->found.CHANGED.tv_nsec;
}

static void drop(struct kept *one) {
    int i;
    SSL_CTX_free(one->context);
    for (i = 0; i < 3; i++)
        free(one->files[i].path);
    memset(one, 0, sizeof *one);
}

static void keep(struct kept *one, SSL_CTX *context, int verify, const struct file files[3]) {
    int i;
    drop(one);
    memcpy(one->files, files, sizeof one->files);
    for (i = 0; i < 3; i++)
        one->files[i].path = NULL;
    for (i = 0; i < 3; i++)
        if (files[i].path && !(one->files[i].path = strdup(files[i].path))) {
            drop(one);
            return;
        }
    SSL_CTX_up_ref(context);
    one->context = context;
    one->verify = verify;
}

SSL_CTX *mf_tls_context(const struct mf_trust *trust, char *words, size_t words_n) {
    struct file files[3];
    SSL_CTX *context = NULL;
    int i;
    look(trust, files);
    pthread_mutex_lock(&lock);
    for (i = 0; i < KEPT && !context; i++)
        if (kept[i].context && kept[i].verify == trust->verify && is_same_file(kept[i].files, files) &&
            is_same_file(kept[i].files + 1, files + 1) && is_same_file(kept[i].files + 2, files + 2)) {
            context = kept[i].context;
            SSL_CTX_up_ref(context);
        }
    if (!context && (context = make(trust, words, words_n)) != NULL)
        keep(kept + next_kept++ % KEPT, context, trust->verify, files);
    pthread_mutex_unlock(&lock);
    return context;
}

void mf_tls_context_free(SSL_CTX *context) {
    SSL_CTX_free(context);
}

SSL *mf_tls_client(SSL_CTX *context, const char *host, const char *port) {
    unsigned char address[sizeof(struct in6_addr)];
    SSL *tls = SSL_new(context);
    int fine;
    if (!tls)
        return NULL;
    if (inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1)
        fine = X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(tls), host);
    else {
        char name[256];
        size_t n = strlen(host);
        if (n && host[n - 1] == '.') /* says that the name is whole; certificates and servers know it without */
            n--;
        fine = n && n < sizeof name; /* an empty name would be any */
        if (fine) {
            memcpy(name, host, n);
            name[n] = 0;
            fine = SSL_set1_host(tls, name) && SSL_set_tlsext_host_name(tls, name);
        }
    }
    if (fine && take_up(tls, host, port))
        return tls;
    SSL_free(tls);
    return NULL;
}
