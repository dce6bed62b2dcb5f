/* What the fuzz targets have in common. */
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Not assert: it must hold whatever NDEBUG says, and libFuzzer keeps the input of an abort. */
#define REQUIRE(condition)                                                          \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            __builtin_trap();                                                       \
        }                                                                           \
    } while (0)

/* A heap block of exactly n bytes, a copy of data if there is any: one byte too many is AddressSanitizer's to see. */
static inline uint8_t *block(const uint8_t *data, size_t n) {
    uint8_t *copy = malloc(n);
    REQUIRE(copy || !n);
    if (n && data)
        memcpy(copy, data, n);
    return copy;
}
