/* Reads HTTP/1.x responses as a client of S3 wants them (RFC 9110, RFC 9112): strictly, in place, without memory of its
 * own. What HTTP allows and S3 or a proxy before it may send is understood; the rest is refused by name.
 *
 * Pure: no I/O, no clock. Never reads beyond what it is given. What it says of some bytes does not depend on the pieces
 * in which they came.
 */
#ifndef MFSTORE_HTTP_PARSER_H
#define MFSTORE_HTTP_PARSER_H
#include <stddef.h>
#include <stdint.h>

enum mf_http {
    MF_HTTP_DONE, /* what was asked for is complete */
    MF_HTTP_MORE, /* it is not: call again with more bytes */
    /* From here on: refused, and the connection is of no more use. */
    MF_HTTP_NOT_HTTP,    /* another protocol, or bytes that belong to no response */
    MF_HTTP_VERSION,     /* neither HTTP/1.0 nor HTTP/1.1 */
    MF_HTTP_STATUS,      /* the rest of the status line */
    MF_HTTP_UPGRADE,     /* 101 */
    MF_HTTP_LINE_END,    /* a line feed without a carriage return before it */
    MF_HTTP_FOLD,        /* a line that continues the header before it */
    MF_HTTP_NAME,        /* no name right before a colon: a token, in which bytes above ASCII are allowed too */
    MF_HTTP_VALUE,       /* a control character in a header's value */
    MF_HTTP_HEAD_LONG,   /* MF_HEAD_MAX */
    MF_HTTP_HEAD_MANY,   /* MF_HEAD_LINES */
    MF_HTTP_LENGTH,      /* a Content-Length that is no number below 2^63 */
    MF_HTTP_LENGTHS,     /* several that differ */
    MF_HTTP_CODING,      /* a Transfer-Encoding other than "chunked", or in HTTP/1.0, which has none */
    MF_HTTP_CHUNK_SIZE,  /* a chunk's size that is no hexadecimal number below 2^63 */
    MF_HTTP_CHUNK_LINE,  /* what follows the size: a control character, or more than MF_CHUNK_LINE_MAX */
    MF_HTTP_CHUNK_END,   /* something else than the end of a line behind a chunk */
    MF_HTTP_TRAILERS,    /* a trailer that would be refused as a header, or more than MF_TRAILERS_MAX bytes of them */
    MF_HTTP_CODES
};

const char *mf_http_words(enum mf_http code); /* "the headers do not end", ... */

enum mf_framing {
    MF_FRAMING_NONE,    /* no body: answers to HEAD, 1xx, 204, 304 */
    MF_FRAMING_LENGTH,  /* Content-Length */
    MF_FRAMING_CHUNKED, /* the last chunk tells, trailers follow */
    MF_FRAMING_CLOSE    /* the end of the connection is the end of the body */
};

/* S3's heads take 400 to 700 bytes in 10 to 14 lines; user metadata adds 2 KiB at most (8 KiB in some services). */
#ifndef MF_HEAD_MAX /* the fuzzers make these small */
#define MF_HEAD_MAX ((size_t) 256 << 10)
#define MF_HEAD_LINES 1000u
#define MF_CHUNK_LINE_MAX ((size_t) 4 << 10)
#define MF_TRAILERS_MAX ((size_t) 16 << 10)
#endif
#define MF_BLANK_LINES 4u /* before a status line: what some servers send behind a body */

struct mf_head {
    int status, minor;       /* HTTP/1.minor */
    size_t n;                /* bytes of the head, with leading blank lines and the blank line that ends it */
    size_t fields, fields_n; /* where the header lines lie in it, "name: value\r\n" each */
    enum mf_framing framing;
    int64_t length; /* Content-Length as sent (also of HEAD and 304); < 0: none, or Transfer-Encoding overrides it */
    int keep;       /* the connection may serve another request after this response */
    unsigned lines, blank, marks; /* the parser's own, from call to call */
};

/* Reads the head of a response from at[0:n], to whose end more is added from call to call. seen: n of the call before,
 * which returned MF_HTTP_MORE, with the same *head; 0 at first. So a head that comes byte by byte is not read anew each
 * time. is_head: the request's method was HEAD. Interim responses (1xx) are heads of their own: after one call again
 * behind it. 101 is refused: nobody asked for an upgrade. */
enum mf_http mf_head_read(const char *at, size_t n, size_t seen, int is_head, struct mf_head *head);

/* A body as it comes. */
struct mf_body {
    enum mf_framing framing;
    uint64_t left;   /* payload bytes that follow for sure, without any framing between: of the length, of the chunk */
    uint64_t size;   /* of chunked, the parser's own: what of a chunk's size was read */
    unsigned state;  /* as size: where in the framing */
    size_t overhead; /* bytes of the chunk's line or of the trailers so far: both have limits */
};

void mf_body_begin(struct mf_body *body, const struct mf_head *head);

/* Reads on in at[0:n]: at[*from : *from + *size] is payload (*size may be 0), and *taken bytes are dealt with (framing
 * before it, and it). MF_HTTP_DONE: the body is complete, and bytes behind *taken are not of this response.
 * MF_HTTP_MORE: call again behind *taken, if bytes are left there, or with more. Refused: *size is 0. With n = 0 it
 * says whether the body is complete as it is, which one without bytes is from the beginning. */
enum mf_http mf_body_read(struct mf_body *body, const char *at, size_t n, size_t *from, size_t *size, size_t *taken);

/* So many bytes that come next are payload and may be received straight to their place; 0: framing comes first.
 * UINT64_MAX: all until the connection ends. */
uint64_t mf_body_straight(const struct mf_body *body);
/* n of them came, no more than that. MF_HTTP_DONE when that completes the body. */
enum mf_http mf_body_received(struct mf_body *body, size_t n);
/* The connection has ended: MF_HTTP_DONE if that ends the body, MF_HTTP_MORE if the body was cut. */
enum mf_http mf_body_ended(const struct mf_body *body);

#endif
