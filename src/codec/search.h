/* How Zstandard looks for matches: by a level of its own, or by one of ours, which say what long inputs are searched
 * for, however long the input is. All are ordinary frames to a reader.
 *
 * Zstandard's levels 1 and 3 are far apart in what they cost, and what is better depends on the bytes: in a pickle of
 * records, matches of five bytes some thousand bytes back take more than the bytes themselves. Groups of 1.5 MiB, size
 * beside level 3 and milliseconds for a MB (level 3: 4 to 7):
 *
 *                             MF_QUICK      MF_FIVES
 *   dicts of 3 keys           0.96, 2.9     0.97, 2.7
 *   Decimals                  0.85, 3.2     0.96, 3.7
 *   sets of numbers           1.01, 3.8     1.01, 3.7
 *   tuples of texts, floats   1.11, 3.1     0.95, 3.5
 *   nested dicts of floats    1.20, 3.5     1.18, 3.9
 *   CSV                       0.95, 3.1     0.97, 4.1
 *   text                      1.10, 4.1     1.09, 4.6
 *   a forest's values         1.33, 3.5     1.27, 3.5 */
#ifndef MFSTORE_CODEC_SEARCH_H
#define MFSTORE_CODEC_SEARCH_H
#include <stddef.h>
#include <stdint.h>
#include <zstd.h>

/* Beside Zstandard's own levels, which end at 22. */
enum mf_search {
    MF_QUICK = 101, /* one table of 64 KiB, matches of 7 bytes: what level 1 does of long inputs */
    MF_FIVES = 102, /* the same with matches of 5 bytes */
    MF_FAR = 103    /* what level 3 does of long inputs: 768 KiB of tables */
};

/* Forgets what was set before, and sets the level. 0, or Zstandard's error. */
size_t mf_search_prepare(ZSTD_CCtx *compress, int level);

/* One frame, as ZSTD_compressCCtx; compress is left without parameters. */
size_t mf_search_compress(ZSTD_CCtx *compress, int level, const uint8_t *src, size_t n, uint8_t *dst, size_t cap);

#endif
