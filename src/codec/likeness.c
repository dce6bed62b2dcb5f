#include "codec/likeness.h"

#include <string.h>

#include "codec/difference.h"
#include "codec/entropy.h"
#include "codec/shuffle.h"

enum {
    BLOCK = 64,
    PERIOD = 8, /* blocks that repeat 1, 2, 4 or 8 bytes tell nothing */

    /* Places of the base are known by the 16 bytes there: every 64 bytes of a base of 64 KiB, more rarely of a longer
     * one, so that the table stays small. */
    KEY = 16,
    TABLE_LOG_MIN = 6,
    TABLE_LOG = 12,
    PLACES = 1024,
    /* A window of the chunk as long as the step between places meets exactly one of them if the base has it, however it
     * is shifted. One window for 4 KiB tells shares to about an eighth. */
    WINDOW_FOR = 4096,
    WINDOWS_MIN = 8,
    WINDOWS_MAX = 64,
    LONG_ENOUGH = 48,

    /* A sixteenth is counted, within bounds: 256 numbers of 8 bytes at least. */
    SAMPLED = 16,
    SAMPLE_MIN = 2048,
    SAMPLE = 4096,
    RUN = 128,
    MAX_WIDTH = 8,

    /* Seven eighths equal in place: nothing is to be estimated any more. */
    MOST = 8,
    FEW = 8
};

static uint64_t load(const uint8_t *at) {
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static unsigned key_of(const uint8_t *at, unsigned table_log) {
    uint64_t mixed = (load(at) * 0x9E3779B97F4A7C15u ^ load(at + 8)) * 0xC2B2AE3D27D4EB4Fu;
    return (unsigned) (mixed >> (64 - table_log));
}

static int repeats(const uint8_t *block) {
    return load(block) == load(block + PERIOD) && !memcmp(block, block + PERIOD, BLOCK - PERIOD);
}

static void compare_in_place(const uint8_t *src, size_t n, const uint8_t *base, size_t base_size,
                             mf_likeness *likeness) {
    for (size_t at = 0; at + BLOCK <= n; at += BLOCK) {
        if (repeats(src + at))
            continue;
        likeness->telling += BLOCK;
        if (at + BLOCK <= base_size && !memcmp(src + at, base + at, BLOCK))
            likeness->equal += BLOCK;
    }
}

/* Whether src and base, equal for KEY bytes at these places, are so for LONG_ENOUGH bytes around them. */
static int is_long(const uint8_t *src, size_t n, size_t at, const uint8_t *base, size_t base_size, size_t place) {
    size_t length = KEY, before = 0;
    while (length < LONG_ENOUGH && at + length < n && place + length < base_size
           && src[at + length] == base[place + length])
        length++;
    while (length + before < LONG_ENOUGH && before < at && before < place
           && src[at - before - 1] == base[place - before - 1])
        before++;
    return length + before >= LONG_ENOUGH;
}

static void look_everywhere(const uint8_t *src, size_t n, const uint8_t *base, size_t base_size,
                            mf_likeness *likeness) {
    uint32_t table[1 << TABLE_LOG];
    unsigned table_log = TABLE_LOG_MIN;
    size_t step = BLOCK, windows = n / WINDOW_FOR, hits = 0, telling = 0;
    if (n < BLOCK || base_size < LONG_ENOUGH)
        return;
    while (base_size / step > PLACES)
        step *= 2;
    /* Four for each place, so that few have one key; the table of a short base is soon cleared. */
    while (table_log < TABLE_LOG && ((size_t) 1 << table_log) < 4 * (base_size / step))
        table_log++;
    memset(table, 0, sizeof *table << table_log);
    for (size_t place = 0; place + KEY <= base_size; place += step)
        table[key_of(base + place, table_log)] = (uint32_t) place + 1;
    windows = windows < WINDOWS_MIN ? WINDOWS_MIN : windows > WINDOWS_MAX ? WINDOWS_MAX : windows;
    for (size_t i = 0; i < windows; i++) {
        size_t at = i * (n - BLOCK) / windows, end = at + step;
        if (repeats(src + at))
            continue;
        telling++;
        for (; at < end && at + KEY <= n; at++) {
            uint32_t place = table[key_of(src + at, table_log)];
            if (place-- && !memcmp(src + at, base + place, KEY) && is_long(src, n, at, base, base_size, place)) {
                hits++;
                break;
            }
        }
    }
    if (telling)
        likeness->found = (size_t) ((double) likeness->telling * (double) hits / (double) telling);
}

/* Bytes that n would take by the codes of a sample. */
static size_t coded(const uint8_t *sample, size_t length, unsigned width, size_t n) {
    uint8_t shuffled[SAMPLE];
    mf_histogram plane;
    size_t planes = width ? width : 1, count = length / planes;
    float bits = 0.0f;
    if (width) {
        mf_shuffle(sample, shuffled, length, width);
        sample = shuffled;
    }
    for (size_t j = 0; j < planes; j++) {
        memset(&plane, 0, sizeof plane);
        mf_histogram_add(&plane, sample + j * count, count);
        bits += mf_bits(&plane);
    }
    return (size_t) ((double) n * bits / (8.0 * (double) planes));
}

static void compare_codes(const uint8_t *src, const uint8_t *base, size_t n, size_t base_size, unsigned width,
                          mf_likeness *likeness) {
    uint8_t plain[SAMPLE], old[SAMPLE], changed[SAMPLE];
    size_t length = n / SAMPLED < SAMPLE_MIN ? SAMPLE_MIN : n / SAMPLED > SAMPLE ? SAMPLE : n / SAMPLED;
    size_t runs = length / RUN;
    int whole = n <= length;
    if (whole)
        runs = 1;
    length = whole ? n : runs * RUN;
    for (size_t i = 0; i < runs; i++) {
        size_t at = whole ? 0 : i * (n - RUN) / (runs - 1) / MAX_WIDTH * MAX_WIDTH;
        size_t run = whole ? n : RUN;
        memcpy(plain + i * RUN, src + at, run);
        if (n == base_size)
            memcpy(old + i * RUN, base + at, run);
    }
    likeness->plain = coded(plain, length, width, n);
    if (n != base_size)
        return;
    mf_differences(plain, old, changed, length, width);
    likeness->changed = coded(changed, length, width, n);
}

void mf_compare(const uint8_t *src, size_t n, const uint8_t *base, size_t base_size, unsigned width,
                mf_likeness *likeness) {
    *likeness = (mf_likeness) {0, 0, 0, n, n};
    compare_in_place(src, n, base, base_size, likeness);
    likeness->found = likeness->equal;
    if (likeness->equal > likeness->telling / MOST * (MOST - 1))
        return;
    compare_codes(src, base, n, base_size, width, likeness);
    /* Half of it is enough to know that a prefix pays. Of few different numbers, 48 bytes are found anywhere. */
    if (likeness->equal <= likeness->telling / 2 && likeness->plain > n / FEW)
        look_everywhere(src, n, base, base_size, likeness);
    if (likeness->found < likeness->equal)
        likeness->found = likeness->equal;
}
