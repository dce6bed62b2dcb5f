#include "memory/utf8.h"

#include <string.h>

static inline uint32_t character(const void *text, size_t i, int width) {
    if (width == 1) {
        return ((const uint8_t *) text)[i];
    }
    return width == 2 ? ((const uint16_t *) text)[i] : ((const uint32_t *) text)[i];
}

static inline size_t length_of(const void *text, size_t n, int width) {
    size_t length = n;
    for (size_t i = 0; i < n; i++) {
        uint32_t c = character(text, i, width);
        length += (size_t) (c > 0x7f) + (c > 0x7ff) + (c > 0xffff);
    }
    return length;
}

static inline void encode(const void *text, size_t n, int width, uint8_t *to) {
    for (size_t i = 0; i < n; i++) {
        uint32_t c = character(text, i, width);
        if (c <= 0x7f) {
            *to++ = (uint8_t) c;
        } else if (c <= 0x7ff) {
            *to++ = (uint8_t) (0xc0 | c >> 6);
            *to++ = (uint8_t) (0x80 | (c & 0x3f));
        } else if (c <= 0xffff) {
            *to++ = (uint8_t) (0xe0 | c >> 12);
            *to++ = (uint8_t) (0x80 | (c >> 6 & 0x3f));
            *to++ = (uint8_t) (0x80 | (c & 0x3f));
        } else {
            *to++ = (uint8_t) (0xf0 | c >> 18);
            *to++ = (uint8_t) (0x80 | (c >> 12 & 0x3f));
            *to++ = (uint8_t) (0x80 | (c >> 6 & 0x3f));
            *to++ = (uint8_t) (0x80 | (c & 0x3f));
        }
    }
}

/* The compiler makes one loop for each width. */

size_t mf_utf8_length(const void *text, size_t n, int width) {
    return width == 1 ? length_of(text, n, 1) : width == 2 ? length_of(text, n, 2) : length_of(text, n, 4);
}

void mf_utf8_encode(const void *text, size_t n, int width, uint8_t *to) {
    if (width == 1) {
        encode(text, n, 1, to);
    } else if (width == 2) {
        encode(text, n, 2, to);
    } else {
        encode(text, n, 4, to);
    }
}

static inline int is_ascii(const uint8_t *data) {
    uint64_t word;
    memcpy(&word, data, 8);
    return !(word & UINT64_C(0x8080808080808080));
}

static inline int follows(uint8_t byte) {
    return (byte & 0xc0) == 0x80;
}

int mf_utf8_measure(const uint8_t *data, size_t n, size_t *characters, uint32_t *largest) {
    size_t i = 0, count = 0;
    uint32_t most = 0x7f;
    while (i < n) {
        if (n - i >= 8 && is_ascii(data + i)) {
            i += 8;
            count += 8;
            continue;
        }
        uint8_t lead = data[i];
        count++;
        if (lead < 0x80) {
            i++;
        } else if (lead < 0xc2) {
            return -1;
        } else if (lead < 0xe0) {
            if (n - i < 2 || !follows(data[i + 1])) {
                return -1;
            }
            most |= lead < 0xc4 ? 0xff : 0xffff;
            i += 2;
        } else if (lead < 0xf0) {
            if (n - i < 3 || !follows(data[i + 1]) || !follows(data[i + 2]) || (lead == 0xe0 && data[i + 1] < 0xa0)) {
                return -1;
            }
            most |= 0xffff;
            i += 3;
        } else {
            if (lead > 0xf4 || n - i < 4 || !follows(data[i + 1]) || !follows(data[i + 2]) || !follows(data[i + 3])) {
                return -1;
            }
            if ((lead == 0xf0 && data[i + 1] < 0x90) || (lead == 0xf4 && data[i + 1] > 0x8f)) {
                return -1;
            }
            most |= 0x10ffff;
            i += 4;
        }
    }
    *characters = count;
    *largest = most;
    return 0;
}

static inline void decode(const uint8_t *data, size_t n, void *to, int width) {
    size_t i = 0, at = 0;
    while (i < n) {
        uint32_t c = data[i];
        if (c < 0x80) {
            i++;
        } else if (c < 0xe0) {
            c = (c & 0x1f) << 6 | (data[i + 1] & 0x3f);
            i += 2;
        } else if (c < 0xf0) {
            c = (c & 0x0f) << 12 | (uint32_t) (data[i + 1] & 0x3f) << 6 | (data[i + 2] & 0x3f);
            i += 3;
        } else {
            c = (c & 0x07) << 18 | (uint32_t) (data[i + 1] & 0x3f) << 12 | (uint32_t) (data[i + 2] & 0x3f) << 6
                | (data[i + 3] & 0x3f);
            i += 4;
        }
        if (width == 1) {
            ((uint8_t *) to)[at++] = (uint8_t) c;
        } else if (width == 2) {
            ((uint16_t *) to)[at++] = (uint16_t) c;
        } else {
            ((uint32_t *) to)[at++] = c;
        }
    }
}

void mf_utf8_decode(const uint8_t *data, size_t n, void *to, int width) {
    if (width == 1) {
        decode(data, n, to, 1);
    } else if (width == 2) {
        decode(data, n, to, 2);
    } else {
        decode(data, n, to, 4);
    }
}
