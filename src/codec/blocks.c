#include "codec/blocks.h"

#include <zstd_errors.h>

#include "codec/entropy.h"

enum {
    /* Of the longest part MF_SAMPLE bytes are counted: 1 to 2 % of what compressing takes. Of others as many for their
     * length, so that counts may be added, but so many at least. */
    LEAST = 256,
    /* What a further block costs at most: its header, and a table of codes for 256 values. */
    BLOCK_COST = 160
};

static void sample(mf_histogram *histogram, const uint8_t *part, size_t n, size_t longest) {
    size_t some = MF_SAMPLE * n / longest;
    mf_histogram_sample(histogram, part, n, (some < LEAST ? LEAST : some) / MF_SAMPLE_RUN * MF_SAMPLE_RUN);
}

/* Writes to blocks[] where each block ends, and returns how many there are. A part joins the block before it unless a
 * table of its own saves more than it costs. */
static unsigned group(const uint8_t *src, const size_t *ends, unsigned parts, size_t *blocks) {
    mf_histogram block, next, both;
    float block_bits, next_bits, both_bits;
    size_t length = ends[0], longest = ends[0];
    unsigned found = 0;
    for (unsigned j = 1; j < parts; j++)
        longest = ends[j] - ends[j - 1] > longest ? ends[j] - ends[j - 1] : longest;
    sample(&block, src, length, longest);
    block_bits = mf_bits(&block);
    for (unsigned j = 1; j < parts; j++) {
        size_t start = ends[j - 1], more = ends[j] - start;
        sample(&next, src + start, more, longest);
        next_bits = mf_bits(&next);
        mf_histogram_sum(&both, &block, &next);
        both_bits = mf_bits(&both);
        if ((float) (length + more) * both_bits - (float) length * block_bits - (float) more * next_bits
            > 8.0f * BLOCK_COST) {
            blocks[found++] = start;
            length = more;
            block = next;
            block_bits = next_bits;
        } else {
            length += more;
            block = both;
            block_bits = both_bits;
        }
    }
    blocks[found++] = ends[parts - 1];
    return found;
}

size_t mf_compress_blocks(ZSTD_CCtx *compress, const uint8_t *src, const mf_packed *packed, int level, uint8_t *dst,
                          size_t cap) {
    size_t ends[MF_MAX_PARTS], n = packed->parts ? packed->ends[packed->parts - 1] : 0, left;
    unsigned blocks = packed->parts ? group(src, packed->ends, packed->parts, ends) : 0;
    ZSTD_outBuffer out = {dst, cap, 0};
    ZSTD_inBuffer in = {src, 0, 0};
    if (blocks <= 1)
        return ZSTD_compressCCtx(compress, dst, cap, src, n, level);
    ZSTD_CCtx_reset(compress, ZSTD_reset_session_and_parameters);
    left = ZSTD_CCtx_setParameter(compress, ZSTD_c_compressionLevel, level);
    if (!ZSTD_isError(left))
        left = ZSTD_CCtx_setPledgedSrcSize(compress, n);
    for (unsigned i = 0; i < blocks && !ZSTD_isError(left); i++) {
        ZSTD_EndDirective end = i + 1 < blocks ? ZSTD_e_flush : ZSTD_e_end;
        in.size = ends[i];
        do
            left = ZSTD_compressStream2(compress, &out, &in, end);
        while (left && !ZSTD_isError(left) && out.pos < out.size);
        if (!ZSTD_isError(left) && (left || in.pos < in.size))
            left = (size_t) -ZSTD_error_dstSize_tooSmall;
    }
    /* Also what is left of a frame that did not fit. */
    ZSTD_CCtx_reset(compress, ZSTD_reset_session_and_parameters);
    return ZSTD_isError(left) ? left : out.pos;
}
