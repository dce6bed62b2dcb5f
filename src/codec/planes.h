/* Exponent planes: numbers of 2, 4 or 8 bytes are turned left by one bit, so that the sign comes last and the exponent
 * of a float fills the highest byte, and split into byte planes, the highest first. Each plane is a Zstandard frame of
 * its own, with Huffman codes of its own (codec/literals.h), or lies there as it is when it is noise, as mantissas are.
 *
 * Encoded: the lengths of the planes (4 bytes each), the planes, the n % width bytes at the end. A plane whose length
 * is n / width is stored as it is. scratch holds n bytes; src and dst must not overlap. */
#ifndef MFSTORE_CODEC_PLANES_H
#define MFSTORE_CODEC_PLANES_H
#include <stddef.h>
#include <stdint.h>
#include <zstd.h>

/* As mf_encode: *size is 0 when what is encoded does not fit cap. level 0: samples tell which planes are searched for
 * matches; any other: all of them, with a larger table. */
int mf_planes_encode(ZSTD_CCtx *compress, const uint8_t *src, size_t n, unsigned width, int level,
                     uint8_t *scratch, uint8_t *dst, size_t cap, size_t *size);

/* Writes at most n bytes to dst and n to scratch, whatever src says. */
int mf_planes_decode(ZSTD_DCtx *decompress, const uint8_t *src, size_t csize, unsigned width, uint8_t *scratch,
                     uint8_t *dst, size_t n);

#endif
