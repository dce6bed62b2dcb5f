#define _GNU_SOURCE
#include "pickle/stack.h"

#include <pthread.h>
#include <stddef.h>

/* Beyond this nothing that a level calls has been seen to need: importing pandas at that depth takes 200 KiB. The rest
 * is for the main thread, whose stack the kernel stops 1 MiB above the next mapping. */
enum { RESERVE = 1280 << 10, SHARE = 5 };

/* Bytes of stack that are used before it is found out how many there are. */
enum { UNASKED = 16 << 10 };

static __thread uintptr_t low, high, first;

static void look(void) {
    void *start = NULL;
    size_t size = 0;
#if defined(__APPLE__)
    size = pthread_get_stacksize_np(pthread_self());
    start = (char *) pthread_get_stackaddr_np(pthread_self()) - size;
#elif defined(__linux__)
    pthread_attr_t attributes;
    if (pthread_getattr_np(pthread_self(), &attributes) == 0) {
        size_t guard = 0;
        if (pthread_attr_getstack(&attributes, &start, &size) != 0)
            size = 0;
        /* glibc before 2.27 counted the guard as part of the stack. */
        if (size && pthread_attr_getguardsize(&attributes, &guard) == 0 && guard < size) {
            start = (char *) start + guard;
            size -= guard;
        }
        pthread_attr_destroy(&attributes);
    }
#endif
    low = (uintptr_t) start;
    high = low + size;
}

uintptr_t mf_stack_floor(void) {
    uintptr_t here = mf_stack_here();
    size_t reserve;
    if (high == 0)
        look();
    if (here < low || here >= high)
        return 0;
    reserve = (high - low) / SHARE;
    return low + (reserve < RESERVE ? reserve : RESERVE);
}

uintptr_t mf_stack_first_look(void) {
    uintptr_t floor;
    if (high != 0) {
        floor = mf_stack_floor();
        return floor ? floor : 1;
    }
    /* Kept, so that picklers inside of picklers do not each begin anew. */
    if (first == 0)
        first = mf_stack_here() - UNASKED;
    return first;
}
