#include "codec/entropy.h"

#include <string.h>

void mf_histogram_add(mf_histogram *histogram, const uint8_t *src, size_t n) {
    /* Two tables: with one, equal bytes one after another would each wait for the last one's store. */
    uint32_t other[256] = {0};
    size_t i = 0;
    for (; i + 2 <= n; i += 2) {
        histogram->count[src[i]]++;
        other[src[i + 1]]++;
    }
    if (i < n)
        histogram->count[src[i]]++;
    for (i = 0; i < 256; i++)
        histogram->count[i] += other[i];
    histogram->total += (uint32_t) n;
}

void mf_histogram_sum(mf_histogram *sum, const mf_histogram *a, const mf_histogram *b) {
    for (size_t i = 0; i < 256; i++)
        sum->count[i] = a->count[i] + b->count[i];
    sum->total = a->total + b->total;
}

/* log2 of x >= 1, right to 0.0002. Written so that compilers make vector instructions of a loop around it: with the
 * library's, the estimates would take as long as the codecs. */
static inline float log2_of(float x) {
    uint32_t bits;
    float m;
    int32_t exponent;
    memcpy(&bits, &x, sizeof bits);
    exponent = (int32_t) (bits >> 23) - 127;
    bits = (bits & 0x7FFFFF) | 0x3F800000;
    memcpy(&m, &bits, sizeof m);
    m -= 1.0f;
    return (float) exponent + m * (1.4380733f + m * (-0.6747668f + m * (0.3170007f + m * -0.0803073f)));
}

float mf_bits(const mf_histogram *histogram) {
    float lost = 0.0f, total = (float) histogram->total, bits;
    int32_t seen = 0;
    if (!histogram->total)
        return 8.0f;
    for (size_t i = 0; i < 256; i++) {
        int32_t count = (int32_t) histogram->count[i];
        lost += (float) count * log2_of((float) (count > 0 ? count : 1));
        seen += count > 0;
    }
    /* 0.7213 = 1 / (2 ln 2) */
    bits = log2_of(total) - lost / total + 0.7213f * (float) (seen - 1) / total;
    return bits < 0.0f ? 0.0f : bits > 8.0f ? 8.0f : bits;
}
