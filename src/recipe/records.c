#include "recipe/records.h"

#include <string.h>
#include <xxhash.h>

#define VERSION 1
#define ONE 1
#define LITERAL 1
/* Where the header has its numbers; those that are not named are 0 here. */
#define FLAGS_AT 5
#define ALGORITHM_AT 6
#define CONTENT_AT 8
#define ABOUT_AT 12
#define STORED_AT 32
#define TABLES_AT 40
#define NONCE_AT 48
#define SEAL_AT 56
/* Where the content section has the literal's length. */
#define LENGTH_AT 24

static void put_number(uint8_t *out, uint64_t value, int bytes) {
    for (int at = 0; at < bytes; at++) out[at] = (uint8_t) (value >> 8 * at);
}

static uint64_t get_number(const uint8_t *data, int bytes) {
    uint64_t value = 0;
    for (int at = 0; at < bytes; at++) value |= (uint64_t) data[at] << 8 * at;
    return value;
}

void mf_literal_begin(uint8_t algorithm, uint8_t encoding, size_t length, uint8_t out[MF_LITERAL_BEGINS]) {
    /* The section: magic, kind, digest, two zeros, one artifact. The artifact: no name, encoding, flags, no segments,
       no chunks, length. */
    const uint8_t begins[LENGTH_AT] = {'M', 'F', 'S', 'C', ONE, algorithm, 0, 0, 1, 0, 0, 0, 0, 0, encoding, LITERAL};
    memcpy(out, begins, LENGTH_AT);
    put_number(out + LENGTH_AT, length, 8);
}

void mf_literal_header(uint8_t algorithm, const uint8_t *tables, size_t content, size_t length,
                       const uint8_t nonce[MF_NONCE], uint8_t out[MF_RECIPE_HEADER]) {
    memset(out, 0, MF_RECIPE_HEADER);
    memcpy(out, "MFSR", 4);
    out[4] = VERSION;
    out[ALGORITHM_AT] = algorithm;
    put_number(out + CONTENT_AT, content, 4);
    put_number(out + ABOUT_AT, length - content, 4);
    put_number(out + STORED_AT, length, 8);
    put_number(out + TABLES_AT, length, 8);
    memcpy(out + NONCE_AT, nonce, MF_NONCE);
    /* The seal is of the header before it and the checksum of the tables, one behind the other. */
    put_number(out + SEAL_AT, XXH3_64bits(tables, length), 8);
    put_number(out + SEAL_AT, XXH3_64bits(out, MF_RECIPE_HEADER), 8);
}

size_t mf_literal_content(const uint8_t *data, size_t length, uint8_t encoding, uint8_t *algorithm) {
    uint8_t begins[MF_LITERAL_BEGINS];
    uint64_t content;
    if (length < MF_RECIPE_HEADER + MF_LITERAL_BEGINS || memcmp(data, "MFSR", 4) != 0 || data[4] != VERSION ||
        data[FLAGS_AT] != 0)
        return 0;
    content = get_number(data + CONTENT_AT, 4);
    if (content < MF_LITERAL_BEGINS || content > length - MF_RECIPE_HEADER) return 0;
    *algorithm = data[ALGORITHM_AT];
    mf_literal_begin(*algorithm, encoding, (size_t) content - MF_LITERAL_BEGINS, begins);
    return memcmp(data + MF_RECIPE_HEADER, begins, MF_LITERAL_BEGINS) == 0 ? (size_t) content : 0;
}
