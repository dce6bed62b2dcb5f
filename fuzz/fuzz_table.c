/* mf_table_find and mf_table_sorted against linear scans, in tables sorted and not. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "table/lookup.h"
#include "fuzzing.h"

enum { HEADER = 4, SORT = 1, SHORT_FORM = 2, TERSE = 4 };

static int by_id(const void *a, const void *b) {
    return memcmp(a, b, MF_ID);
}

/* Few input bytes make an id that differs from others in one place only: most of a table's
 * difficulty is in equal prefixes, which mutation of whole ids would hardly ever make. */
static void short_form(uint8_t *id, const uint8_t *from) {
    memset(id, from[0] & 1 ? 0xFF : 0x00, MF_ID);
    id[from[1] % MF_ID] = from[2];
}

/* Digests look like this: interpolation should work. */
static void terse(uint8_t *id, const uint8_t *from) {
    uint64_t state = (uint64_t) from[0] << 16 | (uint64_t) from[1] << 8 | from[2];
    for (size_t i = 0; i < MF_ID; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        id[i] = (uint8_t) (state >> 56);
    }
}

static void make_id(uint8_t *id, const uint8_t *from, unsigned flags) {
    if (flags & SHORT_FORM)
        short_form(id, from);
    else
        terse(id, from);
}

static int strictly_ascending(const uint8_t *table, size_t n, size_t stride) {
    for (size_t i = 1; i < n; i++)
        if (memcmp(table + (i - 1) * stride, table + i * stride, MF_ID) >= 0)
            return 0;
    return 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    size_t stride, n, m, *found;
    uint8_t *table, *ids;
    unsigned flags, expand;
    int ascending;
    if (size < HEADER)
        return 0;
    flags = data[0];
    stride = MF_ID + data[1] % 64;
    m = data[2];
    expand = flags & (SHORT_FORM | TERSE);
    data += HEADER;
    size -= HEADER;

    n = expand ? size / 3 : size / stride;
    table = malloc(n * stride);
    for (size_t i = 0; i < n; i++) {
        if (expand) {
            memset(table + i * stride, 0xA5, stride);
            make_id(table + i * stride, data + 3 * i, flags);
        } else {
            memcpy(table + i * stride, data + i * stride, stride);
        }
    }
    if (flags & SORT && n) {
        size_t kept = 1;
        uint8_t *exact;
        qsort(table, n, stride, by_id);
        for (size_t i = 1; i < n; i++)
            if (memcmp(table + (kept - 1) * stride, table + i * stride, MF_ID) != 0) {
                memmove(table + kept * stride, table + i * stride, stride);
                kept++;
            }
        /* A smaller block, so that reading the dropped entries is out of bounds. */
        exact = malloc(kept * stride);
        memcpy(exact, table, kept * stride);
        free(table);
        table = exact;
        n = kept;
    }

    ids = malloc(m * MF_ID);
    found = malloc(m * sizeof *found);
    for (size_t i = 0; i < m; i++) {
        uint8_t *id = ids + i * MF_ID;
        uint8_t pick[3] = {(uint8_t) i, (uint8_t) (i * 7), (uint8_t) (i * 29)};
        if (n && i % 4 != 3) {
            /* Ids that are there, and their neighbours. */
            memcpy(id, table + (i * 2654435761u + size) % n * stride, MF_ID);
            if (i % 4 == 1)
                id[MF_ID - 1]++;
            else if (i % 4 == 2)
                id[i % MF_ID] ^= (uint8_t) (1u << i / MF_ID);
        } else if (i % 8 == 3 && size >= MF_ID) {
            memcpy(id, data + i % (size - MF_ID + 1), MF_ID);
        } else {
            make_id(id, pick, flags);
        }
        found[i] = 0x5A5A5A5A;
    }

    ascending = strictly_ascending(table, n, stride);
    REQUIRE(ascending == mf_table_sorted(table, n, stride));
    mf_table_find(table, n, stride, ids, m, found);
    for (size_t i = 0; i < m; i++) {
        size_t expected = MF_ABSENT;
        /* Whatever the table, a hit is a hit. */
        REQUIRE(found[i] == MF_ABSENT || found[i] < n);
        REQUIRE(found[i] == MF_ABSENT || !memcmp(table + found[i] * stride, ids + i * MF_ID, MF_ID));
        if (!ascending)
            continue;
        for (size_t j = 0; j < n && expected == MF_ABSENT; j++)
            if (!memcmp(table + j * stride, ids + i * MF_ID, MF_ID))
                expected = j;
        REQUIRE(found[i] == expected);
    }
    free(table);
    free(ids);
    free(found);
    return 0;
}
