/* Zstandard frames whose blocks end where parts of packed planes end (codec/sparse.h).
 *
 * A block has one table of codes for all its bytes, and a chunk of 64 KiB is one block: the high bytes of numbers that
 * need three bits, and the lowest of mantissas that need eight, would share a table. Weights of a network XOR those of
 * an earlier checkpoint, shuffled, zstd-1: share of chunks of 64 KiB that is left, microseconds to decode one:
 *
 *                                       one block     blocks by plane
 *   float32, 100 steps of 1e-3          0.790, 49       0.760, 40
 *   float32, 100 steps of 1e-4          0.712, 43       0.658, 28
 *   bfloat16, 100 steps of 1e-3         0.505, 51       0.497, 50
 *   float64, moved by 1e-6 of itself    0.602, 32       0.558, 15
 *
 * Encoding takes as long: choosing the blocks takes 3 of 75 to 105 microseconds.
 *
 * To a reader these are ordinary frames. */
#ifndef MFSTORE_CODEC_BLOCKS_H
#define MFSTORE_CODEC_BLOCKS_H
#include <stddef.h>
#include <stdint.h>
#include <zstd.h>

#include "codec/sparse.h"

/* Compresses the parts of src into dst[0:cap]. Returns what ZSTD_compressCCtx returns; compress is left without
 * parameters. */
size_t mf_compress_blocks(ZSTD_CCtx *compress, const uint8_t *src, const mf_packed *packed, int level, uint8_t *dst,
                          size_t cap);

#endif
