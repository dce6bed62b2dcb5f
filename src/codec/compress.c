#include "codec/compress.h"

#include <lz4.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "codec/context.h"
#include "codec/group.h"
#include "codec/planes.h"
#include "codec/search.h"
#include "codec/shuffle.h"
#include "codec/status.h"

/* How fast LZ4 skips what repeats nothing. 2 instead of 1 takes 0 to 9 % less time, 12.1 and 11.2 ms for 14.5 MB of a
 * forest's nodes, and stores up to 2 % more. With 3 nodes take a tenth more, in no less time. */
enum { LZ4_STEP = 2 };

mf_codec_ctx *mf_codec_new(void) {
    return calloc(1, sizeof(mf_codec_ctx));
}

void mf_codec_free(mf_codec_ctx *ctx) {
    if (!ctx)
        return;
    ZSTD_freeCCtx(ctx->compress);
    ZSTD_freeDCtx(ctx->decompress);
    free(ctx->scratch);
    free(ctx);
}

int mf_codec_need_scratch(mf_codec_ctx *ctx, size_t n) {
    uint8_t *grown;
    if (ctx->scratch && n <= ctx->scratch_size)
        return MF_OK;
    /* Not realloc, which would copy what nobody reads again. */
    grown = malloc(n ? n : 1);
    if (!grown)
        return MF_NO_MEMORY;
    free(ctx->scratch);
    ctx->scratch = grown;
    ctx->scratch_size = n;
    return MF_OK;
}

int mf_codec_need_compress(mf_codec_ctx *ctx) {
    return ctx->compress || (ctx->compress = ZSTD_createCCtx()) ? MF_OK : MF_NO_MEMORY;
}

int mf_codec_need_decompress(mf_codec_ctx *ctx) {
    return ctx->decompress || (ctx->decompress = ZSTD_createDCtx()) ? MF_OK : MF_NO_MEMORY;
}

int mf_encode(mf_codec_ctx *ctx, const uint8_t *src, size_t n, unsigned codec, unsigned width,
              int level, uint8_t *dst, size_t cap, size_t *size) {
    int status;
    *size = 0;
    if (n > MF_CHUNK_LIMIT)
        return MF_TOO_LONG;
    if (codec == MF_PLANES) {
        if ((status = mf_codec_need_compress(ctx)) != MF_OK || (status = mf_codec_need_scratch(ctx, n)) != MF_OK)
            return status;
        return mf_planes_encode(ctx->compress, src, n, width, level, ctx->scratch, dst, cap, size);
    }
    if (width) {
        if ((status = mf_codec_need_scratch(ctx, n)) != MF_OK)
            return status;
        if ((status = mf_shuffle(src, ctx->scratch, n, width)) != MF_OK)
            return status;
        src = ctx->scratch;
    }
    if (codec == MF_LZ4) {
        int done = LZ4_compress_fast((const char *) src, (char *) dst, (int) n, (int) cap, LZ4_STEP);
        *size = done > 0 ? (size_t) done : 0;
        return MF_OK;
    }
    if (codec == MF_ZSTD) {
        size_t done;
        if ((status = mf_codec_need_compress(ctx)) != MF_OK)
            return status;
        done = mf_search_compress(ctx->compress, level, src, n, dst, cap);
        if (!ZSTD_isError(done)) {
            *size = done;
            return MF_OK;
        }
        /* One-shot compression into a small dst fails only for want of room or memory; both
         * mean the chunk is stored as it is, which is always right. */
        return MF_OK;
    }
    return MF_UNKNOWN_CODEC;
}

int mf_decode(mf_codec_ctx *ctx, const uint8_t *src, size_t csize, unsigned codec,
              unsigned width, uint8_t *dst, size_t usize) {
    uint8_t *target = dst;
    int status;
    if (usize > MF_CHUNK_LIMIT || csize > MF_CHUNK_LIMIT)
        return MF_MALFORMED;
    if (codec == MF_PLANES) {
        if ((status = mf_codec_need_decompress(ctx)) != MF_OK || (status = mf_codec_need_scratch(ctx, usize)) != MF_OK)
            return status;
        return mf_planes_decode(ctx->decompress, src, csize, width, ctx->scratch, dst, usize);
    }
    if (codec == MF_GROUP) {
        mf_group_part part = {width, usize, dst};
        return mf_decode_group(ctx, src, csize, &part, 1);
    }
    if (width) {
        if (width != 2 && width != 4 && width != 8)
            return MF_BAD_WIDTH;
        if ((status = mf_codec_need_scratch(ctx, usize)) != MF_OK)
            return status;
        target = ctx->scratch;
    }
    if (codec == MF_NONE) {
        if (csize != usize)
            return csize < usize ? MF_SHORT : MF_MALFORMED;
        memcpy(target, src, usize);
    } else if (codec == MF_LZ4) {
        int done = LZ4_decompress_safe((const char *) src, (char *) target, (int) csize, (int) usize);
        if (done < 0)
            return MF_MALFORMED;
        if ((size_t) done != usize)
            return MF_SHORT;
    } else if (codec == MF_ZSTD) {
        size_t done;
        if ((status = mf_codec_need_decompress(ctx)) != MF_OK)
            return status;
        done = ZSTD_decompressDCtx(ctx->decompress, target, usize, src, csize);
        if (ZSTD_isError(done))
            return MF_MALFORMED;
        if (done != usize)
            return MF_SHORT;
    } else {
        return MF_UNKNOWN_CODEC;
    }
    return width ? mf_unshuffle(target, dst, usize, width) : MF_OK;
}

int mf_encode_group(mf_codec_ctx *ctx, const uint8_t *src, const size_t *ends, size_t count, int level, uint8_t *dst,
                    size_t cap, size_t *sizes, size_t *size) {
    int status = mf_codec_need_compress(ctx);
    return status == MF_OK ? mf_group_encode(ctx->compress, src, ends, count, level, dst, cap, sizes, size) : status;
}

int mf_decode_group(mf_codec_ctx *ctx, const uint8_t *src, size_t csize, const mf_group_part *parts, size_t count) {
    int status;
    if (csize > MF_CHUNK_LIMIT)
        return MF_MALFORMED;
    if ((status = mf_codec_need_decompress(ctx)) != MF_OK
        || (status = mf_codec_need_scratch(ctx, MF_GROUP_SCRATCH)) != MF_OK)
        return status;
    return mf_group_decode(ctx->decompress, src, csize, parts, count, ctx->scratch);
}
