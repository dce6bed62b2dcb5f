#include "codec/literals.h"

#include <string.h>

#include "codec/entropy.h"
#include "cpu/features.h"
#include "memory/little_endian.h"

#define INLINE static inline __attribute__((always_inline))

/* The format is that of RFC 8878: 3.1.1 of frames and blocks, 4.1 of FSE, 4.2 of Huffman codes.
 *
 * 16 KiB of exponents of float32 noise take 18 us (AMD EPYC, Zen 5, whose other core was busy), of which counting takes
 * 5 and writing codes 7; Zstandard without much of a search (planes.c) takes 25 for as many bytes. 16 KiB of noise take
 * 1 us instead of 7. */
enum {
    VALUES = 256,
    STREAMS = 4,
    LONGEST = 11,   /* bits of a code */
    ROUND = 5,      /* codes put between two stores: 5 * LONGEST and what is left of a byte fit 64 bits */
    WEIGHTS = LONGEST + 1,
    WEIGHT_LOG = 6, /* of the FSE table of the weights */
    WEIGHT_STATES = 1 << WEIGHT_LOG,
    TREE = 128,     /* most bytes of a tree, and one more */
    DIRECT = 128,   /* most weights that can be stored as 4 bits each */
    FRAME = 4 + 1 + 4 + 3,
    JUMPS = 6,
    MAGIC = 0xFD2FB528u
};

/* In so many windows, spread evenly, each position is looked up in a table as small as that of the search (planes.c).
 * Bytes in no order match by chance: 2 % of them where one holds 2 bits. The search gains from 50 % of such matches on,
 * at 0.8 bits; before, it makes frames a fifth longer. So who finds matches tries both. */
enum { WINDOWS = 8, WINDOW = 128, SLOTS_LOG = 6, MATCH = 7, MOST_MATCHES = WINDOWS * WINDOW / 64 };
/* A sample that holds more bits a byte than this is noise. It is right to 0.02 bits, and a plane that pays (planes.c)
 * holds 7.75 at most. */
enum { SAMPLE = 1024, RUN = 64 };
#define NOISE 7.85f

static int is_constant(const uint8_t *src, size_t n) {
    return !memcmp(src, src + 1, n - 1);
}

int mf_repeats(const uint8_t *src, size_t n) {
    unsigned matches = 0;
    if (is_constant(src, n))
        return 0; /* nothing is shorter than what literals make of it */
    for (size_t w = 0; w < WINDOWS; w++) {
        const uint8_t *window = src + (n - WINDOW - 8) / (WINDOWS - 1) * w;
        uint8_t seen[1 << SLOTS_LOG] = {0};
        for (size_t i = 1; i < WINDOW; i++) {
            uint64_t here = mf_load_64(window + i) << (64 - 8 * MATCH);
            size_t slot = (size_t) (here * 0xCF1BBCDCBFA56300u >> (64 - SLOTS_LOG));
            matches += mf_load_64(window + seen[slot]) << (64 - 8 * MATCH) == here;
            seen[slot] = (uint8_t) i;
        }
    }
    return matches > MOST_MATCHES;
}

int mf_is_noise(const uint8_t *src, size_t n) {
    mf_histogram sample;
    memset(&sample, 0, sizeof sample);
    for (size_t i = 0; i < SAMPLE / RUN; i++)
        mf_histogram_add(&sample, src + (n - RUN) / (SAMPLE / RUN - 1) * i, RUN);
    return mf_bits(&sample) > NOISE;
}

/* Of each stream by itself: then it is known where each begins, and no count waits for that of a neighbour. */
static void count(const uint8_t *src, size_t n, uint32_t (*counts)[VALUES]) {
    size_t each = (n + STREAMS - 1) / STREAMS, last = n - (STREAMS - 1) * each, i = 0;
    memset(counts, 0, STREAMS * sizeof *counts);
    for (; i + 8 <= last; i += 8) {
        uint64_t words[STREAMS];
        for (unsigned k = 0; k < STREAMS; k++)
            words[k] = mf_load_64(src + k * each + i);
        for (unsigned j = 0; j < 8; j++)
            for (unsigned k = 0; k < STREAMS; k++, words[k - 1] >>= 8)
                counts[k][words[k] & 0xFF]++;
    }
    for (unsigned k = 0; k < STREAMS; k++)
        for (size_t at = i; at < (k + 1 < STREAMS ? each : last); at++)
            counts[k][src[k * each + at]]++;
}

struct codes {
    uint64_t of[VALUES]; /* of each value: the code in the highest bits, its length in the lowest eight; 0: none */
    uint8_t lengths[VALUES];
    unsigned longest, last; /* the longest code, and the greatest value that there is */
};

/* Ascending. Shell's sort: most planes have some twenty values, none more than 256. */
static void sort(uint32_t *keys, size_t n) {
    static const size_t gaps[] = {57, 23, 10, 4, 1};
    for (size_t g = 0; g < sizeof gaps / sizeof *gaps; g++) {
        for (size_t i = gaps[g]; i < n; i++) {
            uint32_t key = keys[i];
            size_t j = i;
            for (; j >= gaps[g] && keys[j - gaps[g]] > key; j -= gaps[g])
                keys[j] = keys[j - gaps[g]];
            keys[j] = key;
        }
    }
}

/* Lengths of Huffman codes for n counts, ascending, at least two of them; none is longer than LONGEST. */
static void code_lengths(const uint32_t *counts, size_t n, uint8_t *lengths) {
    uint32_t sums[VALUES];
    uint16_t parents[2 * VALUES];
    uint8_t depths[VALUES];
    size_t leaf = 0, node = 0;
    uint32_t space = 0;
    /* Nodes are made in ascending order too, so that the least two are always at the head of one of both queues. */
    for (size_t made = 0; made < n - 1; made++) {
        uint32_t sum = 0;
        for (unsigned k = 0; k < 2; k++) {
            if (leaf < n && (node >= made || counts[leaf] <= sums[node])) {
                sum += counts[leaf];
                parents[leaf++] = (uint16_t) made;
            } else {
                sum += sums[node];
                parents[VALUES + node++] = (uint16_t) made;
            }
        }
        sums[made] = sum;
    }
    for (size_t i = n - 1; i--;)
        depths[i] = i + 2 < n ? (uint8_t) (depths[parents[VALUES + i]] + 1) : 0;
    for (size_t i = 0; i < n; i++) {
        unsigned depth = depths[parents[i]] + 1u;
        lengths[i] = (uint8_t) (depth < LONGEST ? depth : LONGEST);
        space += 1u << (LONGEST - lengths[i]);
    }
    /* Where codes were cut short there are too many: the rarest others get longer ones. */
    for (size_t i = 0; space > 1u << LONGEST;) {
        if (lengths[i] == LONGEST) {
            i++;
            continue;
        }
        lengths[i]++;
        space -= 1u << (LONGEST - lengths[i]);
    }
    /* What that left over goes to the longest codes, the most frequent of them first: all space is a multiple of what
     * such a code takes, so that it comes out even. */
    while (space < 1u << LONGEST) {
        size_t longest = n - 1;
        for (size_t i = n - 1; i--;)
            if (lengths[i] > lengths[longest])
                longest = i;
        space += 1u << (LONGEST - lengths[longest]);
        lengths[longest]--;
    }
}

static void make_codes(const uint32_t *counts, size_t all, struct codes *codes) {
    uint32_t keys[VALUES], sorted[VALUES] = {0}, next[LONGEST + 2] = {0};
    uint32_t least = (uint32_t) (all >> LONGEST);
    uint8_t lengths[VALUES];
    size_t n = 0;
    memset(codes, 0, sizeof *codes);
    for (unsigned value = 0; value < VALUES; value++)
        if (counts[value])
            keys[n++] = counts[value] << 8 | value;
    sort(keys, n);
    /* As if none came less often than the longest code says: of exponents of float16 codes then take what is possible,
     * where cutting long ones short takes 0.15 % more, and up to 2 % of other bytes. */
    for (size_t i = 0; i < n; i++)
        sorted[i] = keys[i] >> 8 > least ? keys[i] >> 8 : least;
    code_lengths(sorted, n, lengths);
    for (size_t i = 0; i < n; i++) {
        unsigned value = keys[i] & 0xFF;
        codes->lengths[value] = lengths[i];
        codes->longest = lengths[i] > codes->longest ? lengths[i] : codes->longest;
        codes->last = value > codes->last ? value : codes->last;
        next[lengths[i]]++;
    }
    /* The longest codes come first, from 0 on; of a length, in the order of the values. */
    for (uint32_t length = codes->longest, code = 0; length; length--) {
        uint32_t count = next[length];
        next[length] = code;
        code = (code + count) >> 1;
    }
    for (unsigned value = 0; value <= codes->last; value++) {
        unsigned length = codes->lengths[value];
        if (length)
            codes->of[value] = (uint64_t) next[length]++ << (64 - length) | length;
    }
}

/* Bits of up to 128 bytes, one field after the other. */
struct bits {
    uint64_t held;
    unsigned count;
    uint8_t *to;
};

static void put(struct bits *out, unsigned value, unsigned count) {
    out->held |= (uint64_t) value << out->count;
    out->count += count;
    for (; out->count >= 8; out->count -= 8, out->held >>= 8)
        *out->to++ = (uint8_t) out->held;
}

static void finish(struct bits *out) {
    if (out->count)
        *out->to++ = (uint8_t) out->held;
    out->count = 0;
    out->held = 0;
}

/* counts become shares of the states, none of what is there less than 1. */
static void normalize(const unsigned *counts, unsigned total, unsigned *shares) {
    unsigned sum = 0;
    for (unsigned w = 0; w < WEIGHTS; w++) {
        shares[w] = (counts[w] * WEIGHT_STATES + total / 2) / total;
        if (counts[w] && !shares[w])
            shares[w] = 1;
        sum += shares[w];
    }
    while (sum != WEIGHT_STATES) {
        unsigned most = 0;
        for (unsigned w = 1; w < WEIGHTS; w++)
            most = shares[w] > shares[most] ? w : most;
        shares[most] += sum < WEIGHT_STATES ? 1u : -1u;
        sum += sum < WEIGHT_STATES ? 1u : -1u;
    }
}

static void put_shares(struct bits *out, const unsigned *shares) {
    unsigned left = WEIGHT_STATES + 1, threshold = WEIGHT_STATES, bits = WEIGHT_LOG + 1, before = 1;
    put(out, WEIGHT_LOG - 5, 4);
    for (unsigned w = 0; w < WEIGHTS && left > 1; w++) {
        unsigned most, share;
        if (!before) {
            /* How many more have none. */
            unsigned none = w;
            while (!shares[w])
                w++;
            for (none = w - none; none >= 3; none -= 3)
                put(out, 3, 2);
            put(out, none, 2);
        }
        before = share = shares[w];
        most = 2 * threshold - 1 - left;
        left -= share++;
        if (share >= threshold)
            share += most;
        put(out, share, bits - (share < most));
        while (left < threshold) {
            bits--;
            threshold >>= 1;
        }
    }
    finish(out);
}

static unsigned floor_log2(unsigned x) {
    return 31u - (unsigned) __builtin_clz(x);
}

/* The n weights as FSE codes, by two states in turns. Returns the bytes that takes, 0 when all weights are equal. */
static size_t put_weights(const uint8_t *weights, size_t n, uint8_t *dst) {
    unsigned counts[WEIGHTS] = {0}, shares[WEIGHTS], firsts[WEIGHTS], total = 0, state[2] = {0}, at = 0;
    uint8_t spread[WEIGHT_STATES], states[WEIGHT_STATES];
    struct bits out = {0, 0, dst};
    for (size_t i = 0; i < n; i++)
        counts[weights[i]]++;
    for (unsigned w = 0; w < WEIGHTS; w++)
        if (counts[w] == n)
            return 0;
    normalize(counts, (unsigned) n, shares);
    put_shares(&out, shares);
    for (unsigned w = 0; w < WEIGHTS; w++) {
        firsts[w] = total;
        total += shares[w];
        for (unsigned i = 0; i < shares[w]; i++) {
            spread[at] = (uint8_t) w;
            at = (at + (WEIGHT_STATES >> 1) + (WEIGHT_STATES >> 3) + 3) % WEIGHT_STATES;
        }
    }
    for (unsigned i = 0; i < WEIGHT_STATES; i++)
        states[firsts[spread[i]]++] = (uint8_t) i;
    /* From the last weight to the first, as they are decoded in the other direction. */
    for (size_t i = n; i--;) {
        unsigned share = shares[weights[i]], first = firsts[weights[i]] - share, *of = &state[i & 1], bits;
        if (i + 2 >= n) {
            /* The first state may be any of this weight. */
            *of = WEIGHT_STATES + states[first];
            continue;
        }
        bits = WEIGHT_LOG - floor_log2(share);
        bits -= *of >> bits < share;
        put(&out, *of & ((1u << bits) - 1), bits);
        *of = WEIGHT_STATES + states[first + (*of >> bits) - share];
    }
    put(&out, state[1] & (WEIGHT_STATES - 1), WEIGHT_LOG);
    put(&out, state[0] & (WEIGHT_STATES - 1), WEIGHT_LOG);
    put(&out, 1, 1);
    finish(&out);
    return (size_t) (out.to - dst);
}

/* The tree as weights of all values but the last, which follows from them. Returns its bytes, 0 when it has no form. */
static size_t put_tree(const struct codes *codes, uint8_t *dst) {
    uint8_t weights[VALUES] = {0}, coded[2 * VALUES];
    size_t n = codes->last, size;
    for (size_t value = 0; value < n; value++)
        if (codes->lengths[value])
            weights[value] = (uint8_t) (codes->longest + 1 - codes->lengths[value]);
    size = n > 1 ? put_weights(weights, n, coded) : 0;
    if (size && size < TREE && (size < (n + 1) / 2 || n > DIRECT)) {
        dst[0] = (uint8_t) size;
        memcpy(dst + 1, coded, size);
        return 1 + size;
    }
    if (n > DIRECT)
        return 0;
    dst[0] = (uint8_t) (127 + n);
    for (size_t i = 0; i < n; i += 2)
        dst[1 + i / 2] = (uint8_t) (weights[i] << 4 | weights[i + 1]);
    return 1 + (n + 1) / 2;
}

/* A stream is written from its last byte to its first, since it is read from its end on. */
struct stream {
    const uint8_t *start, *from; /* of its bytes; behind the next one */
    uint8_t *to, *end;
    uint64_t held; /* what is to be stored next, in the highest bits */
    uint64_t count; /* of those bits, in the lowest eight */
};

#define PUT_CODE(s, mask)                                     \
    do {                                                      \
        uint64_t code = codes[*--s##_from];                   \
        s##_held = s##_held >> (code & 63) | (code & (mask)); \
        s##_count += code;                                    \
    } while (0)

#define PUT_HELD(s)                                               \
    do {                                                          \
        mf_store_64(s##_to, s##_held >> (64 - (s##_count & 63))); \
        s##_to += s##_count >> 3 & 7;                             \
        s##_count &= 7;                                           \
    } while (0)

/* Two streams at a time, of which one waits for nothing of the other; b is as long or shorter. Of the last code of a
 * round the length must not be among the bits; those of the others are shifted out. In variables, as compilers leave
 * structures in memory here. */
INLINE void put_both(const uint64_t *restrict codes, struct stream *a, struct stream *b) {
    const uint8_t *a_from = a->from, *b_from = b->from, *b_first = b->start + ROUND;
    uint8_t *a_to = a->to, *b_to = b->to, *a_last = a->end - 8, *b_last = b->end - 8;
    uint64_t a_held = 0, b_held = 0, a_count = 0, b_count = 0;
    while (b_from >= b_first && a_to <= a_last && b_to <= b_last) {
        for (unsigned i = 1; i < ROUND; i++) {
            PUT_CODE(a, UINT64_MAX);
            PUT_CODE(b, UINT64_MAX);
        }
        PUT_CODE(a, ~(uint64_t) 0xFF);
        PUT_CODE(b, ~(uint64_t) 0xFF);
        PUT_HELD(a);
        PUT_HELD(b);
    }
    *a = (struct stream) {a->start, a_from, a_to, a->end, a_held, a_count};
    *b = (struct stream) {b->start, b_from, b_to, b->end, b_held, b_count};
}

static void put_both_base(const uint64_t *codes, struct stream *a, struct stream *b) {
    put_both(codes, a, b);
}

#if X86
/* Shifts by any register. */
__attribute__((target("bmi2"))) static void put_both_bmi2(const uint64_t *codes, struct stream *a, struct stream *b) {
    put_both(codes, a, b);
}
#endif

static void put_rest(const uint64_t *codes, struct stream *s) {
    while (s->from > s->start) {
        uint64_t code = codes[*--s->from];
        s->held = s->held >> (code & 63) | (code & ~(uint64_t) 0xFF);
        for (s->count += code & 63; s->count >= 8; s->count -= 8)
            *s->to++ = (uint8_t) (s->held >> (64 - s->count));
    }
    *s->to = (uint8_t) ((s->count ? s->held >> (64 - s->count) : 0) | 1u << s->count);
}

static uint8_t *put_frame_header(uint8_t *dst, size_t n, unsigned type, size_t size) {
    unsigned wide = n > UINT16_MAX + VALUES;
    mf_store_32(dst, MAGIC);
    /* One segment, whose length follows. */
    dst[4] = (uint8_t) (1 << 5 | (wide ? 2 : 1) << 6);
    dst += 5;
    if (wide)
        mf_store_32(dst, (uint32_t) n);
    else
        mf_store_16(dst, (uint16_t) (n - VALUES));
    dst += wide ? 4 : 2;
    size = size << 3 | type << 1 | 1;
    for (unsigned i = 0; i < 3; i++)
        *dst++ = (uint8_t) (size >> (8 * i));
    return dst;
}

size_t mf_literals_encode(const uint8_t *src, size_t n, uint8_t *dst, size_t cap) {
    uint32_t counts[STREAMS][VALUES], all[VALUES];
    size_t each = (n + STREAMS - 1) / STREAMS, sizes[STREAMS], literals, block, tree_size;
    unsigned size_bits;
    uint8_t tree[TREE + 1], *to;
    struct codes codes;
    uint64_t header;
    if (n < MF_LITERALS_LEAST || n > MF_LITERALS_MOST)
        return 0;
    if (is_constant(src, n)) {
        if (cap <= FRAME)
            return 0;
        to = put_frame_header(dst, n, 1, n);
        *to++ = src[0];
        return (size_t) (to - dst);
    }
    count(src, n, counts);
    for (unsigned value = 0; value < VALUES; value++)
        all[value] = counts[0][value] + counts[1][value] + counts[2][value] + counts[3][value];
    make_codes(all, n, &codes);
    tree_size = put_tree(&codes, tree);
    if (!tree_size)
        return 0;
    literals = tree_size + JUMPS;
    for (unsigned k = 0; k < STREAMS; k++) {
        size_t bits = 0;
        for (unsigned value = 0; value <= codes.last; value++)
            bits += (size_t) counts[k][value] * codes.lengths[value];
        sizes[k] = bits / 8 + 1;
        literals += sizes[k];
    }
    size_bits = n < 1 << 14 && literals < 1 << 14 ? 14 : 18;
    block = (4 + 2 * size_bits + 7) / 8 + literals + 1;
    if (FRAME + block > cap || block >= n)
        return 0;
    to = put_frame_header(dst, n, 2, block);
    header = 2 | (size_bits == 14 ? 2u : 3u) << 2 | (uint64_t) n << 4 | (uint64_t) literals << (4 + size_bits);
    for (unsigned i = 0; i < (4 + 2 * size_bits + 7) / 8; i++)
        *to++ = (uint8_t) (header >> (8 * i));
    memcpy(to, tree, tree_size);
    to += tree_size;
    for (unsigned k = 0; k < STREAMS - 1; k++)
        mf_store_16(to + 2 * k, (uint16_t) sizes[k]);
    to += JUMPS;
    for (unsigned k = 0; k < STREAMS; k += 2) {
        const uint8_t *middle = src + (k + 1) * each, *end = k + 2 < STREAMS ? middle + each : src + n;
        struct stream a = {middle - each, middle, to, to + sizes[k], 0, 0};
        struct stream b = {middle, end, a.end, a.end + sizes[k + 1], 0, 0};
#if X86
        (mf_cpu_has(MF_CPU_BMI2) ? put_both_bmi2 : put_both_base)(codes.of, &a, &b);
#else
        put_both_base(codes.of, &a, &b);
#endif
        put_rest(codes.of, &a);
        put_rest(codes.of, &b);
        to = b.end;
    }
    *to++ = 0; /* no sequences */
    return (size_t) (to - dst);
}
