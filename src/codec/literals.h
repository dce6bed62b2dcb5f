/* Bytes that repeat nothing but have rare and frequent values, such as the exponents of floats, as a Zstandard frame
 * (RFC 8878) of one block of literals: Huffman codes, and no search for matches. Any reader of Zstandard decodes it. */
#ifndef MFSTORE_CODEC_LITERALS_H
#define MFSTORE_CODEC_LITERALS_H
#include <stddef.h>
#include <stdint.h>

/* A frame takes so many bytes at least and at most: one block. */
#define MF_LITERALS_LEAST ((size_t) 1 << 10)
#define MF_LITERALS_MOST ((size_t) 128 << 10)

/* Encodes src[0:n] into dst[0:cap]. Returns the length of the frame, or 0, having written nothing, when that is longer
 * than cap, or n is none of those. */
size_t mf_literals_encode(const uint8_t *src, size_t n, uint8_t *dst, size_t cap);

/* Whether bytes are about as frequent as each other, so that no frame is much shorter: by a sample of n bytes, where n
 * is MF_LITERALS_LEAST or more. It has runs of 64, so that bytes that come again soon are no noise. */
int mf_is_noise(const uint8_t *src, size_t n);

/* Whether a search for matches may find a shorter frame: by a sample of n bytes, where n is one of those. */
int mf_repeats(const uint8_t *src, size_t n);

#endif
