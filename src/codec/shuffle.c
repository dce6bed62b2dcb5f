#include "codec/shuffle.h"

#include <string.h>

#include "codec/status.h"
#include "cpu/features.h"
#include "memory/little_endian.h"

#define INLINE static inline __attribute__((always_inline))

enum { WIDEST = 8 };

/* Here planes are numbered from the lowest byte on. Kernels stand here twice: in C, which compilers vectorise for what
 * every processor of an architecture has; and for AVX2, in blocks, which leave the rest to the former.
 *
 * Split and join, turned, in GB/s of a chunk of 64 KiB in the second-level cache, by width 2, 4 and 8 (AMD EPYC, Zen 5,
 * whose other core was busy; gcc 12):
 *
 *   base  21.8 20.3   9.4 11.1   3.5  6.0
 *   AVX2  34.6 35.0  32.7 33.9  22.9 29.0 */
#define TURNED(bits, x) ((uint##bits##_t) ((x) << 1 | (x) >> ((bits) - 1)))
#define TURNED_BACK(bits, x) ((uint##bits##_t) ((x) >> 1 | (x) << ((bits) - 1)))

#define KERNELS(W, bits)                                                                                        \
    INLINE void split_##W(const uint8_t *restrict src, uint8_t *const *planes, size_t first, size_t count,      \
                          int turn) {                                                                           \
        uint8_t *restrict to[W];                                                                                \
        for (size_t j = 0; j < W; j++)                                                                          \
            to[j] = planes[j];                                                                                  \
        for (size_t i = first; i < count; i++) {                                                                \
            uint##bits##_t x = mf_load_##bits(src + i * W);                                                     \
            if (turn)                                                                                           \
                x = TURNED(bits, x);                                                                            \
            for (size_t j = 0; j < W; j++)                                                                      \
                to[j][i] = (uint8_t) (x >> (8 * j));                                                            \
        }                                                                                                       \
    }                                                                                                           \
    INLINE void join_##W(const uint8_t *const *planes, uint8_t *restrict dst, size_t first, size_t count,       \
                         int turn) {                                                                            \
        const uint8_t *restrict from[W];                                                                        \
        for (size_t j = 0; j < W; j++)                                                                          \
            from[j] = planes[j];                                                                                \
        for (size_t i = first; i < count; i++) {                                                                \
            uint##bits##_t x = 0;                                                                               \
            for (size_t j = 0; j < W; j++)                                                                      \
                x = (uint##bits##_t) (x | (uint##bits##_t) ((uint##bits##_t) from[j][i] << (8 * j)));           \
            if (turn)                                                                                           \
                x = TURNED_BACK(bits, x);                                                                       \
            mf_store_##bits(dst + i * W, x);                                                                    \
        }                                                                                                       \
    }

KERNELS(2, 16)
KERNELS(4, 32)
KERNELS(8, 64)

#if X86
#define AVX2 __attribute__((target("avx2")))
#define LO(bits, a, b) _mm256_unpacklo_epi##bits(a, b)
#define HI(bits, a, b) _mm256_unpackhi_epi##bits(a, b)

/* A block is 32 numbers. The lower half of each register is of the first sixteen and the upper half of the others, so
 * that the instructions, which work on each half by itself, never mix them. */
enum { BLOCK = 32 };

INLINE AVX2 __m256i pair_at(const uint8_t *src, size_t apart) {
    __m256i low = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *) src));
    return _mm256_inserti128_si256(low, _mm_loadu_si128((const __m128i *) (src + apart)), 1);
}

INLINE AVX2 void put_pair(uint8_t *dst, size_t apart, __m256i v) {
    _mm_storeu_si128((__m128i *) dst, _mm256_castsi256_si128(v));
    _mm_storeu_si128((__m128i *) (dst + apart), _mm256_extracti128_si256(v, 1));
}

INLINE AVX2 __m256i load_plane(const uint8_t *plane) {
    return _mm256_loadu_si256((const __m256i *) plane);
}

INLINE AVX2 void store_plane(uint8_t *plane, __m256i v) {
    _mm256_storeu_si256((__m256i *) plane, v);
}

#define TURN_2(v) _mm256_or_si256(_mm256_slli_epi16(v, 1), _mm256_srli_epi16(v, 15))
#define TURN_4(v) _mm256_or_si256(_mm256_slli_epi32(v, 1), _mm256_srli_epi32(v, 31))
#define TURN_8(v) _mm256_or_si256(_mm256_slli_epi64(v, 1), _mm256_srli_epi64(v, 63))
#define TURN_BACK_2(v) _mm256_or_si256(_mm256_srli_epi16(v, 1), _mm256_slli_epi16(v, 15))
#define TURN_BACK_4(v) _mm256_or_si256(_mm256_srli_epi32(v, 1), _mm256_slli_epi32(v, 31))
#define TURN_BACK_8(v) _mm256_or_si256(_mm256_srli_epi64(v, 1), _mm256_slli_epi64(v, 63))

INLINE AVX2 void split_block_2(const uint8_t *src, uint8_t *const *planes, size_t i, int turn) {
    __m256i a = pair_at(src, 32), b = pair_at(src + 16, 32), low = _mm256_set1_epi16(0xFF);
    if (turn) {
        a = TURN_2(a);
        b = TURN_2(b);
    }
    store_plane(planes[0] + i, _mm256_packus_epi16(_mm256_and_si256(a, low), _mm256_and_si256(b, low)));
    store_plane(planes[1] + i, _mm256_packus_epi16(_mm256_srli_epi16(a, 8), _mm256_srli_epi16(b, 8)));
}

INLINE AVX2 void join_block_2(const uint8_t *const *planes, uint8_t *dst, size_t i, int turn) {
    __m256i low = load_plane(planes[0] + i), high = load_plane(planes[1] + i);
    __m256i a = LO(8, low, high), b = HI(8, low, high);
    put_pair(dst, 32, turn ? TURN_BACK_2(a) : a);
    put_pair(dst + 16, 32, turn ? TURN_BACK_2(b) : b);
}

INLINE AVX2 void split_block_4(const uint8_t *src, uint8_t *const *planes, size_t i, int turn) {
    const __m256i by_plane = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    __m256i v[4], low[2], high[2];
    for (size_t k = 0; k < 4; k++) {
        v[k] = pair_at(src + 16 * k, 64);
        v[k] = _mm256_shuffle_epi8(turn ? TURN_4(v[k]) : v[k], by_plane);
    }
    for (size_t k = 0; k < 2; k++) {
        low[k] = LO(32, v[2 * k], v[2 * k + 1]);
        high[k] = HI(32, v[2 * k], v[2 * k + 1]);
    }
    store_plane(planes[0] + i, LO(64, low[0], low[1]));
    store_plane(planes[1] + i, HI(64, low[0], low[1]));
    store_plane(planes[2] + i, LO(64, high[0], high[1]));
    store_plane(planes[3] + i, HI(64, high[0], high[1]));
}

INLINE AVX2 void join_block_4(const uint8_t *const *planes, uint8_t *dst, size_t i, int turn) {
    __m256i v[4], low[2], high[2];
    for (size_t k = 0; k < 2; k++) {
        __m256i a = load_plane(planes[2 * k] + i), b = load_plane(planes[2 * k + 1] + i);
        low[k] = LO(8, a, b);
        high[k] = HI(8, a, b);
    }
    v[0] = LO(16, low[0], low[1]);
    v[1] = HI(16, low[0], low[1]);
    v[2] = LO(16, high[0], high[1]);
    v[3] = HI(16, high[0], high[1]);
    for (size_t k = 0; k < 4; k++)
        put_pair(dst + 16 * k, 64, turn ? TURN_BACK_4(v[k]) : v[k]);
}

INLINE AVX2 void split_block_8(const uint8_t *src, uint8_t *const *planes, size_t i, int turn) {
    const __m256i by_plane = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15));
    __m256i v[8], two[8], four[8];
    for (size_t k = 0; k < 8; k++) {
        v[k] = pair_at(src + 16 * k, 128);
        v[k] = _mm256_shuffle_epi8(turn ? TURN_8(v[k]) : v[k], by_plane);
    }
    /* two[k] has planes 0 to 3 and two[4 + k] planes 4 to 7, of four numbers each. */
    for (size_t k = 0; k < 4; k++) {
        two[k] = LO(16, v[2 * k], v[2 * k + 1]);
        two[4 + k] = HI(16, v[2 * k], v[2 * k + 1]);
    }
    for (size_t k = 0; k < 4; k++) {
        four[2 * k] = LO(32, two[2 * k], two[2 * k + 1]);
        four[2 * k + 1] = HI(32, two[2 * k], two[2 * k + 1]);
    }
    for (size_t k = 0; k < 2; k++) {
        for (size_t half = 0; half < 2; half++) {
            __m256i a = four[4 * k + half], b = four[4 * k + 2 + half];
            store_plane(planes[4 * k + 2 * half] + i, LO(64, a, b));
            store_plane(planes[4 * k + 2 * half + 1] + i, HI(64, a, b));
        }
    }
}

INLINE AVX2 void join_block_8(const uint8_t *const *planes, uint8_t *dst, size_t i, int turn) {
    __m256i two[8], four[8];
    /* two[k] has bytes 2k and 2k + 1 of the first eight numbers, two[4 + k] those of the other eight. */
    for (size_t k = 0; k < 4; k++) {
        __m256i a = load_plane(planes[2 * k] + i), b = load_plane(planes[2 * k + 1] + i);
        two[k] = LO(8, a, b);
        two[4 + k] = HI(8, a, b);
    }
    for (size_t k = 0; k < 4; k++) {
        four[2 * k] = LO(16, two[2 * k], two[2 * k + 1]);
        four[2 * k + 1] = HI(16, two[2 * k], two[2 * k + 1]);
    }
    for (size_t k = 0; k < 2; k++) {
        for (size_t half = 0; half < 2; half++) {
            __m256i a = four[4 * k + half], b = four[4 * k + 2 + half], low = LO(32, a, b), high = HI(32, a, b);
            put_pair(dst + 64 * k + 32 * half, 128, turn ? TURN_BACK_8(low) : low);
            put_pair(dst + 64 * k + 32 * half + 16, 128, turn ? TURN_BACK_8(high) : high);
        }
    }
}

/* Return how many numbers are done. */
#define KERNELS_AVX2(W)                                                                                              \
    AVX2 static size_t split_avx2_##W(const uint8_t *src, uint8_t *const *planes, size_t count, int turn) {         \
        size_t i = 0;                                                                                                \
        if (turn)                                                                                                    \
            for (; i + BLOCK <= count; i += BLOCK)                                                                   \
                split_block_##W(src + i * W, planes, i, 1);                                                          \
        else                                                                                                         \
            for (; i + BLOCK <= count; i += BLOCK)                                                                   \
                split_block_##W(src + i * W, planes, i, 0);                                                          \
        return i;                                                                                                    \
    }                                                                                                                \
    AVX2 static size_t join_avx2_##W(const uint8_t *const *planes, uint8_t *dst, size_t count, int turn) {          \
        size_t i = 0;                                                                                                \
        if (turn)                                                                                                    \
            for (; i + BLOCK <= count; i += BLOCK)                                                                   \
                join_block_##W(planes, dst + i * W, i, 1);                                                           \
        else                                                                                                         \
            for (; i + BLOCK <= count; i += BLOCK)                                                                   \
                join_block_##W(planes, dst + i * W, i, 0);                                                           \
        return i;                                                                                                    \
    }
#define FIRST(kernel, W, ...) (mf_cpu_has(MF_CPU_AVX2) ? kernel##_avx2_##W(__VA_ARGS__) : 0)
#else
#define KERNELS_AVX2(W)
#define FIRST(kernel, W, ...) 0
#endif

#define WHOLE(W)                                                                                  \
    KERNELS_AVX2(W)                                                                               \
    static void split_all_##W(const uint8_t *src, uint8_t *const *planes, size_t count, int turn) { \
        size_t first = FIRST(split, W, src, planes, count, turn);                                 \
        if (turn)                                                                                 \
            split_##W(src, planes, first, count, 1);                                              \
        else                                                                                      \
            split_##W(src, planes, first, count, 0);                                              \
    }                                                                                             \
    static void join_all_##W(const uint8_t *const *planes, uint8_t *dst, size_t count, int turn) { \
        size_t first = FIRST(join, W, planes, dst, count, turn);                                  \
        if (turn)                                                                                 \
            join_##W(planes, dst, first, count, 1);                                               \
        else                                                                                      \
            join_##W(planes, dst, first, count, 0);                                               \
    }

WHOLE(2)
WHOLE(4)
WHOLE(8)

static int is_width(unsigned width) {
    return width == 2 || width == 4 || width == 8;
}

static int split(const uint8_t *src, uint8_t *const *planes, size_t count, unsigned width, int turn) {
    switch (width) {
    case 2: split_all_2(src, planes, count, turn); break;
    case 4: split_all_4(src, planes, count, turn); break;
    default: split_all_8(src, planes, count, turn); break;
    }
    return MF_OK;
}

static int join(const uint8_t *const *planes, uint8_t *dst, size_t count, unsigned width, int turn) {
    switch (width) {
    case 2: join_all_2(planes, dst, count, turn); break;
    case 4: join_all_4(planes, dst, count, turn); break;
    default: join_all_8(planes, dst, count, turn); break;
    }
    return MF_OK;
}

int mf_shuffle(const uint8_t *src, uint8_t *dst, size_t n, unsigned width) {
    uint8_t *planes[WIDEST];
    size_t count, end;
    if (!is_width(width))
        return MF_BAD_WIDTH;
    count = n / width;
    end = n - n % width;
    for (unsigned j = 0; j < width; j++)
        planes[j] = dst + j * count;
    if (end < n)
        memcpy(dst + end, src + end, n - end);
    return split(src, planes, count, width, 0);
}

int mf_unshuffle(const uint8_t *src, uint8_t *dst, size_t n, unsigned width) {
    const uint8_t *planes[WIDEST];
    size_t count, end;
    if (!is_width(width))
        return MF_BAD_WIDTH;
    count = n / width;
    end = n - n % width;
    for (unsigned j = 0; j < width; j++)
        planes[j] = src + j * count;
    if (end < n)
        memcpy(dst + end, src + end, n - end);
    return join(planes, dst, count, width, 0);
}

int mf_split(const uint8_t *src, uint8_t *dst, size_t count, unsigned width) {
    uint8_t *planes[WIDEST];
    if (!is_width(width))
        return MF_BAD_WIDTH;
    for (unsigned j = 0; j < width; j++)
        planes[width - 1 - j] = dst + j * count;
    return split(src, planes, count, width, 1);
}

int mf_join(const uint8_t *const *planes, uint8_t *dst, size_t count, unsigned width) {
    const uint8_t *lowest_first[WIDEST];
    if (!is_width(width))
        return MF_BAD_WIDTH;
    for (unsigned j = 0; j < width; j++)
        lowest_first[width - 1 - j] = planes[j];
    return join(lowest_first, dst, count, width, 1);
}
