#include "codec/choice.h"

#include <string.h>

#include "codec/context.h"
#include "codec/delta.h"
#include "codec/likeness.h"
#include "codec/status.h"

enum { PREFIX_LEVEL_MIN = 3 };

/* A quarter of what tells something, found in the base: less than that the look does not tell from chance, and PREFIX
 * would save less than it takes longer. */
static int prefix_may_pay(const mf_likeness *likeness) {
    return likeness->telling && likeness->found >= likeness->telling / 4;
}

/* A tenth less, and a sixty-fourth of the chunk: unrelated numbers are estimated within 0.03 of each other. */
static int difference_may_pay(const mf_likeness *likeness, size_t n, size_t base_size) {
    size_t least = likeness->plain / 10 > n / 64 ? likeness->plain / 10 : n / 64;
    return n == base_size && likeness->changed + least < likeness->plain;
}

/* What is found is a lower bound (short matches are not looked for), so PREFIX may leave a fourth of its estimate. */
static int difference_is_far_better(const mf_likeness *likeness) {
    double left = (double) likeness->plain * (1.0 - (double) likeness->found / (double) likeness->telling);
    return left > 4.0 * (double) likeness->changed;
}

int mf_delta_best(mf_codec_ctx *ctx, const uint8_t *src, size_t n, const uint8_t *base, size_t base_size,
                  unsigned width, int level, uint8_t *dst, size_t cap, mf_delta_choice *choice) {
    mf_likeness likeness;
    size_t size = 0;
    int status, prefix, difference;
    *choice = (mf_delta_choice) {0, MF_PREFIX, 0};
    if (n > MF_CHUNK_LIMIT)
        return MF_TOO_LONG;
    if (base_size > MF_CHUNK_LIMIT)
        return MF_BAD_BASE;
    if (width && width != 2 && width != 4 && width != 8)
        return MF_BAD_WIDTH;
    mf_compare(src, n, base, base_size, width, &likeness);
    difference = difference_may_pay(&likeness, n, base_size);
    prefix = prefix_may_pay(&likeness) && !(difference && difference_is_far_better(&likeness));
    if (difference) {
        status = mf_delta_encode(ctx, src, n, base, base_size, MF_DIFFERENCE, width, level, dst, cap, &size);
        if (status != MF_OK)
            return status;
        if (size) {
            *choice = (mf_delta_choice) {size, MF_DIFFERENCE, width};
            cap = size;
        }
    }
    if (prefix) {
        uint8_t *target = dst;
        if (choice->size) {
            if ((status = mf_codec_need_scratch(ctx, cap)) != MF_OK)
                return status;
            target = ctx->scratch;
        }
        if (level < PREFIX_LEVEL_MIN)
            level = PREFIX_LEVEL_MIN;
        status = mf_delta_encode(ctx, src, n, base, base_size, MF_PREFIX, 0, level, target, cap, &size);
        if (status != MF_OK)
            return status;
        if (size) {
            if (target != dst)
                memcpy(dst, target, size);
            *choice = (mf_delta_choice) {size, MF_PREFIX, 0};
        }
    }
    return MF_OK;
}
