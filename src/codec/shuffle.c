#include "codec/shuffle.h"

#include <string.h>

#include "codec/status.h"

/* A constant width lets the compiler turn the inner loop into byte shuffles. */
#define KERNELS(W)                                                                    \
    static void shuffle_##W(const uint8_t *restrict src, uint8_t *restrict dst, size_t count) { \
        for (size_t i = 0; i < count; i++)                                            \
            for (size_t j = 0; j < W; j++)                                            \
                dst[j * count + i] = src[i * W + j];                                  \
    }                                                                                 \
    static void unshuffle_##W(const uint8_t *restrict src, uint8_t *restrict dst, size_t count) { \
        for (size_t i = 0; i < count; i++)                                            \
            for (size_t j = 0; j < W; j++)                                            \
                dst[i * W + j] = src[j * count + i];                                  \
    }

KERNELS(2)
KERNELS(4)
KERNELS(8)

int mf_shuffle(const uint8_t *src, uint8_t *dst, size_t n, unsigned width) {
    size_t count;
    switch (width) {
    case 2: shuffle_2(src, dst, n / 2); break;
    case 4: shuffle_4(src, dst, n / 4); break;
    case 8: shuffle_8(src, dst, n / 8); break;
    default: return MF_BAD_WIDTH;
    }
    count = n - n % width;
    memcpy(dst + count, src + count, n % width);
    return MF_OK;
}

int mf_unshuffle(const uint8_t *src, uint8_t *dst, size_t n, unsigned width) {
    size_t count;
    switch (width) {
    case 2: unshuffle_2(src, dst, n / 2); break;
    case 4: unshuffle_4(src, dst, n / 4); break;
    case 8: unshuffle_8(src, dst, n / 8); break;
    default: return MF_BAD_WIDTH;
    }
    count = n - n % width;
    memcpy(dst + count, src + count, n % width);
    return MF_OK;
}
