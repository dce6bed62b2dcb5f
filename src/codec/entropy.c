#include "codec/entropy.h"

#include <string.h>

/* One row of logarithms more than there are values: for that of the total. */
enum { VALUES = 256, LANES = 8, LOGS = VALUES + LANES };

enum {
    /* Bytes from which on a sample is counted in several tables: where a value comes again, adding to its count waits
     * for the last addition. 1024 bytes of pickles took 3.0 us in one table, and 1.2 in four. */
    APART = 256,
    TABLES = 4
};

void mf_histogram_add(mf_histogram *histogram, const uint8_t *src, size_t n) {
    uint32_t counts[TABLES - 1][VALUES];
    size_t i = 0;
    if (n >= APART) {
        memset(counts, 0, sizeof counts);
        for (; i + TABLES <= n; i += TABLES) {
            histogram->count[src[i]]++;
            for (size_t k = 1; k < TABLES; k++)
                counts[k - 1][src[i + k]]++;
        }
        for (size_t value = 0; value < VALUES; value++)
            for (size_t k = 1; k < TABLES; k++)
                histogram->count[value] += counts[k - 1][value];
    }
    for (; i < n; i++)
        histogram->count[src[i]]++;
    histogram->total += (uint32_t) n;
}

void mf_histogram_sample(mf_histogram *histogram, const uint8_t *src, size_t n, size_t length) {
    uint8_t sample[MF_SAMPLE];
    size_t runs = length / MF_SAMPLE_RUN;
    memset(histogram, 0, sizeof *histogram);
    if (n <= length) {
        mf_histogram_add(histogram, src, n);
        return;
    }
    for (size_t i = 0; i < runs; i++)
        memcpy(sample + i * MF_SAMPLE_RUN, src + i * ((n - MF_SAMPLE_RUN) / (runs - 1)), MF_SAMPLE_RUN);
    mf_histogram_add(histogram, sample, runs * MF_SAMPLE_RUN);
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
