#include "chunk/cuts.h"

#include <string.h>

#include "memory/little_endian.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define X86 1
#else
#define X86 0
#endif

/* One source for all implementations, written so that compilers vectorise each loop: constant lengths, 16-bit lanes,
 * no lane that waits for the one before. AVX2 is the same code compiled for it.
 *
 * Instructions per byte of noise (callgrind, gcc 12), and GB of it per CPU second on an AMD EPYC, for words of 1, 2, 4
 * and 8 bytes: BASE 6.5, 3.5, 2.9, 1.7 and 2.4, 5.1, 4.9, 7.5; AVX2 3.3, 1.7, 1.0, 0.7 and 4.4, 7.2, 11.3, 13.1. */
#define INLINE static inline __attribute__((always_inline))

/* The hash looks back over this many words: a hit needs a window that is one in 2^12 to 2^18, and booleans of which 5 %
 * are true show 2^18 different ones in 64 words, 2^5 in 16. Each doubling is a step more. */
#define WINDOW 64
/* Words hashed at once: buffers that stay in the first-level cache. The words of the window before a block are hashed
 * again with it, a sixteenth more; a longer block hashes more in vain behind a cut. */
#define BLOCK 1024
#define LANES (BLOCK + WINDOW)
#define GROUP 32

#define SPREAD 0x9E3779B1u
#define MULTIPLIERS {0x243F, 0x85A3, 0x1319, 0xA409, 0x299F, 0x31D1}
/* One word in 1024 is a candidate. */
#define CANDIDATE 0x7FC0

/* Bytes per hit, before and from the normal point on: 17 % of the chunks of noise end before it, the mean is 75 kB. */
#define STRICT (MF_CUT_NORMAL * 4)
#define LOOSE (MF_CUT_NORMAL / 4)
#define THRESHOLD(bytes, width) (((uint64_t) (width) << 42) / (bytes))

INLINE uint32_t spread(uint32_t z) {
    return (z ^ z >> 15) * SPREAD;
}

/* The upper half of spread, for 16 bits in lanes of 16. */
INLINE uint16_t spread_16(uint16_t z) {
    z ^= z >> 15;
    return (uint16_t) (z * (SPREAD >> 16)) + (uint16_t) (z * (SPREAD & 0xFFFF) >> 16);
}

INLINE uint16_t lane_1(const uint8_t *data) {
    return spread_16(*data);
}

INLINE uint16_t lane_2(const uint8_t *data) {
    return spread_16(mf_load_16(data));
}

INLINE uint16_t lane_4(const uint8_t *data) {
    return (uint16_t) (spread(mf_load_32(data)) >> 16);
}

INLINE uint16_t lane_8(const uint8_t *data) {
    uint64_t word = mf_load_64(data);
    return (uint16_t) (spread((uint32_t) (word + (word >> 32))) >> 16);
}

/* For each i, out[i] looks back over twice the words that in[i] does. Both end with the same word when a lane of out
 * is numbered `distance` less, so that stores are aligned. */
#define STEP(in, out, count, distance, multiplier)                                    \
    for (size_t i = 0; i < (count); i++)                                              \
        (out)[i] = (uint16_t) ((in)[i + (distance)] * (uint32_t) (multiplier) + (in)[i])

/* The steps run over whole vectors and so read up to 32 lanes behind those that mean anything. */
struct lanes {
    uint16_t a[LANES + 32], b[LANES + 32];
};

/* Afterwards lane i of whole is the hash of word i, and lane i + 32 of half the same over 32 words, for the BLOCK words
 * from data on, of which only the first `words` may be read; the WINDOW words before data are there too. */
#define HASH(width)                                                                                             \
    INLINE void hash_##width(const uint8_t *data, size_t words, struct lanes *lanes) {                          \
        static const uint16_t m[] = MULTIPLIERS;                                                                \
        uint16_t *restrict a = lanes->a, *restrict b = lanes->b;                                                \
        data -= (WINDOW - 1) * width;                                                                           \
        if (words >= BLOCK) {                                                                                   \
            for (size_t i = 0; i < LANES - 1; i++)                                                              \
                a[i] = lane_##width(data + i * width);                            \
        } else {                                                                                                \
            for (size_t i = 0; i < words + WINDOW - 1; i++)                                                     \
                a[i] = lane_##width(data + i * width);                            \
        }                                                                                                       \
        STEP(a, b, LANES, 1, m[0]);                                                                             \
        STEP(b, a, LANES, 2, m[1]);                                                                             \
        STEP(a, b, LANES, 4, m[2]);                                                                             \
        STEP(b, a, LANES, 8, m[3]);                                                                             \
        for (size_t i = 0; i < LANES; i++)                                                                      \
            a[i] ^= a[i] >> 7;                                                                                  \
        STEP(a, b, BLOCK + 32, 16, m[4]);                                                                       \
        STEP(b, a, BLOCK, 32, m[5]);                                                                            \
    }

HASH(1)
HASH(2)
HASH(4)
HASH(8)

INLINE size_t end_of_unit(size_t end, size_t unit, size_t limit) {
    end += unit - 1;
    end -= end % unit;
    return end < limit ? end : limit;
}

/* The length of the chunk that begins at data, of a run of which n bytes are left. */
INLINE size_t next_cut(void hash(const uint8_t *, size_t, struct lanes *), const uint8_t *data, size_t n, size_t unit,
                       size_t width, struct lanes *lanes) {
    const int16_t *whole = (const int16_t *) lanes->a;
    const uint16_t *half = lanes->b + 32;
    size_t longest = MF_CUT_MAX - MF_CUT_MAX % unit;
    size_t limit = n < longest ? n : longest;
    size_t words = limit / width, greatest_at = 0;
    int16_t greatest = INT16_MIN;
    if (n <= MF_CUT_MIN)
        return n;
    for (size_t first = MF_CUT_MIN / width - 1; first < words; first += BLOCK) {
        size_t count = words - first < BLOCK ? words - first : BLOCK;
        hash(data + first * width, count, lanes);
        /* Whole groups are searched. */
        for (size_t i = count; i % GROUP; i++)
            lanes->a[i] = (uint16_t) INT16_MIN;
        for (size_t group = 0; group < count; group += GROUP) {
            int16_t top = INT16_MIN;
            for (size_t i = 0; i < GROUP; i++)
                top = whole[group + i] > top ? whole[group + i] : top;
            if (top >= greatest) {
                greatest = top;
                greatest_at = first + group;
            }
            if (top < CANDIDATE)
                continue;
            for (size_t i = group; i < group + GROUP; i++) {
                size_t end = (first + i + 1) * width;
                uint32_t both = (uint32_t) lanes->a[i] << 16 | half[i];
                if (whole[i] >= CANDIDATE &&
                    spread(both) < THRESHOLD(end < MF_CUT_NORMAL ? STRICT : LOOSE, width))
                    return end_of_unit(end, unit, limit);
            }
        }
    }
    if (limit < longest)
        return limit;
    /* Windows so much alike that none is a hit. Cuts at the limit would not meet those of shifted data again: of 16 MiB
     * of booleans of which 0.3 % are true, 6.8 MB were new without the first 7; with this it is 0.3 MB. */
    hash(data + greatest_at * width, words - greatest_at < GROUP ? words - greatest_at : GROUP, lanes);
    for (size_t i = words - greatest_at < GROUP ? words - greatest_at : GROUP; i--;)
        if (whole[i] == greatest)
            return end_of_unit((greatest_at + i + 1) * width, unit, limit);
    return limit;
}

INLINE size_t cut(struct mf_segment segment, const uint8_t *data, size_t n, int last, size_t *ends) {
    size_t item = segment.itemsize ? segment.itemsize : 1;
    int long_rows = segment.row >= MF_LONG_ROW;
    size_t unit = long_rows || !segment.row ? item : segment.row;
    size_t row_left = long_rows ? segment.row - segment.start % segment.row : SIZE_MAX;
    size_t at = 0, count = 0;
    struct lanes lanes;
    memset(&lanes, 0, sizeof lanes);
    while (at < n) {
        size_t left = n - at, length;
        if (row_left <= left)
            left = row_left;
        else if (!last && left < MF_CUT_MAX)
            break; /* a cut could still depend on what follows */
        if (unit % 8 == 0)
            length = next_cut(hash_8, data + at, left, unit, 8, &lanes);
        else if (unit % 4 == 0)
            length = next_cut(hash_4, data + at, left, unit, 4, &lanes);
        else if (unit % 2 == 0)
            length = next_cut(hash_2, data + at, left, unit, 2, &lanes);
        else
            length = next_cut(hash_1, data + at, left, unit, 1, &lanes);
        at += length;
        ends[count++] = at;
        if (long_rows) {
            row_left -= length;
            if (!row_left)
                row_left = segment.row;
        }
    }
    return count;
}

static size_t cut_base(struct mf_segment segment, const uint8_t *data, size_t n, int last, size_t *ends) {
    return cut(segment, data, n, last, ends);
}

#if X86
__attribute__((target("avx2"))) static size_t cut_avx2(struct mf_segment segment, const uint8_t *data, size_t n,
                                                       int last, size_t *ends) {
    return cut(segment, data, n, last, ends);
}
#endif

int mf_cut_available(enum mf_cut_impl impl) {
#if X86
    if (impl == MF_CUT_AVX2)
        return !!__builtin_cpu_supports("avx2");
#endif
    return impl == MF_CUT_BEST || impl == MF_CUT_BASE;
}

size_t mf_cut(enum mf_cut_impl impl, struct mf_segment segment, const uint8_t *data, size_t n, int last, size_t *ends) {
    (void) impl; /* where there is but one */
#if X86
    if (impl == MF_CUT_AVX2 || (impl == MF_CUT_BEST && mf_cut_available(MF_CUT_AVX2)))
        return cut_avx2(segment, data, n, last, ends);
#endif
    return cut_base(segment, data, n, last, ends);
}

size_t mf_cut_bound(size_t n) {
    /* Every chunk but the last of a run has MIN bytes at least; the first of the runs may be the end of a long row. */
    return n / MF_CUT_MIN + n / MF_LONG_ROW + 3;
}
