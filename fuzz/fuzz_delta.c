/* mf_delta_decode of anything on any base, mf_delta_encode followed by mf_delta_decode, and mf_compare.
 *
 * Every buffer is a heap block of exactly the size the kernel is told, so that one byte too many is AddressSanitizer's
 * to see. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "codec/delta.h"
#include "codec/likeness.h"
#include "codec/status.h"
#include "fuzzing.h"

enum { HEADER = 8 };
static const unsigned widths[] = {0, 2, 4, 8};

static void decode_anything(mf_codec_ctx *ctx, const uint8_t *data, size_t size, int seal, const uint8_t *base,
                            size_t base_size, unsigned codec, unsigned width, size_t usize) {
    /* A claim over the limit must be refused before the destination is touched. */
    size_t room = usize > MF_CHUNK_LIMIT ? 0 : usize, length = size + (seal ? MF_SEAL_LENGTH : 0);
    uint8_t *src = block(NULL, length), *one = block(NULL, room), *two = block(NULL, room);
    int status, again;
    if (size)
        memcpy(src, data, size);
    if (seal) {
        uint64_t value = XXH3_64bits(src, size);
        for (size_t i = 0; i < MF_SEAL_LENGTH; i++)
            src[size + i] = (uint8_t) (value >> (8 * i));
        REQUIRE(mf_delta_is_sealed(src, length));
    }
    if (room) {
        memset(one, 0x00, room);
        memset(two, 0xFF, room);
    }
    status = mf_delta_decode(ctx, src, length, base, base_size, codec, width, one, usize);
    again = mf_delta_decode(ctx, src, length, base, base_size, codec, width, two, usize);
    REQUIRE(status == again);
    REQUIRE(status != MF_NO_MEMORY && status != MF_TOO_LONG);
    if (status == MF_OK) {
        REQUIRE(usize <= MF_CHUNK_LIMIT && mf_delta_is_sealed(src, length));
        REQUIRE(codec == MF_PREFIX ? !width : codec == MF_DIFFERENCE && base_size == usize);
        /* Different before, equal after: every byte was written. */
        REQUIRE(!room || !memcmp(one, two, room));
    }
    free(src);
    free(one);
    free(two);
}

static void decode_exactly(mf_codec_ctx *ctx, const uint8_t *packed, size_t csize, const uint8_t *base,
                           size_t base_size, unsigned codec, unsigned width, const uint8_t *plain, size_t n) {
    uint8_t *src = block(packed, csize), *dst = block(NULL, n);
    REQUIRE(mf_delta_is_sealed(src, csize));
    REQUIRE(mf_delta_decode(ctx, src, csize, base, base_size, codec, width, dst, n) == MF_OK);
    REQUIRE(!n || !memcmp(dst, plain, n));
    free(dst);
    dst = block(NULL, n + 1);
    REQUIRE(mf_delta_decode(ctx, src, csize, base, base_size, codec, width, dst, n + 1) != MF_OK);
    if (n)
        REQUIRE(mf_delta_decode(ctx, src, csize, base, base_size, codec, width, dst, n - 1) != MF_OK);
    free(dst);
    free(src);
}

static void round_trip(mf_codec_ctx *ctx, const uint8_t *plain, size_t n, const uint8_t *base, size_t base_size,
                       unsigned codec, unsigned width, int level, size_t cap) {
    uint8_t *out = block(NULL, cap);
    size_t done = (size_t) -1;
    int status = mf_delta_encode(ctx, plain, n, base, base_size, codec, width, level, out, cap, &done);
    if (codec == MF_DIFFERENCE && base_size != n) {
        REQUIRE(status == MF_BAD_BASE && !done);
    } else if (codec == MF_PREFIX && width) {
        REQUIRE(status == MF_BAD_WIDTH && !done);
    } else {
        REQUIRE(status == MF_OK && done <= cap);
        REQUIRE(done || cap < mf_delta_bound(n));
        if (done)
            decode_exactly(ctx, out, done, base, base_size, codec, width, plain, n);
    }
    free(out);
}

static void look(const uint8_t *plain, size_t n, const uint8_t *base, size_t base_size, unsigned width) {
    mf_likeness likeness;
    mf_compare(plain, n, base, base_size, width, &likeness);
    REQUIRE(likeness.equal <= likeness.telling && likeness.found <= likeness.telling && likeness.telling <= n);
    REQUIRE(likeness.equal <= likeness.found && likeness.plain <= n && likeness.changed <= n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    /* Kept between inputs as a thread keeps it: state left behind by a failed call must not matter. Now and then a new
     * one, whose scratch memory does not exist yet. */
    static mf_codec_ctx *kept;
    mf_codec_ctx *ctx;
    uint8_t *plain, *base;
    uint32_t claim;
    unsigned codec, width, copies;
    size_t usize, base_size, n;
    if (size < HEADER)
        return 0;
    if (!kept)
        kept = mf_codec_new();
    ctx = data[0] & 0x80 ? mf_codec_new() : kept;
    REQUIRE(ctx);
    codec = data[0] & 0x40 ? data[0] & 7 : MF_PREFIX + (data[0] & 1);
    copies = 1 + (data[0] >> 3 & 7);
    width = data[1] & 0x80 ? data[1] : widths[data[1] & 3];
    memcpy(&claim, data + 2, sizeof claim);
    base_size = (size_t) data[6] << (data[7] & 7);
    data += HEADER;
    size -= HEADER;

    /* The base is what an edit of the rest is made of, so that both codecs find something; then anything of it. */
    if (base_size > size)
        base_size = size;
    base = block(data, base_size);
    usize = data[-7] & 0x40 ? base_size : claim % 5000;
    if ((data[-7] & 0x70) == 0x30)
        usize = (size_t) claim << (claim & 31);
    decode_anything(ctx, data + base_size, size - base_size, !(data[-7] & 8), base, base_size, codec, width, usize);
    free(base);

    n = size * copies;
    plain = block(NULL, n);
    for (unsigned i = 0; i < copies; i++)
        if (size)
            memcpy(plain + i * size, data, size);
    base_size = claim & 1 ? n : n - n * (claim & 15) / 32;
    base = block(plain, base_size);
    for (size_t i = size / 2; i < n; i += 1 + claim % 251)
        plain[i] ^= (uint8_t) (i * 31 + claim);
    for (unsigned i = 0; i < sizeof widths / sizeof *widths; i++) {
        int level = (int) (claim % 7) - 1;
        for (codec = MF_PREFIX; codec <= MF_DIFFERENCE; codec++) {
            round_trip(ctx, plain, n, base, base_size, codec, widths[i], level, mf_delta_bound(n));
            round_trip(ctx, plain, n, base, base_size, codec, widths[i], 1, claim % (n + 64));
        }
        look(plain, n, base, base_size, widths[i]);
    }
    free(plain);
    free(base);
    if (ctx != kept)
        mf_codec_free(ctx);
    return 0;
}
