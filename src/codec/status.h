/* What the C kernels return. One place maps them to exceptions: Codec.check in codec.pyx. */
#ifndef MFSTORE_CODEC_STATUS_H
#define MFSTORE_CODEC_STATUS_H

enum mf_status {
    MF_OK = 0,
    MF_NO_MEMORY = 1,      /* malloc or a codec context failed */
    MF_UNKNOWN_CODEC = 2,  /* stored by a newer version, or a damaged table */
    MF_BAD_WIDTH = 3,      /* shuffle width that is not 0, 2, 4 or 8 */
    MF_SHORT = 4,          /* decoded to fewer bytes than the table claims */
    MF_MALFORMED = 5,      /* the codec refused the bytes, or they exceed the claimed size */
    MF_TOO_LONG = 6,       /* a chunk to encode is longer than any reader takes: the caller's mistake */
    MF_BAD_BASE = 7,       /* the base of a delta is longer than any chunk, or not of the length that its codec needs */
    MF_BAD_SEAL = 8        /* a delta does not end with the checksum of what is before it */
};

#endif
