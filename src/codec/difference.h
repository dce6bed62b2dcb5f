/* Numbers as their differences from those of a base, which are near 0 where each has moved a little.
 *
 * With a width w of 2, 4 or 8 numbers are little-endian, d = number - base modulo 2^(8w), and what stands for it is
 * (d << 1) ^ (d < 0 ? -1 : 0): the sign is the lowest bit, so that the high bytes of small differences are 0. The n mod
 * w bytes at the end, and all bytes with width 0, are XORed with those of the base. */
#ifndef MFSTORE_CODEC_DIFFERENCE_H
#define MFSTORE_CODEC_DIFFERENCE_H
#include <stddef.h>
#include <stdint.h>

/* out[0:n] becomes the differences of src[0:n] from base[0:n]. None overlaps another; width is 0, 2, 4 or 8. */
void mf_differences(const uint8_t *restrict src, const uint8_t *restrict base, uint8_t *restrict out, size_t n,
                    unsigned width);

/* Differences in data[0:n] become the numbers again. */
void mf_add_differences(uint8_t *restrict data, const uint8_t *restrict base, size_t n, unsigned width);

#endif
