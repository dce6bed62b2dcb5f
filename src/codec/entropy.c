#include "codec/entropy.h"

#include <string.h>

/* One row of logarithms more than there are values: for that of the total. */
enum { VALUES = 256, LANES = 8, LOGS = VALUES + LANES };

void mf_histogram_add(mf_histogram *histogram, const uint8_t *src, size_t n) {
    for (size_t i = 0; i < n; i++)
        histogram->count[src[i]]++;
    histogram->total += (uint32_t) n;
}

void mf_histogram_sum(mf_histogram *sum, const mf_histogram *a, const mf_histogram *b) {
    for (size_t i = 0; i < VALUES; i++)
        sum->count[i] = a->count[i] + b->count[i];
    sum->total = a->total + b->total;
}

/* log2 of x[0:LOGS], each at least 1, right to 0.0002. In loops that compilers make vector instructions of: with the
 * library's logarithm the estimates would take as long as a codec. */
static void log2_of(const float *restrict x, float *restrict logs) {
    uint32_t bits[LOGS];
    float m[LOGS];
    memcpy(bits, x, sizeof bits);
    for (size_t i = 0; i < LOGS; i++) {
        logs[i] = (float) ((int32_t) (bits[i] >> 23) - 127);
        bits[i] = (bits[i] & 0x7FFFFF) | 0x3F800000;
    }
    memcpy(m, bits, sizeof m);
    for (size_t i = 0; i < LOGS; i++) {
        float y = m[i] - 1.0f;
        logs[i] += y * (1.4380733f + y * (-0.6747668f + y * (0.3170007f + y * -0.0803073f)));
    }
}

float mf_bits(const mf_histogram *histogram) {
    float counts[LOGS], logs[LOGS], total = (float) histogram->total, bits;
    /* Sums of their own for each lane: floats are not added in another order than that written. */
    float sums[LANES] = {0.0f};
    int32_t seen = 0;
    if (!histogram->total)
        return 8.0f;
    for (size_t i = 0; i < VALUES; i++) {
        int32_t count = (int32_t) histogram->count[i];
        seen += count > 0;
        counts[i] = (float) (count > 0 ? count : 1);
    }
    for (size_t i = VALUES; i < LOGS; i++)
        counts[i] = total;
    log2_of(counts, logs);
    /* A value that is not there has the logarithm of 1 and adds nothing. */
    for (size_t i = 0; i < VALUES; i += LANES)
        for (size_t k = 0; k < LANES; k++)
            sums[k] += counts[i + k] * logs[i + k];
    for (size_t k = 1; k < LANES; k++)
        sums[0] += sums[k];
    /* 0.7213 = 1 / (2 ln 2) */
    bits = logs[VALUES] - sums[0] / total + 0.7213f * (float) (seen - 1) / total;
    return bits < 0.0f ? 0.0f : bits > 8.0f ? 8.0f : bits;
}
