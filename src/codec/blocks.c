#include "codec/blocks.h"

#include <string.h>
#include <zstd_errors.h>

#include "codec/entropy.h"

enum {
    /* Of each plane so many bytes are counted, in runs from all over it: 1 to 2 % of what compressing takes. */
    SAMPLE = 1024,
    RUN = 64,
    MAX_WIDTH = 8,
    /* What a further block costs at most: its header, and a table of codes for 256 values. */
    BLOCK_COST = 160
};

static void sample(mf_histogram *histogram, const uint8_t *plane, size_t n) {
    size_t runs = SAMPLE / RUN;
    memset(histogram, 0, sizeof *histogram);
    if (n <= SAMPLE) {
        mf_histogram_add(histogram, plane, n);
        return;
    }
    for (size_t i = 0; i < runs; i++)
        mf_histogram_add(histogram, plane + i * ((n - RUN) / (runs - 1)), RUN);
}

/* Writes to cuts[] how many planes each block has, and returns how many blocks that are. A plane joins the block before
 * it unless a table of its own saves more than it costs. */
static unsigned group(const uint8_t *src, size_t count, unsigned width, unsigned *cuts) {
    mf_histogram block, next, both;
    float block_bits, next_bits, both_bits;
    unsigned blocks = 0, planes = 1;
    sample(&block, src, count);
    block_bits = mf_bits(&block);
    for (unsigned j = 1; j < width; j++) {
        sample(&next, src + j * count, count);
        next_bits = mf_bits(&next);
        mf_histogram_sum(&both, &block, &next);
        both_bits = mf_bits(&both);
        if (((float) (planes + 1) * both_bits - (float) planes * block_bits - next_bits) * (float) count
            > 8.0f * BLOCK_COST) {
            cuts[blocks++] = planes;
            planes = 1;
            block = next;
            block_bits = next_bits;
        } else {
            planes++;
            block = both;
            block_bits = both_bits;
        }
    }
    cuts[blocks++] = planes;
    return blocks;
}

size_t mf_compress_blocks(ZSTD_CCtx *compress, const uint8_t *src, size_t n, unsigned width, int level, uint8_t *dst,
                          size_t cap) {
    unsigned cuts[MAX_WIDTH], blocks = 1;
    size_t count = width ? n / width : 0, left = 0;
    ZSTD_outBuffer out = {dst, cap, 0};
    ZSTD_inBuffer in = {src, 0, 0};
    if (width && width <= MAX_WIDTH && count)
        blocks = group(src, count, width, cuts);
    if (blocks == 1)
        return ZSTD_compressCCtx(compress, dst, cap, src, n, level);
    ZSTD_CCtx_reset(compress, ZSTD_reset_session_and_parameters);
    left = ZSTD_CCtx_setParameter(compress, ZSTD_c_compressionLevel, level);
    if (!ZSTD_isError(left))
        left = ZSTD_CCtx_setPledgedSrcSize(compress, n);
    for (unsigned i = 0; i < blocks && !ZSTD_isError(left); i++) {
        ZSTD_EndDirective end = i + 1 < blocks ? ZSTD_e_flush : ZSTD_e_end;
        in.size = i + 1 < blocks ? in.size + cuts[i] * count : n;
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
