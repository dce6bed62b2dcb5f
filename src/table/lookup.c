#include "table/lookup.h"

#include <string.h>

static uint64_t prefix(const uint8_t *id) {
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value = value << 8 | id[i];
    return value;
}

static size_t find_one(const uint8_t *table, size_t n, size_t stride, const uint8_t *id) {
    size_t low = 0, high = n; /* the answer, if any, is in [low, high) */
    uint64_t want = prefix(id), below = 0, above = UINT64_MAX;
    int probes = 0;
    while (low < high) {
        size_t middle;
        int order;
        const uint8_t *entry;
        /* Interpolation converges in a few probes for digests; after eight the keys are not
         * uniform (crafted, or damaged) and bisection bounds the cost. */
        if (probes++ < 8 && above > below && want >= below && want <= above)
            middle = low + (size_t) ((double) (want - below) / ((double) (above - below) + 1.0) *
                                     (double) (high - low));
        else
            middle = low + (high - low) / 2;
        if (middle >= high)
            middle = high - 1;
        entry = table + middle * stride;
        order = memcmp(entry, id, MF_ID);
        if (order == 0)
            return middle;
        if (order < 0) {
            low = middle + 1;
            below = prefix(entry);
        } else {
            high = middle;
            above = prefix(entry);
        }
    }
    return MF_ABSENT;
}

void mf_table_find(const uint8_t *table, size_t n, size_t stride, const uint8_t *ids, size_t m,
                   size_t *found) {
    for (size_t i = 0; i < m; i++)
        found[i] = find_one(table, n, stride, ids + i * MF_ID);
}

int mf_table_sorted(const uint8_t *table, size_t n, size_t stride) {
    for (size_t i = 1; i < n; i++)
        if (memcmp(table + (i - 1) * stride, table + i * stride, MF_ID) >= 0)
            return 0;
    return 1;
}
