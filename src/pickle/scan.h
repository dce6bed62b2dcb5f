/* Looks through a pickle before anything of it is made: whether it has the opcodes that this core's pickler writes and
 * no others, and how often it will refer to what it memoizes. */
#ifndef MFSTORE_PICKLE_SCAN_H
#define MFSTORE_PICKLE_SCAN_H
#include <stddef.h>
#include <stdint.h>

typedef enum {
    MF_PICKLE_GOES_ON, /* more is to come */
    MF_PICKLE_CUT,     /* the same, and the piece ends within an opcode */
    MF_PICKLE_ENDS,    /* here is STOP; what follows it is nobody's */
    MF_PICKLE_OTHER,   /* another pickler's, or damaged */
    MF_PICKLE_NO_MEMORY
} mf_pickle_found;

/* All zero is a pickle of which nothing has been seen yet. Free counts with free(). */
typedef struct {
    uint32_t *counts; /* of entries 0 to room - 1 of the memo: how often they are referred to. Later ones never are */
    size_t room;
    uint64_t memo; /* entries so far */
} mf_pickle_scan;

/* Looks through the next piece. After MF_PICKLE_GOES_ON the next one may follow. Memory: six bytes at most for each
 * entry up to the last one that is referred to. */
mf_pickle_found mf_scan_pickle(mf_pickle_scan *scan, const uint8_t *data, size_t n);

#endif
