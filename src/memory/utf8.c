#include "memory/utf8.h"

#include <string.h>

#include "memory/little_endian.h"

/* Characters are looked at one by one only where kinds change: eight of ASCII, four of two bytes and two of three are
 * told, and moved, as one number. Each lane of 16 bits of such a number is a character, or its two bytes, the first one
 * lowest. Texts of two bytes a character take a fifth of the instructions on the way out and half on the way in. */
#define LANES(x) ((uint64_t) (x) * UINT64_C(0x0001000100010001))
#define ASCII UINT64_C(0x8080808080808080)

static inline int is_ascii(uint64_t word) {
    return !(word & ASCII);
}

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

/* Four characters of 16 bits. */
static inline uint64_t four(const void *text, size_t i) {
    const uint16_t *at = (const uint16_t *) text + i;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    uint64_t lanes;
    memcpy(&lanes, at, sizeof lanes);
    return lanes;
#else
    return at[0] | (uint64_t) at[1] << 16 | (uint64_t) at[2] << 32 | (uint64_t) at[3] << 48;
#endif
}

static inline uint8_t *encode_one(uint32_t c, uint8_t *to) {
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
    return to;
}

static inline void encode(const void *text, size_t n, int width, uint8_t *to) {
    size_t i = 0;
    while (i < n) {
        if (width == 1 && n - i >= 8) {
            uint64_t word = mf_load_64((const uint8_t *) text + i);
            if (is_ascii(word)) {
                mf_store_64(to, word);
                to += 8;
                i += 8;
                continue;
            }
        }
        /* More than four are left, so that a byte too many is overwritten. */
        if (width == 2 && n - i > 4) {
            uint64_t lanes = four(text, i);
            if (lanes & LANES(0xf800)) {
                for (size_t k = 0; k < 4; k++)
                    to = encode_one(character(text, i + k, width), to);
            } else if (!(lanes & LANES(0xff80))) {
                lanes |= lanes >> 8;
                mf_store_32(to, (uint32_t) ((lanes & 0xffff) | (lanes >> 16 & 0xffff0000)));
                to += 4;
            } else if ((((lanes & LANES(0x0780)) + LANES(0x7f80)) & LANES(0x8000)) == LANES(0x8000)) {
                mf_store_64(to, LANES(0x80c0) | (lanes >> 6 & LANES(0x001f)) | (lanes & LANES(0x003f)) << 8);
                to += 8;
            } else {
                for (size_t k = 0; k < 4; k++) {
                    uint32_t c = (uint32_t) (lanes >> 16 * k & 0xffff), two = c > 0x7f;
                    mf_store_16(to, (uint16_t) (two ? 0x80c0 | c >> 6 | (c & 0x3f) << 8 : c));
                    to += 1 + two;
                }
            }
            i += 4;
            continue;
        }
        to = encode_one(character(text, i++, width), to);
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

static inline int follows(uint8_t byte) {
    return (byte & 0xc0) == 0x80;
}

/* Whether eight bytes are four times the first byte of a character of two and one that follows. */
static inline int are_pairs(uint64_t word) {
    return (word & LANES(0xc0e0)) == LANES(0x80c0);
}

/* And none of the characters would be one of ASCII. */
static inline int are_four(uint64_t word) {
    return are_pairs(word) && (((word & LANES(0x001e)) + LANES(0x7fff)) & LANES(0x8000)) == LANES(0x8000);
}

/* Whether the first six of eight bytes are two characters of three, none of which has less. */
static inline int are_two(uint64_t word) {
    return (word & UINT64_C(0xc0c0f0c0c0f0)) == UINT64_C(0x8080e08080e0) && (word & 0x200f) && (word >> 24 & 0x200f);
}

int mf_utf8_measure(const uint8_t *data, size_t n, size_t *characters, uint32_t *largest) {
    size_t i = 0, count = 0;
    uint32_t most = 0x7f;
    while (i < n) {
        uint8_t lead = data[i];
        uint64_t word = n - i >= 8 ? mf_load_64(data + i) : ASCII;
        if (lead < 0x80) {
            size_t some = is_ascii(word) ? 8 : 1;
            i += some;
            count += some;
            continue;
        }
        if (lead < 0xe0 && are_four(word)) {
            do {
                most |= word & LANES(0x001c) ? 0xffff : 0xff;
                i += 8;
                count += 4;
                word = n - i >= 8 ? mf_load_64(data + i) : ASCII;
            } while (are_four(word));
            continue;
        }
        if (lead < 0xf0 && are_two(word)) {
            most |= 0xffff;
            i += 6;
            count += 2;
            continue;
        }
        count++;
        if (lead < 0xc2) {
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

static inline void put(void *to, size_t at, int width, uint32_t c) {
    if (width == 1) {
        ((uint8_t *) to)[at] = (uint8_t) c;
    } else if (width == 2) {
        ((uint16_t *) to)[at] = (uint16_t) c;
    } else {
        ((uint32_t *) to)[at] = c;
    }
}

/* Each lane as a character. */
static inline void put_four(void *to, size_t at, int width, uint64_t lanes) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    if (width == 2) {
        memcpy((uint16_t *) to + at, &lanes, sizeof lanes);
        return;
    }
#endif
    for (size_t k = 0; k < 4; k++)
        put(to, at + k, width, (uint32_t) (lanes >> 16 * k & 0xffff));
}

static inline void decode(const uint8_t *data, size_t n, void *to, int width) {
    size_t i = 0, at = 0;
    while (i < n) {
        uint32_t c = data[i];
        uint64_t word = n - i >= 8 ? mf_load_64(data + i) : ASCII;
        if (c < 0x80) {
            if (is_ascii(word)) {
                for (size_t k = 0; k < 8; k++)
                    put(to, at + k, width, data[i + k]);
                i += 8;
                at += 8;
                continue;
            }
            i++;
        } else if (c < 0xe0) {
            if (are_pairs(word)) {
                do {
                    put_four(to, at, width, (word & LANES(0x001f)) << 6 | (word >> 8 & LANES(0x003f)));
                    i += 8;
                    at += 4;
                    word = n - i >= 8 ? mf_load_64(data + i) : ASCII;
                } while (are_pairs(word));
                continue;
            }
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
        put(to, at++, width, c);
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
