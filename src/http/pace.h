/* How fast bytes may move: so many per second, in both directions together, of all connections of a client. From any
 * thread.
 *
 * A bucket that holds what may move in MF_PACE_BURST_NS, or MF_PACE_LEAST bytes if that is more. So in any time t no
 * more than rate * t and the bucket's contents move.
 */
#ifndef MFSTORE_HTTP_PACE_H
#define MFSTORE_HTTP_PACE_H
#include <stddef.h>
#include <stdint.h>

/* A worker that wakes up late by some milliseconds does not fall behind. */
#define MF_PACE_BURST_NS 50000000u
#define MF_PACE_LEAST ((size_t) 4 << 10)
/* No fewer are given out at a time, for each time costs a round of the worker, unless half of the bucket is less. */
#define MF_PACE_PIECE ((size_t) 64 << 10)

struct mf_pace {
    double byte_ns;     /* 0: as fast as can be */
    uint64_t burst_ns;
    size_t piece;
    uint64_t paid_ns;   /* when what was given out has passed: the bucket is full if that is long ago */
};

void mf_pace_begin(struct mf_pace *pace, double rate); /* bytes per second; 0: as fast as can be */
/* How many of n bytes may move now, which are taken out. 0: none before mf_pace_when. */
size_t mf_pace_take(struct mf_pace *pace, size_t n, uint64_t now);
/* n of those that were taken have not moved. */
void mf_pace_return(struct mf_pace *pace, size_t n);
/* When a piece may move. */
uint64_t mf_pace_when(const struct mf_pace *pace);

#endif
