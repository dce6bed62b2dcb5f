#include "codec/difference.h"

#include "memory/little_endian.h"

#define KERNELS(BITS)                                                                                           \
    static void subtract_##BITS(const uint8_t *restrict src, const uint8_t *restrict base, uint8_t *restrict out, \
                                size_t count) {                                                                 \
        for (size_t i = 0; i < count; i++) {                                                                    \
            size_t at = i * (BITS / 8);                                                                         \
            uint##BITS##_t d = (uint##BITS##_t) (mf_load_##BITS(src + at) - mf_load_##BITS(base + at));         \
            mf_store_##BITS(out + at, (uint##BITS##_t) (d << 1) ^ (uint##BITS##_t) (0 - (d >> (BITS - 1))));    \
        }                                                                                                       \
    }                                                                                                           \
    static void add_##BITS(uint8_t *restrict data, const uint8_t *restrict base, size_t count) {                \
        for (size_t i = 0; i < count; i++) {                                                                    \
            size_t at = i * (BITS / 8);                                                                         \
            uint##BITS##_t d = mf_load_##BITS(data + at);                                                       \
            d = (uint##BITS##_t) ((d >> 1) ^ (uint##BITS##_t) (0 - (d & 1)));                                   \
            mf_store_##BITS(data + at, (uint##BITS##_t) (d + mf_load_##BITS(base + at)));                       \
        }                                                                                                       \
    }

KERNELS(16)
KERNELS(32)
KERNELS(64)

void mf_differences(const uint8_t *restrict src, const uint8_t *restrict base, uint8_t *restrict out, size_t n,
                    unsigned width) {
    size_t done = width ? n - n % width : 0;
    switch (width) {
    case 2: subtract_16(src, base, out, n / 2); break;
    case 4: subtract_32(src, base, out, n / 4); break;
    case 8: subtract_64(src, base, out, n / 8); break;
    default: break;
    }
    for (size_t i = done; i < n; i++)
        out[i] = src[i] ^ base[i];
}

void mf_add_differences(uint8_t *restrict data, const uint8_t *restrict base, size_t n, unsigned width) {
    size_t done = width ? n - n % width : 0;
    switch (width) {
    case 2: add_16(data, base, n / 2); break;
    case 4: add_32(data, base, n / 4); break;
    case 8: add_64(data, base, n / 8); break;
    default: break;
    }
    for (size_t i = done; i < n; i++)
        data[i] ^= base[i];
}
