#include "codec/delta.h"

#include <string.h>
#include <xxhash.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "codec/blocks.h"
#include "codec/context.h"
#include "codec/difference.h"
#include "codec/shuffle.h"
#include "codec/sparse.h"
#include "codec/status.h"
#include "memory/little_endian.h"

enum {
    /* Zstandard's smallest window. */
    WINDOW_LOG_MIN = 10,
    /* Base and chunk together beyond which long distance matching looks for matches too. The table of
     * level 3 forgets the start of a longer base: of 64 KiB from the start of 4 MiB all was left, and 0.002 with it,
     * for twice the time (5.8 ms). Up to 3 MiB as much was left without it. */
    LONG_DISTANCE = 3 << 20,
    /* Of a prefix Zstandard since 1.5.5 enters no more than the last 8 << hashLog bytes into its table (all of them
     * before, where later ones push out earlier ones). These are the hashLogs of levels 1 and 2, and of 3 and 4, for
     * less than half a MiB of data. Of 40 kB from the start of 300 kB all was left at level 1 in 1.5.7, 0.0005 with
     * a table for the whole base (0.15 ms in place of 0.08); of 1 MiB in 1.5.4 as well. Higher levels find all by
     * their chains, and lose it with a table of this size. */
    FAST_HASH_LOG = 14,
    FAST_LEVEL = 2,
    DOUBLE_HASH_LOG = 17,
    DOUBLE_LEVEL = 4
};

size_t mf_delta_bound(size_t n) {
    return 1 + ZSTD_compressBound(n) + MF_SEAL_LENGTH;
}

int mf_delta_is_sealed(const uint8_t *src, size_t csize) {
    if (csize < MF_SEAL_LENGTH)
        return 0;
    csize -= MF_SEAL_LENGTH;
    return XXH3_64bits(src, csize) == mf_load_64(src + csize);
}

/* What both directions refuse. */
static int check(size_t n, size_t base_size, unsigned codec, unsigned width) {
    if (codec != MF_PREFIX && codec != MF_DIFFERENCE)
        return MF_UNKNOWN_CODEC;
    if (width && (codec == MF_PREFIX || (width != 2 && width != 4 && width != 8)))
        return MF_BAD_WIDTH;
    if (base_size > MF_CHUNK_LIMIT || (codec == MF_DIFFERENCE && base_size != n))
        return MF_BAD_BASE;
    return MF_OK;
}

/* The size of the table that holds all of a base, or 0: the level's own does. */
static int hash_log_for(size_t base_size, int level) {
    int hash_log = level <= FAST_LEVEL ? FAST_HASH_LOG : DOUBLE_HASH_LOG;
    if (level > DOUBLE_LEVEL || base_size <= (size_t) 8 << hash_log)
        return 0;
    while (base_size > (size_t) 8 << hash_log)
        hash_log++;
    return hash_log;
}

static size_t compress_with_prefix(ZSTD_CCtx *compress, const uint8_t *src, size_t n, const uint8_t *base,
                                   size_t base_size, int level, uint8_t *dst, size_t cap) {
    int window_log = WINDOW_LOG_MIN;
    size_t done;
    /* Else the base is forgotten after as much of the chunk as the window of the level holds, 512 KiB at level 1. */
    while (((size_t) 1 << window_log) < n + base_size)
        window_log++;
    ZSTD_CCtx_reset(compress, ZSTD_reset_session_and_parameters);
    done = ZSTD_CCtx_setParameter(compress, ZSTD_c_compressionLevel, level);
    if (!ZSTD_isError(done))
        done = ZSTD_CCtx_setParameter(compress, ZSTD_c_windowLog, window_log);
    if (!ZSTD_isError(done)) /* 0 is the default */
        done = ZSTD_CCtx_setParameter(compress, ZSTD_c_hashLog, hash_log_for(base_size, level));
    if (!ZSTD_isError(done) && n + base_size > LONG_DISTANCE)
        done = ZSTD_CCtx_setParameter(compress, ZSTD_c_enableLongDistanceMatching, 1);
    if (!ZSTD_isError(done))
        done = ZSTD_CCtx_refPrefix(compress, base, base_size);
    if (!ZSTD_isError(done))
        done = ZSTD_compress2(compress, dst, cap, src, n);
    /* Up to Zstandard 1.4 ZSTD_compressCCtx goes by parameters that were left. */
    ZSTD_CCtx_reset(compress, ZSTD_reset_session_and_parameters);
    return done;
}

/* The differences of numbers: which planes lie sparse, and the frame. As ZSTD_compressCCtx. */
static int compress_numbers(mf_codec_ctx *ctx, const uint8_t *src, size_t n, const uint8_t *base, unsigned width,
                            int level, uint8_t *dst, size_t cap, size_t *done) {
    uint8_t *changed, *shuffled;
    const uint8_t *planes;
    mf_packed packed;
    int status;
    if ((status = mf_codec_need_scratch(ctx, 2 * n)) != MF_OK)
        return status;
    changed = ctx->scratch;
    shuffled = ctx->scratch + n;
    mf_differences(src, base, changed, n, width);
    if ((status = mf_shuffle(changed, shuffled, n, width)) != MF_OK)
        return status;
    planes = mf_pack_planes(shuffled, changed, n, width, &packed);
    dst[0] = (uint8_t) packed.sparse;
    *done = mf_compress_blocks(ctx->compress, planes, &packed, level, dst + 1, cap - 1);
    if (!ZSTD_isError(*done))
        *done += 1;
    return MF_OK;
}

/* Without a width: a frame, as ZSTD_compressCCtx. */
static int compress_bytes(mf_codec_ctx *ctx, const uint8_t *src, size_t n, const uint8_t *base, int level, uint8_t *dst,
                          size_t cap, size_t *done) {
    int status = mf_codec_need_scratch(ctx, n);
    if (status != MF_OK)
        return status;
    mf_differences(src, base, ctx->scratch, n, 0);
    *done = ZSTD_compressCCtx(ctx->compress, dst, cap, ctx->scratch, n, level);
    return MF_OK;
}

int mf_delta_encode(mf_codec_ctx *ctx, const uint8_t *src, size_t n, const uint8_t *base, size_t base_size,
                    unsigned codec, unsigned width, int level, uint8_t *dst, size_t cap, size_t *size) {
    int status;
    size_t done;
    *size = 0;
    if (n > MF_CHUNK_LIMIT)
        return MF_TOO_LONG;
    if ((status = check(n, base_size, codec, width)) != MF_OK)
        return status;
    if ((status = mf_codec_need_compress(ctx)) != MF_OK)
        return status;
    /* A longer one is refused when it is read. */
    if (cap > MF_CHUNK_LIMIT)
        cap = MF_CHUNK_LIMIT;
    if (cap <= MF_SEAL_LENGTH)
        return MF_OK;
    cap -= MF_SEAL_LENGTH;
    if (codec == MF_PREFIX)
        done = compress_with_prefix(ctx->compress, src, n, base, base_size, level, dst, cap);
    else if (width)
        status = compress_numbers(ctx, src, n, base, width, level, dst, cap, &done);
    else
        status = compress_bytes(ctx, src, n, base, level, dst, cap, &done);
    if (status != MF_OK)
        return status;
    if (ZSTD_isError(done))
        return ZSTD_getErrorCode(done) == ZSTD_error_dstSize_tooSmall ? MF_OK : MF_NO_MEMORY;
    mf_store_64(dst + done, XXH3_64bits(dst, done));
    *size = done + MF_SEAL_LENGTH;
    return MF_OK;
}

/* The differences of numbers, from what compress_numbers made of them. Sparse planes are decoded where the numbers are
 * to be: they take less. */
static int decompress_numbers(mf_codec_ctx *ctx, const uint8_t *src, size_t csize, unsigned width, uint8_t *dst,
                              size_t n) {
    size_t done;
    int status;
    if (csize < 1)
        return MF_MALFORMED;
    if ((status = mf_codec_need_scratch(ctx, n)) != MF_OK)
        return status;
    done = ZSTD_decompressDCtx(ctx->decompress, src[0] ? dst : ctx->scratch, n, src + 1, csize - 1);
    if (ZSTD_isError(done))
        return MF_MALFORMED;
    if (src[0])
        status = mf_unpack_planes(dst, done, ctx->scratch, n, width, src[0]);
    else if (done != n)
        status = MF_SHORT;
    return status != MF_OK ? status : mf_unshuffle(ctx->scratch, dst, n, width);
}

int mf_delta_decode(mf_codec_ctx *ctx, const uint8_t *src, size_t csize, const uint8_t *base, size_t base_size,
                    unsigned codec, unsigned width, uint8_t *dst, size_t usize) {
    size_t done;
    int status;
    if (usize > MF_CHUNK_LIMIT || csize > MF_CHUNK_LIMIT)
        return MF_MALFORMED;
    if ((status = check(usize, base_size, codec, width)) != MF_OK)
        return status;
    if (!mf_delta_is_sealed(src, csize))
        return MF_BAD_SEAL;
    csize -= MF_SEAL_LENGTH;
    if ((status = mf_codec_need_decompress(ctx)) != MF_OK)
        return status;
    if (width) {
        if ((status = decompress_numbers(ctx, src, csize, width, dst, usize)) != MF_OK)
            return status;
    } else {
        if (codec == MF_PREFIX) {
            /* Not ZSTD_decompress_usingDict: it takes a base that begins like one of its dictionaries for one. */
            done = ZSTD_DCtx_refPrefix(ctx->decompress, base, base_size);
            if (ZSTD_isError(done))
                return MF_NO_MEMORY;
        }
        done = ZSTD_decompressDCtx(ctx->decompress, dst, usize, src, csize);
        /* Nothing refers to the base any longer, whatever became of the frame. */
        if (codec == MF_PREFIX)
            ZSTD_DCtx_reset(ctx->decompress, ZSTD_reset_session_and_parameters);
        if (ZSTD_isError(done))
            return MF_MALFORMED;
        if (done != usize)
            return MF_SHORT;
    }
    if (codec == MF_DIFFERENCE)
        mf_add_differences(dst, base, usize, width);
    return MF_OK;
}
