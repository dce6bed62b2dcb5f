/* Texts as CPython holds them, 1, 2 or 4 bytes a character, to UTF-8 and back. Surrogates pass, as three bytes each. */
#ifndef MF_UTF8_H
#define MF_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of `n` characters of `width` bytes each as UTF-8. */
size_t mf_utf8_length(const void *text, size_t n, int width);

/* Writes them to `to`, which has room for mf_utf8_length of them. */
void mf_utf8_encode(const void *text, size_t n, int width, uint8_t *to);

/* Number of characters in `n` bytes of UTF-8, and a bound of the largest of them that tells how wide a text of them is:
   0x7f, 0xff, 0xffff or 0x10ffff. Returns 0, or -1 when the bytes are no UTF-8. */
int mf_utf8_measure(const uint8_t *data, size_t n, size_t *characters, uint32_t *largest);

/* Writes the characters of what mf_utf8_measure found to be UTF-8, `width` bytes each. */
void mf_utf8_decode(const uint8_t *data, size_t n, void *to, int width);

#endif
