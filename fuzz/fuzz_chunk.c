/* mf_cdc_cut: cuts ascend, chunks keep their limits, and how the data arrives does not matter.
 *
 * Chunks are 64 KiB to 1 MiB and inputs a few bytes, so the input describes the data: stretches
 * of noise, of one byte, and of the input repeated. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "chunk/fastcdc.h"

#define REQUIRE(condition)      \
    do {                        \
        if (!(condition))       \
            __builtin_trap();   \
    } while (0)

enum { HEADER = 8, STRETCH = 4 };
#define LIMIT (4 * MF_CDC_MAX + 3)

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
static size_t cut(const uint8_t *data, size_t n, int last, size_t base, size_t *ends) {
    size_t bound = mf_cdc_bound(n);
    uint8_t *exact = malloc(n);
    size_t *room = malloc(bound * sizeof *room);
    size_t count;
    REQUIRE(room && (exact || !n));
    if (n)
        memcpy(exact, data, n);
    count = mf_cdc_cut(exact, n, last, room);
    REQUIRE(count <= bound);
    for (size_t i = 0; i < count; i++)
        ends[i] = base + room[i];
    free(exact);
    free(room);
    return count;
}

static void check(const size_t *ends, size_t count, size_t n, int last) {
    size_t before = 0;
    for (size_t i = 0; i < count; i++) {
        REQUIRE(ends[i] > before && ends[i] <= n);
        REQUIRE(ends[i] - before <= MF_CDC_MAX);
        /* Only the end of the data makes a short chunk. */
        REQUIRE(ends[i] - before >= MF_CDC_MIN || (last && i + 1 == count));
        before = ends[i];
    }
    REQUIRE(last ? before == n : n - before < MF_CDC_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint32_t a, b;
    size_t n, split, bound, count, first, pieces, tail;
    size_t *whole, *parts;
    uint8_t *bytes;
    if (size < HEADER)
        return 0;
    memcpy(&a, data, 4);
    memcpy(&b, data + 4, 4);
    n = a % (a & 0x80000000u ? LIMIT : MF_CDC_MIN * 3);
    split = n ? b % (n + 1) : 0;
    bytes = malloc(n);
    REQUIRE(bytes || !n);
    REQUIRE(expand(data + HEADER, size - HEADER, n, bytes) == n);

    /* Twice the bound: two pieces may need one more than the whole before they are compared. */
    bound = 2 * mf_cdc_bound(n) + 2;
    whole = malloc(bound * sizeof *whole);
    parts = malloc(bound * sizeof *parts);
    count = cut(bytes, n, 1, 0, whole);
    check(whole, count, n, 1);

    first = cut(bytes, split, 0, 0, parts);
    check(parts, first, split, 0);
    tail = first ? parts[first - 1] : 0;
    pieces = first + cut(bytes + tail, n - tail, 1, tail, parts + first);
    REQUIRE(pieces == count);
    REQUIRE(!memcmp(whole, parts, count * sizeof *whole));

    free(bytes);
    free(whole);
    free(parts);
    return 0;
}
