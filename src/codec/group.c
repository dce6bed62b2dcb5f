#include "codec/group.h"

#include <string.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "codec/entropy.h"
#include "codec/search.h"
#include "codec/status.h"

enum {
    /* log2 of MF_GROUP_LIMIT. */
    WINDOW_LOG_MAX = 21,
    /* Within a chunk a block may begin every so many bytes, of which MF_SAMPLE are counted. */
    STEP = 8 << 10,
    /* What a further block costs: its header, a table of codes for 256 values, and more for the sequences. With 160
     * boosters take 1.3 % more; with 320 Arrow files 0.8 %, and images 0.2 %. */
    BLOCK_COST = 220
};

/* The bytes since the last block began, by samples of them. */
typedef struct {
    mf_histogram histogram;
    float bits;
    size_t length;
} current_block;

static void begin_block(current_block *block, const uint8_t *src, size_t n) {
    mf_histogram_sample(&block->histogram, src, n, MF_SAMPLE);
    block->bits = mf_bits(&block->histogram);
    block->length = n;
}

/* Takes the next n bytes into the block. Or begins another one with them and returns 1, if a table of codes of their
 * own saves more than it costs: zstd has one for up to 128 KiB, and the rows of an image differ from one another. */
static int begins_block(current_block *block, const uint8_t *src, size_t n) {
    mf_histogram next, both;
    float next_bits, both_bits;
    mf_histogram_sample(&next, src, n, MF_SAMPLE);
    next_bits = mf_bits(&next);
    mf_histogram_sum(&both, &block->histogram, &next);
    both_bits = mf_bits(&both);
    if ((float) (block->length + n) * both_bits - (float) block->length * block->bits - (float) n * next_bits
        > 8.0f * BLOCK_COST) {
        *block = (current_block) {next, next_bits, n};
        return 1;
    }
    *block = (current_block) {both, both_bits, block->length + n};
    return 0;
}

/* Compresses what comes before in->size, to the end of a block, or of the frame. 0 when all of it is in out. */
static size_t feed(ZSTD_CCtx *compress, ZSTD_outBuffer *out, ZSTD_inBuffer *in, ZSTD_EndDirective end) {
    size_t left;
    do
        left = ZSTD_compressStream2(compress, out, in, end);
    while (left && !ZSTD_isError(left) && out->pos < out->size);
    return !left && in->pos < in->size ? 1 : left;
}

/* The same for a chunk of so many bytes, in one block or several. */
static size_t feed_chunk(ZSTD_CCtx *compress, ZSTD_outBuffer *out, ZSTD_inBuffer *in, size_t n, ZSTD_EndDirective end) {
    const uint8_t *src = (const uint8_t *) in->src + in->size;
    current_block block;
    size_t left;
    begin_block(&block, src, n < STEP ? n : STEP);
    for (size_t at = STEP; at < n; at += STEP) {
        in->size += STEP;
        if (begins_block(&block, src + at, n - at < STEP ? n - at : STEP)
            && (left = feed(compress, out, in, ZSTD_e_flush)))
            return left;
    }
    in->size += n - (n - 1) / STEP * STEP;
    return feed(compress, out, in, end);
}

int mf_group_encode(ZSTD_CCtx *compress, const uint8_t *src, const size_t *ends, size_t count, int level, uint8_t *dst,
                    size_t cap, size_t *sizes, size_t *size) {
    ZSTD_outBuffer out = {dst, cap, 0};
    ZSTD_inBuffer in = {src, 0, 0};
    size_t left, before = 0;
    *size = 0;
    if (!count || ends[count - 1] > MF_GROUP_LIMIT)
        return MF_TOO_LONG;
    left = mf_search_prepare(compress, level);
    if (!ZSTD_isError(left))
        left = ZSTD_CCtx_setPledgedSrcSize(compress, ends[count - 1]);
    for (size_t i = 0; i < count && !ZSTD_isError(left); i++) {
        size_t n = ends[i] - (i ? ends[i - 1] : 0);
        left = feed_chunk(compress, &out, &in, n, i + 1 < count ? ZSTD_e_flush : ZSTD_e_end);
        sizes[i] = out.pos - before;
        before = out.pos;
        if (left)
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
