/* The CRCs that S3 stores with an object: CRC-64/NVME, CRC-32C and CRC-32 (zlib's).
 *
 * All three are reflected and begin and end with all ones, so one kernel serves them: a polynomial, its width, and
 * tables and folding constants derived from those two when the library is loaded. Afterwards everything here is
 * read-only: any function may be called from any thread, after fork, and without the GIL. Nothing allocates, nothing
 * fails.
 */
#ifndef MFSTORE_CRC_CHECKSUM_H
#define MFSTORE_CRC_CHECKSUM_H
#include <stddef.h>
#include <stdint.h>

enum mf_crc_kind { MF_CRC64NVME = 0, MF_CRC32C = 1, MF_CRC32 = 2, MF_CRC_KINDS = 3 };

/* By kind: S3's name for it ("CRC32C"), and the header that carries its value, in lower case. */
extern const char *const mf_crc_names[MF_CRC_KINDS];
extern const char *const mf_crc_headers[MF_CRC_KINDS];

/* How to compute. BEST decides by length and processor and is what everybody but a test wants. */
enum mf_crc_impl {
    MF_CRC_BEST = 0,
    MF_CRC_TABLE = 1,  /* slicing by 8: any processor */
    MF_CRC_CLMUL = 2,  /* x86 with PCLMULQDQ */
    MF_CRC_VCLMUL = 3, /* x86 with VPCLMULQDQ and AVX-512F */
    MF_CRC_IMPLS = 4
};

/* Room for mf_crc_encode: 12 characters of base64 and NUL. */
#define MF_CRC_TEXT 13

/* The CRC of what came before followed by data[0:n]. crc is the finished value of what came before, 0 if there was
 * nothing, so calls chain as zlib's crc32 does. data may be NULL when n is 0; it needs no alignment and is only read.
 * kind must be one of the three. */
uint64_t mf_crc_update(enum mf_crc_kind kind, uint64_t crc, const uint8_t *data, size_t n);

/* The same by one implementation, whatever the length. Only if mf_crc_available(impl): there is no falling back. */
uint64_t mf_crc_update_by(enum mf_crc_impl impl, enum mf_crc_kind kind, uint64_t crc, const uint8_t *data, size_t n);
int mf_crc_available(enum mf_crc_impl impl);

/* The CRC of A followed by B from the CRCs of both and the length of B in bytes. O(log length_b). */
uint64_t mf_crc_combine(enum mf_crc_kind kind, uint64_t crc_a, uint64_t crc_b, uint64_t length_b);

/* Bytes of a value: 8 or 4. */
size_t mf_crc_width(enum mf_crc_kind kind);

/* Base64 of the big-endian value, as the x-amz-checksum-* headers carry it, and NUL. Returns the length without NUL. */
size_t mf_crc_encode(enum mf_crc_kind kind, uint64_t crc, char out[MF_CRC_TEXT]);

#endif
