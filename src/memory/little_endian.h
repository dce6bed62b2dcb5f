/* Stored numbers are little-endian on every machine, and may lie at any address: copies of a constant length are loads
 * and stores to compilers, which make vector instructions of loops of them. */
#ifndef MFSTORE_MEMORY_LITTLE_ENDIAN_H
#define MFSTORE_MEMORY_LITTLE_ENDIAN_H
#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define MF_LITTLE_ENDIAN(bits, x) __builtin_bswap##bits(x)
#else
#define MF_LITTLE_ENDIAN(bits, x) (x)
#endif

#define MF_LOAD_AND_STORE(bits)                                                 \
    static inline uint##bits##_t mf_load_##bits(const uint8_t *at) {            \
        uint##bits##_t x;                                                       \
        memcpy(&x, at, sizeof x);                                               \
        return MF_LITTLE_ENDIAN(bits, x);                                       \
    }                                                                           \
    static inline void mf_store_##bits(uint8_t *at, uint##bits##_t x) {         \
        x = MF_LITTLE_ENDIAN(bits, x);                                          \
        memcpy(at, &x, sizeof x);                                               \
    }

MF_LOAD_AND_STORE(16)
MF_LOAD_AND_STORE(32)
MF_LOAD_AND_STORE(64)

#endif
