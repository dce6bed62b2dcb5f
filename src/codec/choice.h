/* The smallest delta of a chunk, and none where a look at both says that none can pay.
 *
 * Microseconds for 64 KiB on one core, and what is left, beside what the same chunk is without a base (zstd-1, of
 * numbers shuffled):
 *
 *                                   without        the look   PREFIX level 3   XOR level 1
 *   float64, 50 of 20000 edited     0.931, 105         4       0.004,  42      0.007,  51
 *   float64, each tenth edited      0.694,  98        18       0.038,  71      0.187, 180
 *   pickle, texts replaced          0.601, 181         9       0.005,  44      0.835,  75
 *   SQLite, 100 rows updated        0.676, 157         4       0.002,  40      0.006,  12
 *   float32, 100 steps of 1e-3      0.924,  74        13       0.926, 122      0.760,  96
 *   bfloat16, 100 steps of 1e-3     0.774,  95        11       0.779, 122      0.497, 105
 *   bfloat16, 100 steps of 1e-4     0.774,  92        11       0.724, 590      0.307,  95
 *   float64, moved by 1e-6          0.931, 111        18       0.951, 171      0.558,  94
 *   unrelated text                  0.517, 166         8       0.399, 497      0.739,  73
 *   unrelated float64, 2 decimals   0.702,  84        16       0.413, 411      0.763, 113
 *   unrelated noise                 1.000,  10         9       1.000,  52      1.000,  16
 *
 * DIFFERENCE leaves less than XOR, in whose place it is: of bfloat16 weights 0.445 for 0.497 and 0.267 for 0.307.
 * PREFIX at level 3 takes 2 to 9 microseconds more than at level 1 where it pays, for up to six times less (each tenth
 * edited: 0.235 at level 1). Where it does not pay it takes several times what encoding without a base does: so it is
 * not tried there. */
#ifndef MFSTORE_CODEC_CHOICE_H
#define MFSTORE_CODEC_CHOICE_H
#include <stddef.h>
#include <stdint.h>

#include "codec/compress.h"

typedef struct {
    size_t size;    /* encoded length with its seal; 0: no delta of at most cap bytes was found */
    unsigned codec;
    unsigned width;
} mf_delta_choice;

/* Encodes src[0:n] on its base into dst[0:cap], by whichever codec gives less. width is the length of a number (0, 2, 4
 * or 8); level is that of Zstandard, and at least 3 for PREFIX. */
int mf_delta_best(mf_codec_ctx *ctx, const uint8_t *src, size_t n, const uint8_t *base, size_t base_size,
                  unsigned width, int level, uint8_t *dst, size_t cap, mf_delta_choice *choice);

#endif
