/* What the kernels of this folder keep between calls: compression contexts and scratch memory, made when first needed.
 * Owned by one thread at a time. */
#ifndef MFSTORE_CODEC_CONTEXT_H
#define MFSTORE_CODEC_CONTEXT_H
#include <stddef.h>
#include <stdint.h>
#include <zstd.h>

struct mf_codec_ctx {
    ZSTD_CCtx *compress;
    ZSTD_DCtx *decompress;
    uint8_t *scratch; /* of one chunk: its shuffled form; of a delta: its differences, and those shuffled */
    size_t scratch_size;
};

/* Each returns MF_OK or MF_NO_MEMORY. What scratch held before is lost. */
int mf_codec_need_scratch(struct mf_codec_ctx *ctx, size_t n);
int mf_codec_need_compress(struct mf_codec_ctx *ctx);
int mf_codec_need_decompress(struct mf_codec_ctx *ctx);

#endif
