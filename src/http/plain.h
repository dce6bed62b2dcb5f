/* Which replies to plain requests need no second look.
 *
 * A plain request is one GET of a whole object or of a range, one HEAD or one PUT. Of its reply this says whether it is
 * the good one that nearly all are. All others are for whoever knows what to make of them (mfstore/s3/transfers/): so
 * this may refuse a good reply, and must never accept another. */
#ifndef MFSTORE_HTTP_PLAIN_H
#define MFSTORE_HTTP_PLAIN_H
#include "http/engine.h"

struct mf_plain {
    struct mf_text etag; /* without quotes, ASCII; it lies in the head */
    int64_t length;      /* Content-Length; -1 where a PUT's answer says none */
    int verified;        /* the object's checksum was named, and is that of the bytes */
};

/* 1: the reply of an ended xfer is the good one, and `found` tells what it says; 0: it is not, or may not be. With
 * `verify` a whole object that names a checksum must have it. */
int mf_plain_reply(const struct mf_xfer *xfer, int verify, struct mf_plain *found);

/* Whether any of the clouds takes a key as it is, and it is no URL: printable ASCII, no backslash, no part that begins
 * or ends with a dot. */
int mf_plain_key(const char *at, size_t n);

#endif
