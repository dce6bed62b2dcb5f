#include "codec/sparse.h"

#include <string.h>

#include "codec/status.h"

enum {
    STRIDE = 8,
    /* Of 32 KiB in which bytes that are not 0 come at random, sparse ones took 0.5 to 0.8 times as much by zstd-1 where
     * these are 3 to 30 %, 0.9 to 1 where they are 50 to 60 %, and 1.01 beyond; 1.1 to 1.2 where they are 1 %, which
     * are found as matches. */
    FEWEST = 48,
    MOST_OF = 3,
    MOST = 2,
    /* So are few that lie side by side: of rows replaced in a matrix, 1.02 times. Below this share there have to be as
     * many strides with one of them as a third of them would fill. */
    FEW = 8,
    SCATTERED = 3
};

typedef struct {
    size_t others;  /* bytes that are not 0 */
    size_t strides; /* with one at least; those of the last count % STRIDE bytes are left out */
} census;

static size_t map_length(size_t count) {
    return (count + STRIDE - 1) / STRIDE;
}

/* Sums of bytes in bytes, and no jumps: compilers make vector instructions of it. */
static census count_others(const uint8_t *src, size_t count) {
    census found = {0, 0};
    while (count) {
        size_t some = count < 128 ? count : 128;
        uint8_t others = 0;
        for (size_t i = 0; i < some; i++)
            others = (uint8_t) (others + (src[i] != 0));
        found.others += others;
        for (size_t i = 0; i + STRIDE <= some; i += STRIDE) {
            uint64_t stride;
            memcpy(&stride, src + i, sizeof stride);
            found.strides += stride != 0;
        }
        src += some;
        count -= some;
    }
    return found;
}

/* Short planes have a map of more than what it saves. */
static int is_sparse(census found, size_t count) {
    if (found.others + map_length(count) >= count || found.others > count / MOST_OF * MOST)
        return 0;
    return found.others >= count / FEW
           || (found.others >= count / FEWEST && found.strides * STRIDE >= found.others * SCATTERED);
}

/* The bytes behind those that were not 0 are written too, which is_sparse leaves room for. */
static uint8_t *pack(const uint8_t *restrict src, uint8_t *restrict map, uint8_t *restrict others, size_t count) {
    for (size_t i = 0; i < count; i += STRIDE) {
        size_t some = count - i < STRIDE ? count - i : STRIDE;
        unsigned bits = 0;
        for (size_t k = 0; k < some; k++) {
            unsigned is = src[i + k] != 0;
            *others = src[i + k];
            others += is;
            bits |= is << k;
        }
        *map++ = (uint8_t) bits;
    }
    return others;
}

static void add_part(mf_packed *packed, size_t end) {
    if (end > (packed->parts ? packed->ends[packed->parts - 1] : 0))
        packed->ends[packed->parts++] = end;
}

const uint8_t *mf_pack_planes(const uint8_t *restrict src, uint8_t *restrict out, size_t n, unsigned width,
                              mf_packed *packed) {
    size_t count = n / width, at = 0;
    census found[MF_MAX_PLANES];
    packed->parts = packed->sparse = 0;
    for (unsigned j = 0; j < width; j++) {
        found[j] = count_others(src + j * count, count);
        packed->sparse |= (unsigned) is_sparse(found[j], count) << j;
    }
    for (unsigned j = 0; j < width; j++) {
        const uint8_t *plane = src + j * count;
        if (packed->sparse >> j & 1) {
            pack(plane, out + at, out + at + map_length(count), count);
            add_part(packed, at += map_length(count));
            at += found[j].others;
        } else {
            if (packed->sparse)
                memcpy(out + at, plane, count);
            at += count;
        }
        add_part(packed, at);
    }
    if (packed->sparse)
        memcpy(out + at, src + width * count, n - width * count);
    add_part(packed, at + n - width * count);
    return packed->sparse ? out : src;
}

/* For each byte of a map, of each byte of a stride which of the next bytes it is, and NOTHING where it is 0; then how
 * many there are. A row for each map makes loads of what would be shifts and masks: 6 instructions a byte for 13. */
#define BIT(map, k) ((map) >> (k) & 1)
#define BELOW(map, k)                                                                                              \
    ((k > 0 ? BIT(map, 0) : 0) + (k > 1 ? BIT(map, 1) : 0) + (k > 2 ? BIT(map, 2) : 0) + (k > 3 ? BIT(map, 3) : 0) \
     + (k > 4 ? BIT(map, 4) : 0) + (k > 5 ? BIT(map, 5) : 0) + (k > 6 ? BIT(map, 6) : 0) + (k > 7 ? BIT(map, 7) : 0))
#define PLACE(map, k) (BIT(map, k) ? BELOW(map, k) : NOTHING)
#define ROW(map)                                                                                         \
    {{PLACE(map, 0), PLACE(map, 1), PLACE(map, 2), PLACE(map, 3), PLACE(map, 4), PLACE(map, 5), PLACE(map, 6), \
      PLACE(map, 7)}, BELOW(map, 8)}
#define ROWS_4(map) ROW(map), ROW((map) + 1), ROW((map) + 2), ROW((map) + 3)
#define ROWS_16(map) ROWS_4(map), ROWS_4((map) + 4), ROWS_4((map) + 8), ROWS_4((map) + 12)
#define ROWS_64(map) ROWS_16(map), ROWS_16((map) + 16), ROWS_16((map) + 32), ROWS_16((map) + 48)

enum { NOTHING = STRIDE };
static const struct {
    uint8_t places[STRIDE];
    uint8_t taken;
} rows[256] = {ROWS_64(0), ROWS_64(64), ROWS_64(128), ROWS_64(192)};

/* STRIDE bytes of a plane; returns how many of `others` they took, of which all STRIDE may be read. */
static inline size_t unpack_some(unsigned map, const uint8_t *restrict others, uint8_t *restrict out) {
    uint8_t next[STRIDE + 1];
    memcpy(next, others, STRIDE);
    next[NOTHING] = 0;
    for (unsigned k = 0; k < STRIDE; k++)
        out[k] = next[rows[map].places[k]];
    return rows[map].taken;
}

/* Reads at most `left` bytes of others, and returns how many it took; more than left if there are not as many. */
static size_t unpack(const uint8_t *restrict map, const uint8_t *restrict others, size_t left, uint8_t *restrict out,
                     size_t count) {
    size_t taken = 0, i = 0;
    for (; i + STRIDE <= count && left - taken >= STRIDE; i += STRIDE)
        taken += unpack_some(map[i / STRIDE], others + taken, out + i);
    for (; i < count; i++) {
        if (!(map[i / STRIDE] >> i % STRIDE & 1))
            out[i] = 0;
        else if (taken < left)
            out[i] = others[taken++];
        else
            return left + 1;
    }
    return taken;
}

int mf_unpack_planes(const uint8_t *restrict packed, size_t length, uint8_t *restrict out, size_t n, unsigned width,
                     unsigned sparse) {
    size_t count = n / width, map = map_length(count);
    if (sparse >> width)
        return MF_MALFORMED;
    for (unsigned j = 0; j < width; j++) {
        size_t taken = count;
        if (sparse >> j & 1) {
            if (length < map)
                return MF_SHORT;
            taken = unpack(packed, packed + map, length - map, out + j * count, count);
            if (taken > length - map)
                return MF_SHORT;
            taken += map;
        } else {
            if (length < count)
                return MF_SHORT;
            memcpy(out + j * count, packed, count);
        }
        packed += taken;
        length -= taken;
    }
    if (length != n - width * count)
        return length < n - width * count ? MF_SHORT : MF_MALFORMED;
    memcpy(out + width * count, packed, length);
    return MF_OK;
}
