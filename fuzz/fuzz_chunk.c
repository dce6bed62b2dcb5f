/* mf_cut: cuts ascend, chunks keep their limits, and neither how the data arrives matters nor the implementation.
 *
 * Chunks are 16 to 256 KiB and inputs a few bytes, so the input describes the data: stretches
 * of noise, of one byte, and of the input repeated. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "chunk/cuts.h"
#include "fuzzing.h"

enum { HEADER = 8, STRETCH = 4 };
#define LIMIT (MF_CUT_MAX + 3 * MF_CUT_NORMAL)

static size_t expand(const uint8_t *data, size_t size, size_t n, uint8_t *out) {
    size_t at = 0;
    for (size_t i = 0; at < n; i += STRETCH) {
        size_t length = n - at;
        uint8_t kind = 0, value = 0;
        uint64_t state = i + 1;
        if (i + STRETCH <= size) {
            /* Lengths near powers of two reach the limits themselves. */
            size_t wanted = ((size_t) 1 << data[i + 1] % 22) + (int8_t) data[i + 2];
            kind = data[i];
            value = data[i + 3];
            state = (uint64_t) value << 32 | data[i + 2];
            if (wanted < length)
                length = wanted;
        }
        if (kind % 3 == 0) {
            for (size_t j = 0; j < length; j++) {
                state = state * 6364136223846793005u + 1442695040888963407u;
                out[at + j] = (uint8_t) (state >> 56);
            }
        } else if (kind % 3 == 1 || !size) {
            memset(out + at, value, length);
        } else {
            for (size_t j = 0; j < length; j++)
                out[at + j] = data[j % size];
        }
        at += length;
    }
    return at;
}

/* Cuts of a block of exactly n bytes into one of exactly the bound, shifted by base. */
static size_t cut_segment(enum mf_cut_impl impl, struct mf_segment segment, const uint8_t *data, size_t n, int last,
                          size_t base, size_t *ends) {
    size_t bound = mf_cut_bound(n);
    uint8_t *exact = malloc(n);
    size_t *room = malloc(bound * sizeof *room);
    size_t count;
    REQUIRE(room && (exact || !n));
    if (n)
        memcpy(exact, data, n);
    segment.start = base;
    count = mf_cut(impl, segment, exact, n, last, room);
    REQUIRE(count <= bound);
    for (size_t i = 0; i < count; i++)
        ends[i] = base + room[i];
    free(exact);
    free(room);
    return count;
}

static void check_segment(struct mf_segment segment, const size_t *ends, size_t count, size_t n, int last) {
    size_t unit = segment.itemsize ? segment.itemsize : 1, before = 0;
    size_t run = segment.row >= MF_LONG_ROW ? segment.row : SIZE_MAX;
    if (segment.row && segment.row < MF_LONG_ROW)
        unit = segment.row;
    for (size_t i = 0; i < count; i++) {
        int run_ends = ends[i] % run == 0 || (last && i + 1 == count);
        REQUIRE(ends[i] > before && ends[i] <= n);
        REQUIRE(ends[i] - before <= MF_CUT_MAX);
        REQUIRE(before / run == (ends[i] - 1) / run);
        REQUIRE(run_ends || (ends[i] % run % unit == 0 && ends[i] - before >= MF_CUT_MIN));
        before = ends[i];
    }
    REQUIRE(last ? before == n : n - before < MF_CUT_MAX);
}

static void segments(const uint8_t *bytes, size_t n, size_t split, struct mf_segment segment) {
    size_t bound = mf_cut_bound(n) * 2 + 8, count = 0, first, tail;
    size_t *whole = malloc(bound * sizeof *whole), *parts = malloc(bound * sizeof *parts);
    REQUIRE(whole && parts);
    for (int impl = 0; impl < MF_CUT_IMPLS; impl++) {
        size_t again;
        if (!mf_cut_available(impl))
            continue;
        again = cut_segment(impl, segment, bytes, n, 1, 0, parts);
        if (impl == 0) {
            count = again;
            memcpy(whole, parts, count * sizeof *whole);
            check_segment(segment, whole, count, n, 1);
        }
        REQUIRE(again == count && !memcmp(whole, parts, count * sizeof *whole));
    }
    first = cut_segment(MF_CUT_BEST, segment, bytes, split, 0, 0, parts);
    check_segment(segment, parts, first, split, 0);
    tail = first ? parts[first - 1] : 0;
    first += cut_segment(MF_CUT_BEST, segment, bytes + tail, n - tail, 1, tail, parts + first);
    REQUIRE(first == count && !memcmp(whole, parts, count * sizeof *whole));
    free(whole);
    free(parts);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint32_t a, b;
    size_t n;
    uint8_t *bytes;
    if (size < HEADER)
        return 0;
    memcpy(&a, data, 4);
    memcpy(&b, data + 4, 4);
    n = a % (a & 0x80000000u ? LIMIT : MF_CUT_MIN * 3);
    bytes = malloc(n);
    REQUIRE(bytes || !n);
    REQUIRE(expand(data + HEADER, size - HEADER, n, bytes) == n);
    segments(bytes, n, n ? b % (n + 1) : 0,
             (struct mf_segment) {.itemsize = data[3] & 15, .row = data[3] & 16 ? b >> 14 : 0});
    free(bytes);
    return 0;
}
