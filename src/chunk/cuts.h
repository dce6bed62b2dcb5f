/* Where a segment is cut into chunks: by content, at multiples of its items or rows. The rule stands in docs/format.md,
 * "Cut rules"; this is the vectorised form of it.
 *
 * Nothing here allocates or fails, and nothing is written but the caller's ends: any function may be called from any
 * thread and without the GIL.
 */
#ifndef MFSTORE_CHUNK_CUTS_H
#define MFSTORE_CHUNK_CUTS_H
#include <stddef.h>
#include <stdint.h>

/* Format constants: changing one changes the keys of all large data (docs/format.md). All four follow from NORMAL.
 *
 * Measured for NORMAL of 32, 64 and 128 KiB (-DMF_CUT_NORMAL), bytes of new chunks before any codec, in kB, means of 4:
 *
 *   200 000 x 10 float64, without the first row       37     94    144
 *   the same, a window that slides by 1 % (160)       259    322    595
 *   a value inserted into 10^6 float64                 30     73    150
 *   20 000 x 100 float64 by column, 10 rows more     2007   3972   7533
 *   1000 images of 12 288 bytes, without the first    135    151    338
 *   200 000 x 10 float64, 50 cells changed           1859   3520   6054
 *   chunks of 16 MB                                   428    214    109
 *
 * (Fixed cuts every 256 KiB: 16 000 kB for the first, second and fourth.) A shift costs about one chunk, so 32 KiB
 * saves 60 kB a shift; it costs twice the entries, of 92 bytes each in content section and placements: 0.25 instead of
 * 0.13 % of all data. It would pay for data of less than some 50 MB that is put again and again with a shift or with
 * appended columns; scattered changes are better left to deltas. */
#ifndef MF_CUT_NORMAL
#define MF_CUT_NORMAL ((size_t) 64 << 10)
#endif
#define MF_CUT_MIN (MF_CUT_NORMAL / 4)
#define MF_CUT_MAX (MF_CUT_NORMAL * 4)
/* Cuts restart at each row of at least this many bytes. */
#define MF_LONG_ROW (MF_CUT_NORMAL / 2)

/* How to compute; all cut alike. BEST decides by processor and is what everybody but a test wants. */
enum mf_cut_impl {
    MF_CUT_BEST = 0,
    MF_CUT_BASE = 1, /* what every processor of the architecture has: SSE2 of x86-64, NEON of aarch64 */
    MF_CUT_AVX2 = 2, /* x86 with AVX2 */
    MF_CUT_IMPLS = 3
};

struct mf_segment {
    size_t itemsize; /* 1 to 255; 0, unknown, counts as 1 */
    size_t row;      /* bytes of a row, 0 if there are none */
    size_t start;    /* offset in the segment of the data that is passed: 0, or an end that an earlier call gave */
};

/* Whether the processor has it; BEST and BASE are there always. False for what is no implementation. */
int mf_cut_available(enum mf_cut_impl impl);

/* Writes the end offset of each chunk of data[0:n], relative to data, into ends, ascending, and returns how many.
 * With last == 0 the tail after the final end, fewer than MF_CUT_MAX bytes, is not cut yet: pass it again with what
 * follows. With last == 1 the final end is n. ends must hold mf_cut_bound(n). impl must be available. data needs no
 * alignment and may be NULL when n is 0. */
size_t mf_cut(enum mf_cut_impl impl, struct mf_segment segment, const uint8_t *data, size_t n, int last, size_t *ends);
size_t mf_cut_bound(size_t n);

#endif
