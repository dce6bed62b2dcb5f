/* Zstandard frames whose blocks end where parts of packed planes end (codec/sparse.h).
 *
 * A block has one table of codes for all its bytes, and a chunk of 64 KiB is one block: the high bytes of numbers that
 * need three bits, and the lowest of mantissas that need eight, would share a table. Differences of a network's weights
 * from those of an earlier checkpoint, zstd-1: share of chunks of 64 KiB that is left, microseconds to encode one and
 * to decode one:
 *
 *                                       one block          blocks by part
 *   float32, a training at 1e-3         0.714,  90, 51     0.694,  99, 55
 *   float32, a fine-tuning at 1e-5      0.639,  78, 46     0.600,  91, 26
 *   bfloat16, a training at 1e-3        0.564,  93, 51     0.542, 103, 54
 *   bfloat16, a fine-tuning at 1e-5     0.239,  93, 42     0.222, 104, 43
 *   float64, moved by 1e-6 of itself    0.594,  87, 36     0.546,  78, 12
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
