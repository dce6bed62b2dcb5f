/* Reads HTTP/1.x responses as a client of S3 wants them (RFC 9110, RFC 9112): strictly, in place, without memory of its
 * own. What HTTP allows and S3 or a proxy before it may send is understood; the rest is refused by name.
 *
 * Pure: no I/O, no clock. Never reads beyond what it is given.
 */
#ifndef MFSTORE_HTTP_PARSER_H
#define MFSTORE_HTTP_PARSER_H
#include <stddef.h>
#include <stdint.h>

enum mf_http {
    MF_HTTP_DONE, /* what was asked for is complete */
    MF_HTTP_MORE, /* it is not: call again with more bytes */
    MF_HTTP_NOT_HTTP /* from here on: refused. The parser's author adds codes as needed; mf_http_words names each */
};

const char *mf_http_words(enum mf_http code); /* "the headers do not end", ... */

enum mf_framing {
    MF_FRAMING_NONE,    /* no body: answers to HEAD, 1xx, 204, 304 */
    MF_FRAMING_LENGTH,  /* Content-Length */
    MF_FRAMING_CHUNKED, /* the last chunk tells, trailers follow */
    MF_FRAMING_CLOSE    /* the end of the connection is the end of the body */
};

#define MF_HEAD_MAX ((size_t) 256 << 10) /* headers longer than this are no S3's */

struct mf_head {
    int status, minor;       /* HTTP/1.minor */
    size_t n;                /* bytes of the head, with leading blank lines and the blank line that ends it */
    size_t fields, fields_n; /* where the header lines lie in it, "name: value\r\n" each */
    enum mf_framing framing;
    int64_t length; /* Content-Length as sent (also of HEAD and 304); < 0: none */
    int keep;       /* the connection may serve another request after this response */
};

/* Reads the head of a response from at[0:n]. seen: bytes that the call before returned MF_HTTP_MORE for, 0 at first;
 * so a head that comes byte by byte is not read anew each time. is_head: the request's method was HEAD. Interim responses
 * (1xx) are heads of their own: after one call again behind it. 101 is refused: nobody asked for an upgrade. */
enum mf_http mf_head_read(const char *at, size_t n, size_t seen, int is_head, struct mf_head *head);

/* A body as it comes. */
struct mf_body {
    enum mf_framing framing;
    uint64_t left;   /* payload bytes that follow for sure, without any framing between: of the length, of the chunk */
    unsigned state;  /* of chunked */
    size_t overhead; /* bytes of the chunk's line or of the trailers so far: both have limits */
};

void mf_body_begin(struct mf_body *body, const struct mf_head *head);

/* Reads on in at[0:n]: at[*from : *from + *size] is payload (*size may be 0), and *taken bytes are dealt with (framing
 * before it, and it). MF_HTTP_DONE: the body is complete, and bytes behind *taken are not of this response.
 * MF_HTTP_MORE: call again behind *taken, if bytes are left there, or with more. */
enum mf_http mf_body_read(struct mf_body *body, const char *at, size_t n, size_t *from, size_t *size, size_t *taken);

/* So many bytes that come next are payload and may be received straight to their place; 0: framing comes first.
 * UINT64_MAX: all until the connection ends. */
uint64_t mf_body_straight(const struct mf_body *body);
/* n of them came. MF_HTTP_DONE when that completes the body. */
enum mf_http mf_body_received(struct mf_body *body, size_t n);
/* The connection has ended: MF_HTTP_DONE if that ends the body, MF_HTTP_MORE if the body was cut. */
enum mf_http mf_body_ended(const struct mf_body *body);

#endif
