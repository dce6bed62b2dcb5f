/* Chunks encoded as what differs from a base: other bytes that the reader has (docs/format.md).
 *
 *   PREFIX      one Zstandard frame whose matches may reach into the base, which lies before the chunk. Any lengths.
 *   DIFFERENCE  the numbers of the chunk minus those of the base, shuffled and packed (codec/sparse.h): a byte that
 *               says which planes lie sparse, and a Zstandard frame. Without a width, a frame of the bytes XOR those of
 *               the base. Base and chunk are of one length.
 *
 * After either lies its seal: XXH3-64 (seed 0) of what is before, 8 bytes, little-endian. It tells a damaged
 * delta from a damaged base without the base. It authenticates nothing: what is decoded from a wrong base is found by
 * the id of the chunk.
 *
 * Bases and chunks have at most MF_CHUNK_LIMIT bytes. Nothing of one call is left in the context for the next. */
#ifndef MFSTORE_CODEC_DELTA_H
#define MFSTORE_CODEC_DELTA_H
#include <stddef.h>
#include <stdint.h>

#include "codec/compress.h"

enum mf_delta { MF_PREFIX = 3, MF_DIFFERENCE = 4 };

#define MF_SEAL_LENGTH ((size_t) 8)

/* How long a delta of n bytes can be at most. */
size_t mf_delta_bound(size_t n);

/* Encodes src[0:n] into dst[0:cap]; none overlaps another (PREFIX would find nothing in the base). *size is the
 * encoded length with its seal, or 0 when it does not fit cap (Zstandard gives up a few bytes before it is full). */
int mf_delta_encode(mf_codec_ctx *ctx, const uint8_t *src, size_t n, const uint8_t *base, size_t base_size,
                    unsigned codec, unsigned width, int level, uint8_t *dst, size_t cap, size_t *size);

/* Writes dst[0:usize], or is an error; dst may then hold anything. Never writes outside it. dst overlaps neither src
 * nor base. */
int mf_delta_decode(mf_codec_ctx *ctx, const uint8_t *src, size_t csize, const uint8_t *base, size_t base_size,
                    unsigned codec, unsigned width, uint8_t *dst, size_t usize);

/* 1 if src[0:csize] ends with the seal of what is before it, else 0. */
int mf_delta_is_sealed(const uint8_t *src, size_t csize);

#endif
