#include "memory/arenas.h"

#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>

#if defined(__linux__)

enum { HUGE_PAGE = 2 << 20, PAGE = 4096 };

/* What is left of the last huge page, for the next one who asks. The lowest bits of its address, which is a multiple of
 * a page, tell how many pages it has. */
static uintptr_t left;

static void *map(size_t size) {
    void *area = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return area == MAP_FAILED ? NULL : area;
}

static uint8_t *huge_page(void) {
    uint8_t *area = map(HUGE_PAGE);
    size_t before;
    if (area != NULL && (uintptr_t) area % HUGE_PAGE) {
        /* Mostly the last one lies right above. */
        munmap(area, HUGE_PAGE);
        area = map(2 * (size_t) HUGE_PAGE);
        if (area == NULL)
            return NULL;
        before = HUGE_PAGE - (uintptr_t) area % HUGE_PAGE;
        munmap(area, before);
        if (before < HUGE_PAGE)
            munmap(area + before + HUGE_PAGE, HUGE_PAGE - before);
        area += before;
    }
    if (area != NULL)
        madvise(area, HUGE_PAGE, MADV_HUGEPAGE);
    return area;
}

static void keep(uint8_t *rest, size_t size) {
    uintptr_t other = size ? (uintptr_t) rest | (size / PAGE) : 0;
    other = __atomic_exchange_n(&left, other, __ATOMIC_ACQ_REL);
    if (other) /* Another thread asked meanwhile. */
        munmap((void *) (other - other % PAGE), other % PAGE * PAGE);
}

void *mf_arena(size_t size) {
    uintptr_t rest;
    uint8_t *area;
    size_t has;
    if (size < PAGE || size > HUGE_PAGE || (size & (size - 1)))
        return NULL;
    rest = __atomic_exchange_n(&left, 0, __ATOMIC_ACQ_REL);
    area = (uint8_t *) (rest - rest % PAGE);
    has = rest % PAGE * PAGE;
    if (has < size || (uintptr_t) area % size) {
        if (has)
            munmap(area, has);
        area = huge_page();
        has = HUGE_PAGE;
        if (area == NULL)
            return NULL;
    }
    if (has > size)
        keep(area + size, has - size);
    return area;
}

int mf_is_unmapped(void *page) {
    unsigned char there;
    return mincore(page, 1, &there) < 0 && errno == ENOMEM;
}

#else

void *mf_arena(size_t size) {
    (void) size;
    return NULL;
}

int mf_is_unmapped(void *page) {
    (void) page;
    return 0;
}

#endif
