/* Memory for many small objects, in huge pages: the kernel clears 2 MiB of them in the time that it takes for 60 pages
 * of 4 KiB. */
#ifndef MFSTORE_MEMORY_ARENAS_H
#define MFSTORE_MEMORY_ARENAS_H
#include <stddef.h>

/* `size` bytes at a multiple of `size`, cleared, which munmap() gives back; NULL where they cannot be had so, as when
 * `size` is no power of two or larger than a huge page. Any thread may ask at any time. */
void *mf_arena(size_t size);

/* Whether nothing is mapped at a page where something was. */
int mf_is_unmapped(void *page);

#endif
