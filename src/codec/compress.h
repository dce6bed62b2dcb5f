/* Chunk codecs: none, LZ4 block, Zstandard frame, each with or without byte shuffle, and exponent planes.
 *
 * Decoding is bounds-checked: it writes at most usize bytes whatever the input says, and
 * anything but exactly usize bytes is an error. Contexts are owned by one thread at a time. */
#ifndef MFSTORE_CODEC_COMPRESS_H
#define MFSTORE_CODEC_COMPRESS_H
#include <stddef.h>
#include <stdint.h>

#include "codec/group.h"

enum mf_codec { MF_NONE = 0, MF_LZ4 = 1, MF_ZSTD = 2, MF_PLANES = 5, MF_GROUP = 7 };

/* A longer chunk is refused when decoding: no writer makes one (docs/format.md). */
#define MF_CHUNK_LIMIT ((size_t) 16 << 20)

typedef struct mf_codec_ctx mf_codec_ctx;
mf_codec_ctx *mf_codec_new(void);
void mf_codec_free(mf_codec_ctx *ctx);

/* Encodes src[0:n] into dst[0:cap]; level is of Zstandard, or one of codec/search.h; of planes, of codec/planes.h.
 * *size is the encoded length, or 0 when it does not fit cap: the caller then stores the chunk as it is. */
int mf_encode(mf_codec_ctx *ctx, const uint8_t *src, size_t n, unsigned codec, unsigned width,
              int level, uint8_t *dst, size_t cap, size_t *size);

/* Of a group's chunk, width is where in the group it starts (codec/group.h). */
int mf_decode(mf_codec_ctx *ctx, const uint8_t *src, size_t csize, unsigned codec,
              unsigned width, uint8_t *dst, size_t usize);

/* As mf_group_encode and mf_group_decode. */
int mf_encode_group(mf_codec_ctx *ctx, const uint8_t *src, const size_t *ends, size_t count, int level, uint8_t *dst,
                    size_t cap, size_t *sizes, size_t *size);
int mf_decode_group(mf_codec_ctx *ctx, const uint8_t *src, size_t csize, const mf_group_part *parts, size_t count);

#endif
