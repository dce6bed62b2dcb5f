/* How much of a chunk its base has, estimated at a fraction of what encoding costs: whether a delta can pay.
 *
 * All are lengths in bytes. They are estimates from samples, except telling and equal. */
#ifndef MFSTORE_CODEC_LIKENESS_H
#define MFSTORE_CODEC_LIKENESS_H
#include <stddef.h>
#include <stdint.h>

typedef struct {
    size_t telling; /* in blocks of 64 that do not repeat a number: the rest shrinks to nothing without any base */
    size_t equal;   /* of these, in blocks that are equal to the base at the same offset */
    size_t found;   /* of these, in places that the base has somewhere, 48 bytes or more in a row */
    size_t plain;   /* what is left of the chunk when each byte of its shuffled form is coded by itself */
    size_t changed; /* the same of its differences from the base; equal to n if they are not of one length */
} mf_likeness;

/* width: 0, 2, 4 or 8, as of a shuffle. */
void mf_compare(const uint8_t *src, size_t n, const uint8_t *base, size_t base_size, unsigned width,
                mf_likeness *likeness);

#endif
