/* Byte shuffle: byte j of every element goes to plane j, so that the bytes that vary little (exponents, high bytes of
 * counters) lie together. The n % width bytes at the end are copied. Widths 2, 4 and 8; any other is MF_BAD_WIDTH (a
 * width of 16 ran at 0.5 GB/s against 7 to 50 and is 8 for every type that has it: complex128 is two doubles). src
 * and dst must not overlap. */
#ifndef MFSTORE_CODEC_SHUFFLE_H
#define MFSTORE_CODEC_SHUFFLE_H
#include <stddef.h>
#include <stdint.h>

int mf_shuffle(const uint8_t *src, uint8_t *dst, size_t n, unsigned width);
int mf_unshuffle(const uint8_t *src, uint8_t *dst, size_t n, unsigned width);

#endif
