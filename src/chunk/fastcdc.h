/* FastCDC cut points (Xia et al., USENIX ATC 2016), normalised chunking level 2.
 *
 * Sequential Gear is deliberate: on every x86 measured by the borg project it beat AVX2 and
 * AVX-512 variants, because the update folds into one instruction.
 */
#ifndef MFSTORE_CHUNK_FASTCDC_H
#define MFSTORE_CHUNK_FASTCDC_H
#include <stddef.h>
#include <stdint.h>

/* Format constants: changing one changes every key of opaque data (docs/format.md). */
#define MF_CDC_MIN ((size_t) 64 << 10)
#define MF_CDC_NORMAL ((size_t) 256 << 10)
#define MF_CDC_MAX ((size_t) 1 << 20)

/* Writes the end offset of each chunk of data[0:n] into ends and returns how many.
 * With last == 0 the tail after the final offset is not yet a chunk: offer it again with
 * what follows. With last == 1 the final offset is n. ends must hold mf_cdc_bound(n). */
size_t mf_cdc_cut(const uint8_t *data, size_t n, int last, size_t *ends);
size_t mf_cdc_bound(size_t n);

#endif
