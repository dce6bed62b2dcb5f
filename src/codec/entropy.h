/* How many bits the bytes of a plane need at least, each coded by itself: from a sample of them. */
#ifndef MFSTORE_CODEC_ENTROPY_H
#define MFSTORE_CODEC_ENTROPY_H
#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint32_t count[256];
    uint32_t total;
} mf_histogram;

/* Adds n bytes. */
void mf_histogram_add(mf_histogram *histogram, const uint8_t *src, size_t n);

/* What a sample is at most, and in runs of what it is taken. */
enum { MF_SAMPLE = 1024, MF_SAMPLE_RUN = 64 };

/* Sets it to the counts of length bytes, in runs from all over src; of all of it where that is no longer. length is 2
 * to MF_SAMPLE / MF_SAMPLE_RUN runs. */
void mf_histogram_sample(mf_histogram *histogram, const uint8_t *src, size_t n, size_t length);

/* sum = a + b; any of the three may be the same. */
void mf_histogram_sum(mf_histogram *sum, const mf_histogram *a, const mf_histogram *b);

/* Bits per byte, 0 to 8; 8 for an empty one. Right to 0.02 bits of a sample of 1 KiB of evenly distributed bytes: what
 * a sample does not show of rare values is added (Miller, Madow). */
float mf_bits(const mf_histogram *histogram);

#endif
