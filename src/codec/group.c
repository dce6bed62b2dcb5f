#include "codec/group.h"

#include <string.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "codec/status.h"

/* log2 of MF_GROUP_LIMIT. */
enum { WINDOW_LOG_MAX = 21 };

int mf_group_encode(ZSTD_CCtx *compress, const uint8_t *src, const size_t *ends, size_t count, int level, uint8_t *dst,
                    size_t cap, size_t *sizes, size_t *size) {
    ZSTD_outBuffer out = {dst, cap, 0};
    ZSTD_inBuffer in = {src, 0, 0};
    size_t left, before = 0;
    *size = 0;
    if (!count || ends[count - 1] > MF_GROUP_LIMIT)
        return MF_TOO_LONG;
    ZSTD_CCtx_reset(compress, ZSTD_reset_session_and_parameters);
    left = ZSTD_CCtx_setParameter(compress, ZSTD_c_compressionLevel, level);
    if (!ZSTD_isError(left))
        left = ZSTD_CCtx_setPledgedSrcSize(compress, ends[count - 1]);
    for (size_t i = 0; i < count && !ZSTD_isError(left); i++) {
        ZSTD_EndDirective end = i + 1 < count ? ZSTD_e_flush : ZSTD_e_end;
        in.size = ends[i];
        do
            left = ZSTD_compressStream2(compress, &out, &in, end);
        while (left && !ZSTD_isError(left) && out.pos < out.size);
        sizes[i] = out.pos - before;
        before = out.pos;
        if (left || in.pos < in.size)
            break;
    }
    if (!ZSTD_isError(left) && !left && in.pos == ends[count - 1])
        *size = out.pos;
    /* Also what is left of a frame that did not fit. */
    ZSTD_CCtx_reset(compress, ZSTD_reset_session_and_parameters);
    if (ZSTD_isError(left) && ZSTD_getErrorCode(left) != ZSTD_error_dstSize_tooSmall)
        return MF_NO_MEMORY;
    return MF_OK;
}

/* Whether the parts are the whole group and lie side by side, as they do in it. */
static int is_whole(const mf_group_part *parts, size_t count, size_t length) {
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        if (parts[i].start != at || parts[i].dst != parts[0].dst + at)
            return 0;
        at += parts[i].usize;
    }
    return at == length;
}

/* The next n bytes of the stream. */
static int take(ZSTD_DCtx *decompress, ZSTD_inBuffer *in, uint8_t *dst, size_t n) {
    ZSTD_outBuffer out = {dst, n, 0};
    while (out.pos < n) {
        size_t fed = in->pos, made = out.pos, left = ZSTD_decompressStream(decompress, &out, in);
        if (ZSTD_isError(left))
            return MF_MALFORMED;
        if (out.pos == n)
            break;
        if (!left)
            return MF_SHORT;
        if (in->pos == fed && out.pos == made)
            return MF_MALFORMED;
    }
    return MF_OK;
}

static int decode_parts(ZSTD_DCtx *decompress, const uint8_t *src, size_t csize, const mf_group_part *parts,
                        size_t count, uint8_t *scratch) {
    ZSTD_inBuffer in = {src, csize, 0};
    size_t at = 0;
    int status;
    for (size_t i = 0; i < count; i++) {
        const mf_group_part *part = &parts[i], *before = i ? part - 1 : NULL;
        if (!part->usize)
            continue;
        if (before && part->start == before->start && part->usize == before->usize) {
            memmove(part->dst, before->dst, part->usize);
            continue;
        }
        if (part->start < at) {
            ZSTD_DCtx_reset(decompress, ZSTD_reset_session_only);
            in.pos = at = 0;
        }
        while (at < part->start) {
            size_t n = part->start - at < MF_GROUP_SCRATCH ? part->start - at : MF_GROUP_SCRATCH;
            if ((status = take(decompress, &in, scratch, n)) != MF_OK)
                return status;
            at += n;
        }
        if ((status = take(decompress, &in, part->dst, part->usize)) != MF_OK)
            return status;
        at += part->usize;
    }
    return MF_OK;
}

int mf_group_decode(ZSTD_DCtx *decompress, const uint8_t *src, size_t csize, const mf_group_part *parts, size_t count,
                    uint8_t *scratch) {
    unsigned long long length;
    int status;
    length = ZSTD_getFrameContentSize(src, csize);
    /* Above the limit are also the values for a frame that is none, and for one that does not say. */
    if (length > MF_GROUP_LIMIT)
        return MF_MALFORMED;
    for (size_t i = 0; i < count; i++)
        if (parts[i].start > length || parts[i].usize > length - parts[i].start)
            return MF_SHORT;
    if (!count)
        return MF_OK;
    if (is_whole(parts, count, (size_t) length)) {
        size_t done = ZSTD_decompressDCtx(decompress, parts[0].dst, (size_t) length, src, csize);
        if (ZSTD_isError(done))
            return MF_MALFORMED;
        return done == length ? MF_OK : MF_SHORT;
    }
    ZSTD_DCtx_reset(decompress, ZSTD_reset_session_and_parameters);
    if (ZSTD_isError(ZSTD_DCtx_setParameter(decompress, ZSTD_d_windowLogMax, WINDOW_LOG_MAX)))
        return MF_NO_MEMORY;
    status = decode_parts(decompress, src, csize, parts, count, scratch);
    ZSTD_DCtx_reset(decompress, ZSTD_reset_session_and_parameters);
    return status;
}
