/* Recipes of one literal without a name: what the usual small artifact is stored as (docs/format.md, "Recipe"). */

#ifndef MF_RECIPE_RECORDS_H
#define MF_RECIPE_RECORDS_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of a recipe before its content section, and of that before the literal. */
#define MF_RECIPE_HEADER 64
#define MF_LITERAL_BEGINS 32
#define MF_NONCE 8

/* What comes before a literal of ``length`` bytes in its content section. */
void mf_literal_begin(uint8_t algorithm, uint8_t encoding, size_t length, uint8_t out[MF_LITERAL_BEGINS]);

/* The header of a recipe whose tables, ``tables``, are a content section of ``content`` bytes and, behind it, what is
   said of it, not compressed; with its seal. */
void mf_literal_header(uint8_t algorithm, const uint8_t *tables, size_t content, size_t length,
                       const uint8_t nonce[MF_NONCE], uint8_t out[MF_RECIPE_HEADER]);

/* Bytes of the content section, which begins behind the header, if ``data`` begins as the recipe of a literal in
   ``encoding``, not compressed, and has them all; else 0. Its seal is not looked at. */
size_t mf_literal_content(const uint8_t *data, size_t length, uint8_t encoding, uint8_t *algorithm);

#endif
