/* The clock of time.monotonic(). */
#ifndef MFSTORE_HTTP_CLOCK_H
#define MFSTORE_HTTP_CLOCK_H
#include <stdint.h>
#include <time.h>

static inline uint64_t mf_now_ns(void) {
#if defined(__APPLE__)
    return clock_gettime_nsec_np(CLOCK_UPTIME_RAW);
#else
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t) now.tv_sec * 1000000000u + (uint64_t) now.tv_nsec;
#endif
}

#endif
