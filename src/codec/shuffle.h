/* Byte shuffle: byte j of element i moves to j * count + i, so that bytes alike lie together. And the split into planes
 * of numbers that are turned left by one bit before (codec/planes.h).
 *
 * Widths 2, 4 and 8; any other is MF_BAD_WIDTH, and nothing is written (a width of 16 ran at 0.5 GB/s against 7 to 50
 * and is 8 for every type that has it: complex128 is two doubles). The n % width bytes at the end are copied. src and
 * dst must not overlap. */
#ifndef MFSTORE_CODEC_SHUFFLE_H
#define MFSTORE_CODEC_SHUFFLE_H
#include <stddef.h>
#include <stdint.h>

int mf_shuffle(const uint8_t *src, uint8_t *dst, size_t n, unsigned width);
int mf_unshuffle(const uint8_t *src, uint8_t *dst, size_t n, unsigned width);

/* count numbers; dst takes the planes back to back, the highest bytes first. */
int mf_split(const uint8_t *src, uint8_t *dst, size_t count, unsigned width);

/* The reverse: planes are width pointers to count bytes each, the highest bytes first. */
int mf_join(const uint8_t *const *planes, uint8_t *dst, size_t count, unsigned width);

#endif
