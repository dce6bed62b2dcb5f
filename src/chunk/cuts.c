#include "chunk/cuts.h"

#include <string.h>

#include "cpu/features.h"
#include "memory/little_endian.h"

/* The hash of a word comes of those of the words before it in six steps, which are the same for all words of a block.
 * They stand here twice: in C, one step after the other over a whole block, which compilers vectorise for what every
 * processor of an architecture has; and by hand for AVX2, all steps at once in registers, which compilers do not do.
 *
 * Measured on noise for words of 1, 2, 4 and 8 bytes: instructions per byte (callgrind, gcc 12), then GB per second of
 * CPU time on an AMD EPYC (Zen 4) whose other core was busy, of 1 MiB, in the second-level cache, and of 256 MiB.
 *
 *   base           5.1  2.7  2.7  1.6    3.6   6.7   6.1  10.4    3.0   5.1   5.2   7.8
 *   its C, -mavx2  2.6  1.3  0.8  0.6    5.9  10.4  17.1  21.1    4.2   7.4  11.3  12.1
 *   AVX2           1.7  1.0  0.7  0.6    8.5  14.5  20.8  23.1    6.8  10.1  12.9  12.6 */
#define INLINE static inline __attribute__((always_inline))
/* With gcc, base has 3.6 GB/s for bytes instead of 3.1. clang unrolls anyway, and where it is told to it does not
 * vectorise: 0.5 instead of 2.6. */
#if defined(__clang__)
#define UNROLLED
#else
#define UNROLLED _Pragma("GCC unroll 4")
#endif

/* The hash looks back over this many words: a hit needs a window that is one in 2^12 to 2^18, and booleans of which 5 %
 * are true show 2^18 different ones in 64 words, 2^5 in 16. Each doubling is a step more. */
#define WINDOW 64

/* Words hashed at once, by their width. The words around a block are hashed again with the next; behind a cut, half a
 * block is hashed in vain. For bytes, blocks of 1024, 2048 and 4096 take 1.89, 1.73 and 1.66 instructions a byte, the
 * last two the same time: 2048 leave more of the first-level cache. */
#define BLOCK(width) ((size_t) ((width) <= 2 ? 2048 : 1024))
#define LONGEST_BLOCK 2048
/* Words read before a block and behind it: of the first, the window, and what a pipeline needs to be filled. */
#define BEFORE 72
#define BEHIND 40
#define AROUND (BEFORE + BEHIND)
/* Words of which is noted together whether one may be a candidate, and words of which that is asked together. */
#define NOTED 32
#define ASKED 128

#define SPREAD 0x9E3779B1u
#define MULTIPLIERS 0x243F, 0x85A3, 0x1319, 0xA409, 0x299F, 0x31D1
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

/* A block and what is found in it. */
struct block {
    _Alignas(64) uint16_t lanes[LONGEST_BLOCK + AROUND + 32];
    /* Of each word, from 32 before the block on, the hash over 32 words, of which that over 64 is one step away: see
     * halves_of and place_of. */
    _Alignas(64) uint16_t halves[LONGEST_BLOCK + 4 * AROUND];
    /* For each NOTED words, by bit 2 i whether word i, i + 8, i + 16 or i + 24 may be a candidate. Odd bits mean
     * nothing. */
    uint16_t found[LONGEST_BLOCK / NOTED];
    int16_t greatest;
    _Alignas(64) uint16_t constants[8][16]; /* each once per lane */
    uint8_t copy[(BLOCK(8) + AROUND) * 8];
};

static const uint16_t constants[] = {MULTIPLIERS, SPREAD >> 16, SPREAD & 0xFFFF};

/* Fills in halves, found and greatest for the BLOCK words from data on. Of them and what follows, `words` may be read,
 * and BEFORE words before them; words that may not count as zeros. */
typedef void hash_block(const uint8_t *data, size_t words, struct block *block);

struct implementation {
    hash_block *hash[4]; /* for words of 1, 2, 4 and 8 bytes */
    int streams;
};

INLINE uint16_t *halves_of(struct block *block) {
    return block->halves + 2 * AROUND;
}

/* Where among halves word i is. Two streams are the halves of a block; 8 words of each lie side by side. */
INLINE size_t place_of(size_t i, int streams, size_t width) {
    size_t length = BLOCK(width) / 2;
    return streams == 1 ? i : i % length / 8 * 16 + i / length * 8 + i % 8;
}

INLINE int16_t hash_at(const uint16_t *half, int streams) {
    return (int16_t) (half[0] * (uint32_t) constants[5] + *(half - 32 * streams));
}

INLINE int16_t greatest_of(const uint16_t *halves, size_t start, size_t count, int streams, size_t width) {
    int16_t greatest = INT16_MIN;
    for (size_t i = start; i < start + count; i++) {
        int16_t hash = hash_at(halves + place_of(i, streams, width), streams);
        greatest = hash > greatest ? hash : greatest;
    }
    return greatest;
}

/* data, or a copy of it with zeros behind it where not all words that a block needs may be read. */
INLINE const uint8_t *readable(const uint8_t *data, size_t words, size_t behind, size_t width, struct block *block) {
    size_t needed = BLOCK(width) + behind;
    if (words < needed) {
        memcpy(block->copy, data - BEFORE * width, (BEFORE + words) * width);
        memset(block->copy + (BEFORE + words) * width, 0, (needed - words) * width);
        data = block->copy + BEFORE * width;
    }
    return data;
}

/* For each i, out[i] looks back over twice the words that in[i] does. Both end with the same word when a lane of out
 * is numbered `distance` less, so that stores are aligned. */
#define STEP(in, out, count, distance, multiplier, result)                                    \
    UNROLLED for (size_t i = 0; i < (count); i++) {                                           \
        uint16_t sum = (uint16_t) ((in)[i + (distance)] * (uint32_t) (multiplier) + (in)[i]); \
        (out)[i] = (uint16_t) (result);                                                       \
    }

#define HASH(width)                                                                       \
    static void hash_##width(const uint8_t *data, size_t words, struct block *block) {    \
        uint16_t *restrict a = block->lanes, *restrict b = halves_of(block) - 32;         \
        const size_t count = BLOCK(width) + WINDOW;                                       \
        data = readable(data, words, 1, width, block) - (WINDOW - 1) * width;             \
        UNROLLED for (size_t i = 0; i < count; i++)                                       \
            a[i] = lane_##width(data + i * width);                                        \
        /* The steps run over whole vectors. */                                           \
        memset(a + count, 0, 32 * sizeof *a);                                             \
        memset(b + count, 0, 32 * sizeof *b);                                             \
        STEP(a, b, count, 1, constants[0], sum);                                          \
        STEP(b, a, count, 2, constants[1], sum);                                          \
        STEP(a, b, count, 4, constants[2], sum);                                          \
        STEP(b, a, count, 8, constants[3], sum ^ sum >> 7);                               \
        STEP(a, b, BLOCK(width) + 32, 16, constants[4], sum);                             \
        block->greatest = INT16_MIN;                                                      \
        for (size_t i = 0; i < BLOCK(width) / NOTED; i++) {                               \
            int16_t greatest = greatest_of(halves_of(block), i * NOTED, NOTED, 1, width); \
            block->found[i] = greatest < CANDIDATE ? 0 : 0x5555;                          \
            block->greatest = greatest > block->greatest ? greatest : block->greatest;    \
        }                                                                                 \
    }

HASH(1)
HASH(2)
HASH(4)
HASH(8)

static const struct implementation base = {{hash_1, hash_2, hash_4, hash_8}, 1};

#if X86
#define AVX2 __attribute__((target("avx2")))
typedef uint16_t vector __attribute__((vector_size(32), may_alias));
#define I(v) ((__m256i) (v))
#define ALL(x) ((vector) _mm256_set1_epi16(x))
#define MAX(v, w) ((vector) _mm256_max_epi16(I(v), I(w)))
/* The words `distance` before those of now; 8 before them are those of before. */
#define EARLIER(before, now, distance) ((vector) _mm256_alignr_epi8(I(now), I(before), 16 - 2 * (distance)))

/* Two streams at once, eight words of each at a time: so a step looks back across a register within each half of it,
 * which is one instruction, where sixteen words of one stream take two. Each step takes what the step before it gave
 * the last time, so that no instruction waits for another: done one after the other, the steps of one register take
 * some 40 cycles, more than a processor looks ahead. */
struct pipeline {
    vector lane[2], of_2[2], of_4[2], of_8[2], of_16[3]; /* by words looked back over; the newest first */
};

/* Takes the lanes of eight words of each stream, and gives the hashes over 32 words of those five calls ago. */
INLINE AVX2 vector pass_on(struct pipeline *p, vector lane, const vector *constant) {
    vector of_32 = p->of_16[0] * constant[4] + p->of_16[2];
    vector sum = p->of_8[0] * constant[3] + p->of_8[1];
    p->of_16[2] = p->of_16[1];
    p->of_16[1] = p->of_16[0];
    p->of_16[0] = sum ^ sum >> 7;
    p->of_8[1] = p->of_8[0];
    p->of_8[0] = p->of_4[0] * constant[2] + EARLIER(p->of_4[1], p->of_4[0], 4);
    p->of_4[1] = p->of_4[0];
    p->of_4[0] = p->of_2[0] * constant[1] + EARLIER(p->of_2[1], p->of_2[0], 2);
    p->of_2[1] = p->of_2[0];
    p->of_2[0] = p->lane[0] * constant[0] + EARLIER(p->lane[1], p->lane[0], 1);
    p->lane[1] = p->lane[0];
    p->lane[0] = lane;
    return of_32;
}

INLINE AVX2 vector pair_of(const void *first, const void *second) {
    __m256i low = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *) first));
    return (vector) _mm256_inserti128_si256(low, _mm_loadu_si128((const __m128i *) second), 1);
}

INLINE AVX2 vector lanes_of(__m256i bytes, const vector *constant) {
    return (vector) bytes * constant[6] + (vector) _mm256_mulhi_epu16(bytes, I(constant[7]));
}

/* The same for the next sixteen words of each stream. Where they are bytes they are read themselves, else lanes. */
INLINE AVX2 void pass_twice(struct pipeline *p, const uint8_t *first, const uint8_t *second, size_t width,
                            const vector *constant, vector *out) {
    vector pair = pair_of(first, second);
    if (width == 1) {
        __m256i zero = _mm256_setzero_si256();
        out[0] = pass_on(p, lanes_of(_mm256_unpacklo_epi8(I(pair), zero), constant), constant);
        out[1] = pass_on(p, lanes_of(_mm256_unpackhi_epi8(I(pair), zero), constant), constant);
    } else {
        out[0] = pass_on(p, pair, constant);
        out[1] = pass_on(p, pair_of(first + 16, second + 16), constant);
    }
}

/* first: BEFORE words before the block. following: what is to be hashed next; two streams that end so soon are none to
 * the processor. Without it, 256 MiB of noise took 1.6 times as long. */
INLINE AVX2 void hash_avx2(const uint8_t *first, size_t width, const uint8_t *following, struct block *block) {
    const size_t length = BLOCK(width) / 2, size = width == 1 ? 1 : 2, step = 16 * size;
    const uint8_t *second = first + length * size;
    const vector *constant = (const vector *) block->constants;
    vector zero = ALL(0), greatest = ALL(INT16_MIN);
    vector *out = (vector *) halves_of(block) - AROUND / 8;
    struct pipeline p = {{zero, zero}, {zero, zero}, {zero, zero}, {zero, zero}, {zero, zero, zero}};
    int16_t each[16];
    for (size_t i = 0; i < AROUND / 16; i++, first += step, second += step, out += 2)
        pass_twice(&p, first, second, width, constant, out);
    for (size_t i = 0; i < length / NOTED; i++, first += 2 * step, second += 2 * step, out += 4) {
        vector best;
        uint32_t found;
        if (width == 1)
            __builtin_prefetch(following + i * 2 * NOTED);
        pass_twice(&p, first, second, width, constant, out);
        best = MAX(out[0] * constant[5] + out[-4], out[1] * constant[5] + out[-3]);
        pass_twice(&p, first + step, second + step, width, constant, out + 2);
        best = MAX(best, out[2] * constant[5] + out[-2]);
        best = MAX(best, out[3] * constant[5] + out[-1]);
        greatest = MAX(greatest, best);
        found = (uint32_t) _mm256_movemask_epi8(_mm256_cmpgt_epi16(I(best), I(ALL(CANDIDATE - 1))));
        block->found[i] = (uint16_t) found;
        block->found[i + length / NOTED] = (uint16_t) (found >> 16);
    }
    memcpy(each, &greatest, sizeof each);
    block->greatest = each[0];
    for (size_t i = 1; i < 16; i++)
        block->greatest = each[i] > block->greatest ? each[i] : block->greatest;
}

/* Not inlined, so that the compiler does not know the constants: it would keep them in registers, of which the pipeline
 * needs all. */
#define HASH_AVX2(width)                                                                            \
    AVX2 __attribute__((noinline)) static void hash_avx2_##width(const uint8_t *data, size_t words, \
                                                                 struct block *block) {             \
        const uint8_t *following = data + BLOCK(width) * width;                                     \
        data = readable(data, words, BEHIND, width, block) - BEFORE * width;                        \
        if (width > 1) {                                                                            \
            UNROLLED for (size_t i = 0; i < BLOCK(width) + AROUND; i++)                             \
                block->lanes[i] = lane_##width(data + i * width);                                   \
            data = (const uint8_t *) block->lanes;                                                  \
        }                                                                                           \
        hash_avx2(data, width, following, block);                                                   \
    }

HASH_AVX2(1)
HASH_AVX2(2)
HASH_AVX2(4)
HASH_AVX2(8)

static const struct implementation avx2 = {{hash_avx2_1, hash_avx2_2, hash_avx2_4, hash_avx2_8}, 2};
#endif

INLINE size_t end_of_unit(size_t end, size_t unit, size_t limit) {
    end += unit - 1;
    end -= end % unit;
    return end < limit ? end : limit;
}

/* The first hit among the ASKED words from `start` on, counted from there, or ASKED. The strict threshold is for words
 * below `normal`. */
INLINE size_t hit_of(const struct block *block, const uint16_t *halves, size_t start, size_t normal, int streams,
                     size_t width) {
    size_t hit = ASKED;
    uint64_t found = mf_load_64((const uint8_t *) (block->found + start / NOTED)) & 0x5555555555555555;
    for (; found; found &= found - 1) {
        size_t bit = (size_t) __builtin_ctzll(found), first = bit / 16 * NOTED + bit % 16 / 2;
        for (size_t i = first; i < first + NOTED; i += 8) {
            const uint16_t *half = halves + place_of(start + i, streams, width);
            int16_t hash = hash_at(half, streams);
            uint64_t threshold = THRESHOLD(start + i < normal ? STRICT : LOOSE, width);
            if (hash >= CANDIDATE && spread((uint32_t) hash << 16 | *half) < threshold && i < hit)
                hit = i;
        }
    }
    return hit;
}

/* The length of the chunk that begins at data, of a run of which n bytes are left. */
INLINE size_t next_cut(hash_block *hash, int streams, const uint8_t *data, size_t n, size_t unit, size_t width,
                       struct block *block) {
    size_t longest = MF_CUT_MAX - MF_CUT_MAX % unit, length = BLOCK(width);
    size_t limit = n < longest ? n : longest;
    const uint16_t *halves = halves_of(block);
    size_t words = limit / width, greatest_at = 0;
    int16_t greatest = INT16_MIN;
    if (n <= MF_CUT_MIN)
        return n;
    for (size_t first = MF_CUT_MIN / width - 1; first < words; first += length) {
        size_t count = words - first < length ? words - first : length;
        size_t normal = MF_CUT_NORMAL / width - 1;
        normal = normal > first ? normal - first : 0;
        hash(data + first * width, words - first, block);
        for (size_t start = 0; start < count; start += ASKED) {
            size_t hit = hit_of(block, halves, start, normal, streams, width);
            if (hit < ASKED && start + hit < count)
                return end_of_unit((first + start + hit + 1) * width, unit, limit);
        }
        if (count < length)
            block->greatest = greatest_of(halves, 0, count, streams, width);
        if (block->greatest >= greatest) {
            greatest = block->greatest;
            greatest_at = first;
        }
    }
    if (limit < longest)
        return limit;
    /* Windows so much alike that none is a hit. Cuts at the limit would not meet those of shifted data again: of 16 MiB
     * of booleans of which 0.3 % are true, 6.8 MB were new without the first 7; with this it is 0.3 MB. */
    hash(data + greatest_at * width, words - greatest_at, block);
    for (size_t i = words - greatest_at < length ? words - greatest_at : length; i--;)
        if (hash_at(halves + place_of(i, streams, width), streams) == greatest)
            return end_of_unit((greatest_at + i + 1) * width, unit, limit);
    return limit;
}

INLINE size_t cut(const struct implementation *by, struct mf_segment segment, const uint8_t *data, size_t n, int last,
                  size_t *ends) {
    size_t item = segment.itemsize ? segment.itemsize : 1;
    int long_rows = segment.row >= MF_LONG_ROW;
    size_t unit = long_rows || !segment.row ? item : segment.row;
    size_t row_left = long_rows ? segment.row - segment.start % segment.row : SIZE_MAX;
    size_t at = 0, count = 0;
    struct block block;
    for (size_t i = 0; i < 8; i++)
        for (size_t j = 0; j < 16; j++)
            block.constants[i][j] = constants[i];
    while (at < n) {
        size_t left = n - at, length;
        if (row_left <= left)
            left = row_left;
        else if (!last && left < MF_CUT_MAX)
            break; /* a cut could still depend on what follows */
        if (unit % 8 == 0)
            length = next_cut(by->hash[3], by->streams, data + at, left, unit, 8, &block);
        else if (unit % 4 == 0)
            length = next_cut(by->hash[2], by->streams, data + at, left, unit, 4, &block);
        else if (unit % 2 == 0)
            length = next_cut(by->hash[1], by->streams, data + at, left, unit, 2, &block);
        else
            length = next_cut(by->hash[0], by->streams, data + at, left, unit, 1, &block);
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

int mf_cut_available(enum mf_cut_impl impl) {
#if X86
    if (impl == MF_CUT_AVX2)
        return mf_cpu_has(MF_CPU_AVX2);
#endif
    return impl == MF_CUT_BEST || impl == MF_CUT_BASE;
}

size_t mf_cut(enum mf_cut_impl impl, struct mf_segment segment, const uint8_t *data, size_t n, int last, size_t *ends) {
    (void) impl; /* where there is but one */
#if X86
    if (impl == MF_CUT_AVX2 || (impl == MF_CUT_BEST && mf_cut_available(MF_CUT_AVX2)))
        return cut(&avx2, segment, data, n, last, ends);
#endif
    return cut(&base, segment, data, n, last, ends);
}

size_t mf_cut_bound(size_t n) {
    /* Every chunk but the last of a run has MIN bytes at least; the first of the runs may be the end of a long row. */
    return n / MF_CUT_MIN + n / MF_LONG_ROW + 3;
}
