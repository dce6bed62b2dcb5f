/* Which instructions this processor has beyond those that every one of its kind has. X86: whether kernels have any use
 * for such.
 *
 * The processor itself is asked. __builtin_cpu_supports asks the compiler's runtime library, and that of zig, which
 * wheels are built with, says no to everything. */
#ifndef MF_CPU_FEATURES_H
#define MF_CPU_FEATURES_H

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#include <immintrin.h>
#include <stdatomic.h>
#define X86 1

enum mf_cpu_feature {
    MF_CPU_BMI2 = 1,
    MF_CPU_AVX2 = 2,
    MF_CPU_CLMUL = 4,  /* pclmul, sse4.1 */
    MF_CPU_VCLMUL = 8, /* and vpclmulqdq, avx512f */
    MF_CPU_ASKED = 16
};

static inline unsigned mf_cpu_ask(void) {
    unsigned a, b, c, d, saved = 0, found = MF_CPU_ASKED;
    if (!__get_cpuid(1, &a, &b, &c, &d))
        return found;
    if (c >> 27 & 1) /* xgetbv: which registers the system saves for a thread that waits */
        __asm__("xgetbv" : "=a"(saved), "=d"(d) : "c"(0));
    int clmul = c >> 1 & c >> 19 & 1;
    if (clmul)
        found |= MF_CPU_CLMUL;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return found;
    if (b >> 8 & 1)
        found |= MF_CPU_BMI2;
    if ((saved & 0x06) == 0x06 && b >> 5 & 1)
        found |= MF_CPU_AVX2;
    if ((saved & 0xe6) == 0xe6 && clmul && b >> 16 & c >> 10 & 1)
        found |= MF_CPU_VCLMUL;
    return found;
}

/* Asked once: virtual machines take thousands of cycles for an answer. */
static inline int mf_cpu_has(enum mf_cpu_feature wanted) {
    static _Atomic unsigned known;
    unsigned found = atomic_load_explicit(&known, memory_order_relaxed);
    if (!found)
        atomic_store_explicit(&known, found = mf_cpu_ask(), memory_order_relaxed);
    return !!(found & wanted);
}

#else
#define X86 0
#endif

#endif
