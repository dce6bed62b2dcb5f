#include "memory/utf8.h"

#include <string.h>

#include "cpu/features.h"
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

/* Counted in 16 bits as long as they suffice: clang has a lane for each character, of the sum's width. */
static inline size_t length_of(const void *text, size_t n, int width) {
    size_t length = n, i = 0;
    while (i < n) {
        size_t end = n - i > 1 << 14 ? i + (1 << 14) : n;
        uint16_t more = 0;
        for (; i < end; i++) {
            uint32_t c = character(text, i, width);
            more = (uint16_t) (more + (c > 0x7f) + (c > 0x7ff) + (c > 0xffff));
        }
        length += more;
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

#if X86

/* Texts of fewer bytes are done one character after the other: a table of 2 KiB is made first. Ten megabytes of words
 * in Cyrillic letters, where kinds change all the time, took 25 ms, CPython 12, and so they take 4. */
enum { LONG = 16384 };

#define AVX2 __attribute__((target("avx2,popcnt")))
#define ALL(byte) _mm256_set1_epi8((char) (byte))
#define IS(x, byte) _mm256_cmpeq_epi8(x, ALL(byte))
#define AT_LEAST(x, byte) _mm256_cmpeq_epi8(_mm256_max_epu8(x, ALL(byte)), x)
#define AT_MOST(x, byte) _mm256_cmpeq_epi8(_mm256_min_epu8(x, ALL(byte)), x)
#define BEFORE(i) _mm256_loadu_si256((const __m256i *) (data + (i)))

/* Looks at the bytes from `begin` on, 32 at a time, before which lie whole characters, three bytes at least. Returns
 * where the first character begins of which not all was seen, or n + 1 when there is something that is none. Whether a
 * byte must follow others, and whether it may, the three before it say. */
AVX2 static size_t measure_blocks(const uint8_t *data, size_t begin, size_t n, size_t *characters, uint8_t *highest) {
    __m256i wrong = _mm256_setzero_si256(), most = wrong;
    size_t i = begin, count = 0, last;
    uint8_t bytes[32];
    for (; n - i >= 32; i += 32) {
        __m256i x = BEFORE(i), one = BEFORE(i - 1), two = BEFORE(i - 2), three = BEFORE(i - 3);
        __m256i does = IS(_mm256_and_si256(x, ALL(0xc0)), 0x80);
        __m256i should = _mm256_or_si256(AT_LEAST(two, 0xe0), AT_LEAST(three, 0xf0));
        __m256i never = _mm256_or_si256(AT_LEAST(x, 0xf5), IS(_mm256_and_si256(x, ALL(0xfe)), 0xc0));
        __m256i short_three = _mm256_and_si256(IS(one, 0xe0), AT_MOST(x, 0x9f));
        __m256i short_four = _mm256_and_si256(IS(one, 0xf0), AT_MOST(x, 0x8f));
        __m256i too_large = _mm256_and_si256(IS(one, 0xf4), AT_LEAST(x, 0x90));
        should = _mm256_or_si256(should, AT_LEAST(one, 0xc0));
        wrong = _mm256_or_si256(wrong, _mm256_or_si256(_mm256_xor_si256(does, should), never));
        wrong = _mm256_or_si256(wrong, _mm256_or_si256(short_three, _mm256_or_si256(short_four, too_large)));
        most = _mm256_max_epu8(most, x);
        count += 32 - (size_t) __builtin_popcount((unsigned) _mm256_movemask_epi8(does));
    }
    if (!_mm256_testz_si256(wrong, wrong))
        return n + 1;
    _mm256_storeu_si256((__m256i *) bytes, most);
    for (size_t k = 0; k < sizeof bytes; k++)
        *highest = bytes[k] > *highest ? bytes[k] : *highest;
    /* The last character may go on behind the last block. */
    for (last = i; last > begin && follows(data[last - 1]); last--)
        ;
    if (last > begin && data[last - 1] >= 0xc0) {
        size_t length = data[last - 1] < 0xe0 ? 2 : data[last - 1] < 0xf0 ? 3 : 4;
        if (last - 1 + length > i) {
            i = last - 1;
            count--;
        }
    }
    *characters += count;
    return i;
}

#endif

int mf_utf8_measure(const uint8_t *data, size_t n, size_t *characters, uint32_t *largest) {
    size_t i = 0, count = 0;
    uint32_t most = 0x7f;
#if X86
    int blocks = n >= LONG && mf_cpu_has(MF_CPU_AVX2);
#endif
    while (i < n) {
#if X86
        if (i >= 3 && blocks) {
            uint8_t highest = 0;
            blocks = 0;
            i = measure_blocks(data, i, n, &count, &highest);
            if (i > n)
                return -1;
            most |= highest >= 0xf0 ? 0x10ffff : highest >= 0xc4 ? 0xffff : highest >= 0x80 ? 0xff : 0x7f;
            continue;
        }
#endif
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

#if X86

/* The numbers of those of eight lanes that stay, for each set of them; then zeros. */
typedef uint8_t lanes_that_stay[256][8];

static void fill(lanes_that_stay table) {
    memset(table, 0, sizeof(lanes_that_stay));
    for (unsigned set = 0; set < 256; set++)
        for (unsigned lane = 0, at = 0; lane < 8; lane++)
            if (set >> lane & 1)
                table[set][at++] = (uint8_t) lane;
}

#define ROW(set) _mm_loadl_epi64((const __m128i *) table[set])
#define EIGHT(i) _mm_loadl_epi64((const __m128i *) (data + (i)))
#define LOW(x, bits) _mm_and_si128(x, _mm_set1_epi16(bits))
#define LOW_32(x, bits) _mm256_and_si256(x, _mm256_set1_epi32(bits))

/* Eight bytes, each as the character that it would begin, of which those stay that begin one. */
AVX2 static inline void decode_eight(const uint8_t *data, unsigned begins, void *to, int width, lanes_that_stay table) {
    if (width == 1) {
        __m128i x = EIGHT(0), next = EIGHT(1);
        __m128i wide = _mm_or_si128(_mm_and_si128(_mm_slli_epi16(x, 6), _mm_set1_epi8((char) 0xc0)),
                                    _mm_and_si128(next, _mm_set1_epi8(0x3f)));
        /* The highest bit of x says which. */
        _mm_storel_epi64(to, _mm_shuffle_epi8(_mm_blendv_epi8(x, wide, x), ROW(begins)));
    } else if (width == 2) {
        __m128i x = _mm_cvtepu8_epi16(EIGHT(0)), next = LOW(_mm_cvtepu8_epi16(EIGHT(1)), 0x3f);
        __m128i third = LOW(_mm_cvtepu8_epi16(EIGHT(2)), 0x3f);
        __m128i two = _mm_or_si128(_mm_slli_epi16(LOW(x, 0x1f), 6), next);
        __m128i three = _mm_or_si128(_mm_or_si128(_mm_slli_epi16(x, 12), _mm_slli_epi16(next, 6)), third);
        __m128i from = _mm_add_epi16(_mm_mullo_epi16(_mm_cvtepu8_epi16(ROW(begins)), _mm_set1_epi16(0x0202)),
                                     _mm_set1_epi16(0x0100));
        two = _mm_blendv_epi8(x, two, _mm_cmpgt_epi16(x, _mm_set1_epi16(0xbf)));
        three = _mm_blendv_epi8(two, three, _mm_cmpgt_epi16(x, _mm_set1_epi16(0xdf)));
        _mm_storeu_si128(to, _mm_shuffle_epi8(three, from));
    } else {
        __m256i x = _mm256_cvtepu8_epi32(EIGHT(0)), next = LOW_32(_mm256_cvtepu8_epi32(EIGHT(1)), 0x3f);
        __m256i third = LOW_32(_mm256_cvtepu8_epi32(EIGHT(2)), 0x3f);
        __m256i fourth = LOW_32(_mm256_cvtepu8_epi32(EIGHT(3)), 0x3f);
        __m256i two = _mm256_or_si256(_mm256_slli_epi32(LOW_32(x, 0x1f), 6), next);
        __m256i three = _mm256_or_si256(_mm256_slli_epi32(LOW_32(x, 0x0f), 12),
                                        _mm256_or_si256(_mm256_slli_epi32(next, 6), third));
        __m256i four = _mm256_or_si256(
            _mm256_or_si256(_mm256_slli_epi32(LOW_32(x, 0x07), 18), _mm256_slli_epi32(next, 12)),
            _mm256_or_si256(_mm256_slli_epi32(third, 6), fourth));
        two = _mm256_blendv_epi8(x, two, _mm256_cmpgt_epi32(x, _mm256_set1_epi32(0xbf)));
        three = _mm256_blendv_epi8(two, three, _mm256_cmpgt_epi32(x, _mm256_set1_epi32(0xdf)));
        four = _mm256_blendv_epi8(three, four, _mm256_cmpgt_epi32(x, _mm256_set1_epi32(0xef)));
        _mm256_storeu_si256(to, _mm256_permutevar8x32_epi32(four, _mm256_cvtepu8_epi32(ROW(begins))));
    }
}

/* Decodes all but the last 64 bytes or so, and returns how many it has: `at` counts their characters. More than 64
 * bytes are 16 characters at least, so that eight too many are overwritten. */
AVX2 static inline size_t decode_blocks(const uint8_t *data, size_t n, void *to, int width, size_t *at) {
    lanes_that_stay table;
    size_t i = 0, done = 0;
    fill(table);
    for (; n - i >= 80; i += 16) {
        __m128i x = _mm_loadu_si128((const __m128i *) (data + i));
        unsigned begins = (unsigned) _mm_movemask_epi8(_mm_cmpgt_epi8(x, _mm_set1_epi8((char) 0xbf)));
        decode_eight(data + i, begins & 0xff, (uint8_t *) to + done * (size_t) width, width, table);
        done += (size_t) __builtin_popcount(begins & 0xff);
        decode_eight(data + i + 8, begins >> 8, (uint8_t *) to + done * (size_t) width, width, table);
        done += (size_t) __builtin_popcount(begins >> 8);
    }
    /* What follows here belongs to a character that is decoded. */
    while (follows(data[i]))
        i++;
    *at = done;
    return i;
}

AVX2 static size_t decode_long(const uint8_t *data, size_t n, void *to, int width, size_t *at) {
    return width == 1   ? decode_blocks(data, n, to, 1, at)
           : width == 2 ? decode_blocks(data, n, to, 2, at)
                        : decode_blocks(data, n, to, 4, at);
}

#endif

void mf_utf8_decode(const uint8_t *data, size_t n, void *to, int width) {
#if X86
    if (n >= LONG && mf_cpu_has(MF_CPU_AVX2)) {
        size_t at, done = decode_long(data, n, to, width, &at);
        data += done;
        n -= done;
        to = (uint8_t *) to + at * (size_t) width;
    }
#endif
    if (width == 1) {
        decode(data, n, to, 1);
    } else if (width == 2) {
        decode(data, n, to, 2);
    } else {
        decode(data, n, to, 4);
    }
}
