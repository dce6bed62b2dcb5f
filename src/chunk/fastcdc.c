#include "chunk/fastcdc.h"

#include "chunk/gear_table.h"

/* 18 bits would give 256 KiB on average; two more before the normal point and two fewer
 * after it narrow the spread. High bits: Gear's low bits have seen few bytes. */
#define MASK_BEFORE 0xFFFFF00000000000ull /* 20 bits */
#define MASK_AFTER 0xFFFF000000000000ull  /* 16 bits */

static size_t next_cut(const uint8_t *data, size_t n) {
    size_t normal = n < MF_CDC_NORMAL ? n : MF_CDC_NORMAL;
    size_t limit = n < MF_CDC_MAX ? n : MF_CDC_MAX;
    size_t i = MF_CDC_MIN;
    uint64_t hash = 0;
    if (n <= MF_CDC_MIN)
        return n;
    for (; i < normal; i++) {
        hash = (hash << 1) + mf_gear[data[i]];
        if (!(hash & MASK_BEFORE))
            return i + 1;
    }
    for (; i < limit; i++) {
        hash = (hash << 1) + mf_gear[data[i]];
        if (!(hash & MASK_AFTER))
            return i + 1;
    }
    return limit;
}

size_t mf_cdc_cut(const uint8_t *data, size_t n, int last, size_t *ends) {
    size_t at = 0, count = 0;
    while (at < n) {
        size_t left = n - at, cut;
        /* Without MAX bytes in view a cut could still depend on what follows. */
        if (!last && left < MF_CDC_MAX)
            break;
        cut = next_cut(data + at, left);
        at += cut;
        ends[count++] = at;
    }
    return count;
}

size_t mf_cdc_bound(size_t n) {
    return n / MF_CDC_MIN + 1;
}
