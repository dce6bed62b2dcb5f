/* Groups: chunks one after the other in one Zstandard frame, each known by where in the uncompressed bytes it starts.
 * What one chunk by itself has too little context for, its neighbours give. */
#ifndef MFSTORE_CODEC_GROUP_H
#define MFSTORE_CODEC_GROUP_H
#include <stddef.h>
#include <stdint.h>
#include <zstd.h>

enum {
    /* Scratch memory for decoding. */
    MF_GROUP_SCRATCH = 64 << 10
};

/* A group that says it is longer, or needs a longer window, is refused when decoding: it bounds what a reader of one
 * chunk holds and decodes (docs/format.md). */
#define MF_GROUP_LIMIT ((size_t) 2 << 20)

/* What is wanted of a group: usize bytes from start on, at dst. */
typedef struct {
    size_t start, usize;
    uint8_t *dst;
} mf_group_part;

/* Encodes src[0:n], the chunks that end at ends[0:count] (ascending, the last is n), as one frame in dst[0:cap].
 * sizes[i] is what the i-th takes of it: each begins a block. *size is the encoded length, or 0 when it does not fit
 * cap. */
int mf_group_encode(ZSTD_CCtx *compress, const uint8_t *src, const size_t *ends, size_t count, int level, uint8_t *dst,
                    size_t cap, size_t *sizes, size_t *size);

/* Decodes parts of a group. In order of their starts it is decoded once, up to the end of the last part; each part that
 * starts before the end of the one before it begins anew, unless it is the same. When they are the whole group and lie
 * as they do in it, it is decoded into them in one go. On an error the parts are partly written. */
int mf_group_decode(ZSTD_DCtx *decompress, const uint8_t *src, size_t csize, const mf_group_part *parts, size_t count,
                    uint8_t *scratch);

#endif
