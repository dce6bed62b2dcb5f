#include "http/link.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/sendfile.h>
#endif

#if !defined(MSG_NOSIGNAL)
#define MSG_NOSIGNAL 0 /* macOS: SO_NOSIGPIPE, which is set where the socket is opened */
#endif

/* What one call of sendmsg takes on any system: more are refused. */
#define PIECES_MAX 1024
/* What one system call reads ahead of a TLS connection. CPU-s per GB of 64 MiB objects over loopback on a busy machine,
 * least of four: 16 KiB 0.65, 32 KiB 0.68, 64 KiB 0.61, 128 KiB 0.61, 256 KiB 0.70, 512 KiB 0.81: above that the bytes
 * have left the processor's near caches before they are decrypted. */
#define READ_AHEAD ((size_t) 64 << 10)
/* After so many bytes OpenSSL's buffers are given up when they are empty: fewer have touched but few of their pages,
 * and making them anew for each small response would cost it 900 instructions. */
#define WORN ((size_t) 16 << 10)
/* Records are joined until this much is sent at a time. CPU-s per GB of 64 MiB uploads over loopback, median of five:
 * 32 KiB 0.62, 64 KiB 0.57, 128 KiB 0.55, 256 KiB 0.58, 512 KiB 0.60. */
#define JOINED ((size_t) 128 << 10)
#define RECORD ((size_t) 16 << 10)
/* Of a record: header, nonce, tag and padding of any cipher of TLS 1.2 and 1.3. */
#define RECORD_EXTRA ((size_t) 512)

struct mf_link {
    int fd;
    struct mf_link_memory *memory;
    struct mf_link *next, *prev; /* of the memory's; none of those below another */
    struct mf_link *below; /* TLS in TLS: what carries this one; its socket is this one's */
    SSL *tls;              /* NULL: none */
    int hungry;            /* the last reading wanted more than there was: what is read ahead is no whole record */
    int up;                /* the handshake is done */
    int closed;            /* the peer's close_notify was met */
    int drained;           /* the socket gave less than was asked for: it has no more now */
    size_t worn;           /* bytes that were received since OpenSSL's buffers were given up */
    int read_code;         /* of the last reading below TLS */
    int ended;             /* the peer has ended its side */
    int broken;
    /* Records that were made and not sent: out[out_at:out_n]. */
    unsigned char *out;
    size_t out_at, out_n, out_room;
    int error;
    char words[160];
};

void mf_link_memory_free(struct mf_link_memory *memory) {
    free(memory->spare);
    memory->spare = NULL;
}

void mf_links_abandon(struct mf_link_memory *memory) {
    const struct mf_link *link;
    for (link = memory->links; link; link = link->next)
        close(link->fd);
}

static int broken(struct mf_link *link, int error, const char *words) {
    link->error = error;
    snprintf(link->words, sizeof link->words, "%s", words ? words : strerror(error));
    return MF_LINK_BROKEN;
}

/* ---- without TLS ---- */

static ptrdiff_t plain_receive(struct mf_link *link, void *at, size_t n) {
    for (;;) {
        ssize_t got = recv(link->fd, at, n, 0);
        if (got >= 0)
            return got;
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            return MF_LINK_READ;
        if (errno != EINTR)
            return broken(link, errno, NULL);
    }
}

static ptrdiff_t plain_send(struct mf_link *link, const struct iovec *pieces, size_t count) {
    struct msghdr message;
    memset(&message, 0, sizeof message);
    message.msg_iov = (struct iovec *) pieces;
    message.msg_iovlen = count > PIECES_MAX ? PIECES_MAX : count;
    for (;;) {
        ssize_t sent = sendmsg(link->fd, &message, MSG_NOSIGNAL);
        if (sent >= 0)
            return sent;
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            return MF_LINK_WRITE;
        if (errno != EINTR)
            return broken(link, errno, NULL);
    }
}

ptrdiff_t mf_link_send_file(struct mf_link *link, int file, int64_t offset, size_t n) {
#if defined(__linux__)
    off_t at = (off_t) offset;
    if (!link->tls)
        for (;;) {
            /* On a broken connection this is a SIGPIPE, which the engine's threads block. */
            ssize_t sent = sendfile(link->fd, file, &at, n);
            if (sent >= 0)
                return sent;
            if (errno == EAGAIN || errno == EWOULDBLOCK)
                return MF_LINK_WRITE;
            if (errno != EINTR)
                break;
        }
#else
    (void) link, (void) file, (void) offset, (void) n;
#endif
    return MF_LINK_UNABLE;
}

/* ---- what TLS reads from and writes to ---- */

static void give_back(struct mf_link *link) {
    if (link->out && !link->memory->spare && link->out_room == JOINED)
        link->memory->spare = link->out;
    else
        free(link->out);
    link->out = NULL;
    link->out_at = link->out_n = link->out_room = 0;
}

static int make_room(struct mf_link *link, size_t n) {
    size_t room;
    unsigned char *grown;
    if (link->out_room - link->out_n >= n)
        return 1;
    if (!link->out && n <= JOINED) {
        link->out = link->memory->spare ? link->memory->spare : malloc(JOINED);
        link->memory->spare = NULL;
        if (!link->out)
            return 0;
        link->out_room = JOINED;
        return 1;
    }
    if (link->out_at) {
        memmove(link->out, link->out + link->out_at, link->out_n - link->out_at);
        link->out_n -= link->out_at;
        link->out_at = 0;
    }
    if (link->out_room - link->out_n >= n)
        return 1;
    for (room = 2 * link->out_room; room - link->out_n < n;)
        room *= 2;
    grown = realloc(link->out, room);
    if (!grown)
        return 0;
    link->out = grown;
    link->out_room = room;
    return 1;
}

/* Takes all: who encrypts has seen to it that there is room, and TLS's own messages are few. So TLS never has a record
 * that waits to be written, and what it was given is free at once. */
static int bio_write(BIO *bio, const char *data, int n) {
    struct mf_link *link = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (n <= 0)
        return 0;
    if (!make_room(link, (size_t) n))
        return -1;
    memcpy(link->out + link->out_n, data, (size_t) n);
    link->out_n += (size_t) n;
    return n;
}

static int bio_read(BIO *bio, char *at, int n) {
    struct mf_link *link = BIO_get_data(bio);
    ptrdiff_t got;
    BIO_clear_retry_flags(bio);
    if (n <= 0)
        return 0;
    if (link->drained)
        got = MF_LINK_READ;
    else if (link->below)
        got = mf_link_receive(link->below, at, (size_t) n);
    else if ((got = plain_receive(link, at, (size_t) n)) > 0)
        link->drained = got < n;
    if (got >= 0) {
        link->ended |= got == 0;
        return (int) got;
    }
    link->read_code = (int) got;
    if (got != MF_LINK_BROKEN)
        BIO_set_retry_read(bio);
    return -1;
}

static long bio_control(BIO *bio, int what, long number, void *pointer) {
    struct mf_link *link = BIO_get_data(bio);
    (void) number;
    (void) pointer;
    switch (what) {
    case BIO_CTRL_FLUSH: /* we send when we see fit */
    case BIO_CTRL_DUP:
        return 1;
    case BIO_CTRL_EOF:
        return link->ended;
    default:
        return 0;
    }
}

/* Made once in a process, and kept: pthread_once is not needed, for whoever loses the race frees his. */
static BIO_METHOD *bio_method(void) {
    static BIO_METHOD *shared;
    BIO_METHOD *known = __atomic_load_n(&shared, __ATOMIC_ACQUIRE), *made;
    int type;
    if (known)
        return known;
    if ((type = BIO_get_new_index()) == -1 || !(made = BIO_meth_new(type | BIO_TYPE_SOURCE_SINK, "mfstore link")))
        return NULL;
    BIO_meth_set_write(made, bio_write);
    BIO_meth_set_read(made, bio_read);
    BIO_meth_set_ctrl(made, bio_control);
    if (__atomic_compare_exchange_n(&shared, &known, made, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        return made;
    BIO_meth_free(made);
    return known;
}

/* ---- TLS ---- */

/* Before each call of OpenSSL: what it says of its errors is of this call. To look is cheaper than to clear. */
static void before(void) {
    if (ERR_peek_error())
        ERR_clear_error();
    errno = 0;
}

/* The one place where OpenSSL's errors become ours. */
static int tls_failed(struct mf_link *link, int code) {
    unsigned long reason = ERR_peek_last_error();
    long verified = SSL_get_verify_result(link->tls);
    const char *text = NULL;
    int error = errno;
    link->broken = 1;
    if (link->read_code == MF_LINK_BROKEN) { /* what carries it broke */
        if (link->below)
            return broken(link, link->below->error, link->below->words);
        return MF_LINK_BROKEN; /* plain_receive has said why */
    }
    if (link->ended) {
        if (link->up)
            return broken(link, 0, "the connection ended without TLS's goodbye");
        return broken(link, ECONNRESET, "the connection ended within the TLS handshake");
    }
    if (ERR_GET_LIB(reason) == ERR_LIB_SSL && ERR_GET_REASON(reason) == SSL_R_CERTIFICATE_VERIFY_FAILED &&
        verified != X509_V_OK) {
        broken(link, 0, "");
        snprintf(link->words, sizeof link->words, "certificate verify failed: %s",
                 X509_verify_cert_error_string(verified));
        return MF_LINK_BROKEN;
    }
    if (reason) {
        text = ERR_reason_error_string(reason);
        return broken(link, ERR_GET_REASON(reason) == ERR_R_MALLOC_FAILURE ? ENOMEM : 0, text ? text : "TLS failed");
    }
    if (code != SSL_ERROR_SYSCALL)
        error = 0;
    return broken(link, error, error ? NULL : "TLS failed");
}

/* After a call of OpenSSL that did not succeed: a code of link.h, or 0 for the peer's close_notify. */
static int tls_code(struct mf_link *link, int result) {
    int code = SSL_get_error(link->tls, result);
    switch (code) {
    case SSL_ERROR_WANT_READ:
        return MF_LINK_READ;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    default:
        return tls_failed(link, code);
    }
}

static int drain(struct mf_link *link) {
    while (link->out_at < link->out_n) {
        struct iovec piece = {link->out + link->out_at, link->out_n - link->out_at};
        ptrdiff_t sent = link->below ? mf_link_send(link->below, &piece, 1) : plain_send(link, &piece, 1);
        if (sent == MF_LINK_BROKEN && link->below)
            return broken(link, link->below->error, link->below->words);
        if (sent < 0)
            return (int) sent;
        link->out_at += (size_t) sent;
    }
    if (link->out)
        give_back(link);
    return link->below ? mf_link_flush(link->below) : 0;
}

int mf_link_secure_with(struct mf_link *link, SSL *tls) {
    BIO_METHOD *method = bio_method();
    BIO *bio = method ? BIO_new(method) : NULL;
    struct mf_link *below = NULL;
    if (bio && link->tls && !(below = malloc(sizeof *below))) {
        BIO_free(bio);
        bio = NULL;
    }
    if (!bio) {
        SSL_free(tls);
        return -1;
    }
    if (below) {
        *below = *link;
        BIO_set_data(SSL_get_rbio(below->tls), below);
        link->out = NULL;
        link->out_at = link->out_n = link->out_room = 0;
        link->hungry = link->drained = link->read_code = link->up = 0;
        link->below = below;
    }
    link->tls = tls;
    BIO_set_data(bio, link);
    BIO_set_init(bio, 1);
    SSL_set_bio(tls, bio, bio);
    SSL_set_read_ahead(tls, 1);
    SSL_set_default_read_buffer_len(tls, READ_AHEAD);
    SSL_set_connect_state(tls);
    return 0;
}

int mf_link_handshake(struct mf_link *link) {
    int result, code;
    if (link->broken)
        return MF_LINK_BROKEN;
    if (link->out && (code = drain(link)) != 0)
        return code;
    link->drained = 0;
    link->read_code = 0;
    before();
    result = SSL_do_handshake(link->tls);
    code = result == 1 ? 0 : tls_code(link, result);
    link->up = result == 1;
    if (code == 0 && result != 1)
        code = broken(link, ECONNRESET, "the connection ended within the TLS handshake");
    if (code == MF_LINK_BROKEN) {
        struct mf_link keep = *link;
        drain(link); /* the alert that says why */
        link->error = keep.error;
        memcpy(link->words, keep.words, sizeof link->words);
        return code;
    }
    if (link->out) {
        int sent = drain(link);
        if (sent < 0)
            return sent == MF_LINK_WRITE && code == 0 ? MF_LINK_WRITE : sent;
    }
    return code;
}

static ptrdiff_t tls_receive(struct mf_link *link, unsigned char *at, size_t n) {
    size_t got = 0;
    int code = 0;
    if (link->broken)
        return MF_LINK_BROKEN;
    link->drained = 0;
    link->hungry = 0;
    link->read_code = 0;
    while (got < n) {
        size_t some;
        int result;
        before();
        result = SSL_read_ex(link->tls, at + got, n - got, &some);
        if (result != 1) {
            code = tls_code(link, result);
            link->hungry = code == MF_LINK_READ;
            link->closed |= code == 0;
            break;
        }
        got += some;
        if (link->drained && !SSL_has_pending(link->tls)) {
            link->hungry = 1;
            break;
        }
    }
    link->worn += got;
    if (link->hungry && link->worn >= WORN && SSL_free_buffers(link->tls))
        link->worn = 0;
    if (link->out)
        drain(link); /* an answer to the peer's change of keys: what does not go now goes with the next request */
    return got ? (ptrdiff_t) got : code;
}

static ptrdiff_t tls_send(struct mf_link *link, const struct iovec *pieces, size_t count) {
    unsigned char little[RECORD];
    struct iovec together = {little, 0};
    size_t i, taken = 0;
    int code = 0, waits = 0;
    if (link->broken)
        return MF_LINK_BROKEN;
    /* A head and a short body are one record: 7000 instructions of 35 000 less for a PUT of 4 KiB. */
    for (i = 0; i < count && pieces[i].iov_len <= sizeof little - together.iov_len; i++) {
        memcpy(little + together.iov_len, pieces[i].iov_base, pieces[i].iov_len);
        together.iov_len += pieces[i].iov_len;
    }
    if (i == count && count > 1) {
        pieces = &together;
        count = 1;
    }
    link->drained = 1; /* what comes meanwhile is for who receives, who would not be told of what was read here */
    for (i = 0; i < count && !waits; i++) {
        const unsigned char *at = pieces[i].iov_base;
        size_t left = pieces[i].iov_len;
        while (left) {
            size_t held = link->out_n - link->out_at, records, some, wrote;
            if (held + RECORD + RECORD_EXTRA > JOINED) {
                if ((code = drain(link)) != 0 && link->out_n - link->out_at + RECORD + RECORD_EXTRA > JOINED)
                    goto end;
                held = link->out_n - link->out_at;
            }
            records = (JOINED - held) / (RECORD + RECORD_EXTRA);
            some = left < records * RECORD ? left : records * RECORD;
            before();
            if (SSL_write_ex(link->tls, at, some, &wrote) != 1) {
                code = SSL_get_error(link->tls, 0);
                /* Of a message of TLS's own, a session ticket most of all, a part has come: the rest comes first. */
                waits = code == SSL_ERROR_WANT_READ;
                if (waits)
                    break;
                code = tls_failed(link, code);
                goto end;
            }
            at += wrote;
            left -= wrote;
            taken += wrote;
        }
    }
    code = drain(link);
    if (waits && code == 0)
        code = MF_LINK_READ;
end:
    if (taken && code != MF_LINK_BROKEN)
        return (ptrdiff_t) taken;
    return code < 0 ? code : (ptrdiff_t) taken;
}

/* ---- both ---- */

struct mf_link *mf_link_new(int fd, struct mf_link_memory *memory) {
    struct mf_link *link = calloc(1, sizeof *link);
    if (!link) {
        close(fd);
        return NULL;
    }
    link->fd = fd;
    link->memory = memory;
    link->next = memory->links;
    if (link->next)
        link->next->prev = link;
    memory->links = link;
    return link;
}

int mf_link_fd(const struct mf_link *link) {
    return link->fd;
}

int mf_link_secure(const struct mf_link *link) {
    return link->tls != NULL;
}

ptrdiff_t mf_link_receive(struct mf_link *link, void *at, size_t n) {
    return link->tls ? tls_receive(link, at, n) : plain_receive(link, at, n);
}

int mf_link_pending(const struct mf_link *link) {
    if (!link->tls)
        return 0;
    if (link->broken || link->closed)
        return 1;
    return (!link->hungry && SSL_has_pending(link->tls)) || (link->below && mf_link_pending(link->below));
}

ptrdiff_t mf_link_send(struct mf_link *link, const struct iovec *pieces, size_t count) {
    return link->tls ? tls_send(link, pieces, count) : plain_send(link, pieces, count);
}

int mf_link_flush(struct mf_link *link) {
    return link->tls ? drain(link) : 0;
}

size_t mf_link_held(const struct mf_link *link) {
    return link->out_n - link->out_at + (link->below ? mf_link_held(link->below) : 0);
}

int mf_link_idle(struct mf_link *link) {
    char byte;
    if (link->broken || link->closed)
        return 0;
    if (!link->tls || (!link->below && !SSL_has_pending(link->tls))) {
        ssize_t got;
        do
            got = recv(link->fd, &byte, 1, MSG_PEEK);
        while (got < 0 && errno == EINTR);
        if (got < 0)
            return errno == EAGAIN || errno == EWOULDBLOCK;
        if (!link->tls)
            return 0;
    }
    return tls_receive(link, (unsigned char *) &byte, 1) == MF_LINK_READ;
}

int mf_link_error(const struct mf_link *link, const char **message) {
    *message = link->words;
    return link->error;
}

void mf_link_close(struct mf_link *link) {
    struct mf_link *below;
    int fd = link->fd;
    if (link->prev)
        link->prev->next = link->next;
    else
        link->memory->links = link->next;
    if (link->next)
        link->next->prev = link->prev;
    for (; link; link = below) {
        below = link->below;
        if (link->tls && !link->broken) /* else OpenSSL would take its session for a bad one, never to be taken up */
            SSL_set_shutdown(link->tls, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
        SSL_free(link->tls);
        if (link->out)
            give_back(link);
        free(link);
    }
    close(fd);
}
