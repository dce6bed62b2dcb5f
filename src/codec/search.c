#include "codec/search.h"

typedef struct {
    ZSTD_cParameter parameter;
    int value;
} setting;

enum { SETTINGS = 6 };

static const setting ours[][SETTINGS] = {
    {{ZSTD_c_compressionLevel, 1}, {ZSTD_c_strategy, ZSTD_fast}, {ZSTD_c_windowLog, 19}, {ZSTD_c_hashLog, 14},
     {ZSTD_c_chainLog, 13}, {ZSTD_c_minMatch, 7}},
    {{ZSTD_c_compressionLevel, 1}, {ZSTD_c_strategy, ZSTD_fast}, {ZSTD_c_windowLog, 19}, {ZSTD_c_hashLog, 14},
     {ZSTD_c_chainLog, 13}, {ZSTD_c_minMatch, 5}},
    {{ZSTD_c_compressionLevel, 3}, {ZSTD_c_strategy, ZSTD_dfast}, {ZSTD_c_windowLog, 21}, {ZSTD_c_hashLog, 17},
     {ZSTD_c_chainLog, 16}, {ZSTD_c_minMatch, 5}}};

static int is_ours(int level) {
    return level >= MF_QUICK && level <= MF_FAR;
}

size_t mf_search_prepare(ZSTD_CCtx *compress, int level) {
    size_t done = ZSTD_CCtx_reset(compress, ZSTD_reset_session_and_parameters);
    if (!is_ours(level))
        return ZSTD_isError(done) ? done : ZSTD_CCtx_setParameter(compress, ZSTD_c_compressionLevel, level);
    for (unsigned i = 0; i < SETTINGS && !ZSTD_isError(done); i++) {
        const setting *one = &ours[level - MF_QUICK][i];
        done = ZSTD_CCtx_setParameter(compress, one->parameter, one->value);
    }
    return done;
}

size_t mf_search_compress(ZSTD_CCtx *compress, int level, const uint8_t *src, size_t n, uint8_t *dst, size_t cap) {
    size_t done;
    if (!is_ours(level))
        return ZSTD_compressCCtx(compress, dst, cap, src, n, level);
    done = mf_search_prepare(compress, level);
    if (!ZSTD_isError(done))
        done = ZSTD_compress2(compress, dst, cap, src, n);
    ZSTD_CCtx_reset(compress, ZSTD_reset_session_and_parameters);
    return done;
}
