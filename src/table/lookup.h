/* Search in a sorted table of fixed-size entries that begin with a 32-byte chunk id. */
#ifndef MFSTORE_TABLE_LOOKUP_H
#define MFSTORE_TABLE_LOOKUP_H
#include <stddef.h>
#include <stdint.h>

#define MF_ID 32
#define MF_ABSENT ((size_t) -1)

/* For each of the m ids, the position of an equal entry in the table of n entries of the
 * given stride, or MF_ABSENT, into found. Ids are digests, so positions are interpolated:
 * log log n probes on average. Any table content is safe: a table that is not sorted, or
 * not uniform, costs probes or misses hits, never an access outside n * stride bytes. */
void mf_table_find(const uint8_t *table, size_t n, size_t stride, const uint8_t *ids, size_t m,
                   size_t *found);

/* 1 when the entries ascend strictly by id. */
int mf_table_sorted(const uint8_t *table, size_t n, size_t stride);

#endif
