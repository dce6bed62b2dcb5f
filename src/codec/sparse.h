/* Planes of bytes most of which are 0 need less as a map of where the others are, followed by those: Huffman codes take
 * a bit for each byte, of the map one for eight.
 *
 * A plane of count bytes lies sparse as its map, bit i % 8 of byte i / 8 set where byte i is not 0, and the bytes that
 * are not 0. That is always shorter than count. */
#ifndef MFSTORE_CODEC_SPARSE_H
#define MFSTORE_CODEC_SPARSE_H
#include <stddef.h>
#include <stdint.h>

enum {
    /* Planes are packed of numbers of at most so many bytes. */
    MF_MAX_PLANES = 8,
    /* Each plane may be two parts; what is after the planes is one more. */
    MF_MAX_PARTS = 2 * MF_MAX_PLANES + 1
};

typedef struct {
    size_t ends[MF_MAX_PARTS]; /* where each part ends: maps, bytes that are not 0, planes as they are, what is left */
    unsigned parts;
    unsigned sparse; /* bit j: plane j lies sparse */
} mf_packed;

/* Packs the width planes of src[0:n], which is shuffled, into out[0:n]. Returns what lies there: src itself where no
 * plane is worth it, else out. Neither overlaps the other; width is 2, 4 or 8. */
const uint8_t *mf_pack_planes(const uint8_t *restrict src, uint8_t *restrict out, size_t n, unsigned width,
                              mf_packed *packed);

/* The shuffled bytes again: out[0:n], of packed[0:length], of which the planes in `sparse` lie so. An error if that is
 * not exactly what they take. */
int mf_unpack_planes(const uint8_t *restrict packed, size_t length, uint8_t *restrict out, size_t n, unsigned width,
                     unsigned sparse);

#endif
