#include "codec/difference.h"

#include <string.h>

#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define LITTLE_ENDIAN_16(x) __builtin_bswap16(x)
#define LITTLE_ENDIAN_32(x) __builtin_bswap32(x)
#define LITTLE_ENDIAN_64(x) __builtin_bswap64(x)
#else
#define LITTLE_ENDIAN_16(x) (x)
#define LITTLE_ENDIAN_32(x) (x)
#define LITTLE_ENDIAN_64(x) (x)
#endif

/* Copies of a constant length are loads and stores, and compilers make vector instructions of the loops. */
#define KERNELS(BITS)                                                                                           \
    static void subtract_##BITS(const uint8_t *restrict src, const uint8_t *restrict base, uint8_t *restrict out, \
                                size_t count) {                                                                 \
        for (size_t i = 0; i < count; i++) {                                                                    \
            uint##BITS##_t a, b, d;                                                                             \
            memcpy(&a, src + i * sizeof a, sizeof a);                                                           \
            memcpy(&b, base + i * sizeof b, sizeof b);                                                          \
            d = (uint##BITS##_t) (LITTLE_ENDIAN_##BITS(a) - LITTLE_ENDIAN_##BITS(b));                           \
            d = (uint##BITS##_t) (d << 1) ^ (uint##BITS##_t) (0 - (d >> (BITS - 1)));                           \
            d = LITTLE_ENDIAN_##BITS(d);                                                                        \
            memcpy(out + i * sizeof d, &d, sizeof d);                                                           \
        }                                                                                                       \
    }                                                                                                           \
    static void add_##BITS(uint8_t *restrict data, const uint8_t *restrict base, size_t count) {                \
        for (size_t i = 0; i < count; i++) {                                                                    \
            uint##BITS##_t d, b;                                                                                \
            memcpy(&d, data + i * sizeof d, sizeof d);                                                          \
            memcpy(&b, base + i * sizeof b, sizeof b);                                                          \
            d = LITTLE_ENDIAN_##BITS(d);                                                                        \
            d = (uint##BITS##_t) ((d >> 1) ^ (uint##BITS##_t) (0 - (d & 1)));                                   \
            d = (uint##BITS##_t) (d + LITTLE_ENDIAN_##BITS(b));                                                 \
            d = LITTLE_ENDIAN_##BITS(d);                                                                        \
            memcpy(data + i * sizeof d, &d, sizeof d);                                                          \
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
