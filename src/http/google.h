/* What Google Cloud Storage says in its own way: its checksums in answers, an upload of few bytes and its answer. */
#ifndef MFSTORE_HTTP_GOOGLE_H
#define MFSTORE_HTTP_GOOGLE_H
#include "http/engine.h"

/* Whether a value of x-goog-hash ("crc32c=AAAAAA==,md5=…") says the CRC32C, and what. */
int mf_google_crc32c(const char *at, size_t n, struct mf_text *found);

#define MF_GOOGLE_KEY 1024
#define MF_GOOGLE_HEAD (2 * MF_GOOGLE_KEY + 512) /* room for a head */

/* Before the bytes of a multipart upload (JSON API, uploadType=multipart): name, type and CRC32C (Base64; NULL for
 * none). Its length; 0 for a key that is no printable ASCII or too long, and for what does not fit. */
size_t mf_google_upload_head(char out[MF_GOOGLE_HEAD], struct mf_text boundary, struct mf_text key, struct mf_text type,
                             const char *crc);

/* 1: the answer to such an upload is the good one: the object's generation, which lies in it, and where `crc` is given,
 * that CRC32C. 0: it is not, or may not be. */
int mf_google_stored(const struct mf_xfer *xfer, const char *crc, struct mf_text *generation);

#endif
