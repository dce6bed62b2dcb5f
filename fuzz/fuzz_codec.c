/* mf_decode of anything, and mf_encode followed by mf_decode; of groups too.
 *
 * Every buffer is a heap block of exactly the size the kernel is told, so that one byte too
 * many is AddressSanitizer's to see. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "codec/compress.h"
#include "codec/literals.h"
#include "codec/shuffle.h"
#include "codec/status.h"
#include "fuzzing.h"

enum { HEADER = 6 };
static const unsigned widths[] = {0, 2, 4, 8};
static const unsigned encoders[] = {MF_LZ4, MF_ZSTD, MF_PLANES};

static void decode_anything(mf_codec_ctx *ctx, const uint8_t *data, size_t size, unsigned codec,
                            unsigned width, size_t usize) {
    /* A claim over the limit must be refused before the destination is touched. */
    size_t room = usize > MF_CHUNK_LIMIT ? 0 : usize;
    uint8_t *src = block(data, size);
    uint8_t *one = block(NULL, room), *two = block(NULL, room);
    int status, again;
    if (room) {
        memset(one, 0x00, room);
        memset(two, 0xFF, room);
    }
    status = mf_decode(ctx, src, size, codec, width, one, usize);
    again = mf_decode(ctx, src, size, codec, width, two, usize);
    REQUIRE(status == again);
    REQUIRE(status != MF_NO_MEMORY && status != MF_TOO_LONG);
    if (status == MF_OK) {
        REQUIRE(usize <= MF_CHUNK_LIMIT);
        REQUIRE(codec <= MF_ZSTD || (codec == MF_PLANES && width) || codec == MF_GROUP);
        if (codec == MF_GROUP)
            REQUIRE(usize <= MF_GROUP_LIMIT && width <= MF_GROUP_LIMIT - usize);
        else
            REQUIRE(width == 0 || width == 2 || width == 4 || width == 8);
        /* Different before, equal after: every byte was written. */
        REQUIRE(!room || !memcmp(one, two, room));
    }
    free(src);
    free(one);
    free(two);
}

static void decode_exactly(mf_codec_ctx *ctx, const uint8_t *packed, size_t csize, unsigned codec,
                           unsigned width, const uint8_t *plain, size_t n) {
    uint8_t *src = block(packed, csize), *dst = block(NULL, n);
    REQUIRE(mf_decode(ctx, src, csize, codec, width, dst, n) == MF_OK);
    REQUIRE(!n || !memcmp(dst, plain, n));
    free(dst);
    if (n) {
        /* One byte less than it decodes to, and one more, are both damage. */
        dst = block(NULL, n - 1);
        REQUIRE(mf_decode(ctx, src, csize, codec, width, dst, n - 1) != MF_OK);
        free(dst);
        dst = block(NULL, n + 1);
        REQUIRE(mf_decode(ctx, src, csize, codec, width, dst, n + 1) != MF_OK);
        free(dst);
    }
    free(src);
}

static void round_trip(mf_codec_ctx *ctx, const uint8_t *plain, size_t n, size_t cap, int level) {
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        unsigned width = widths[i];
        size_t done;
        uint8_t *out;
        for (size_t j = 0; j < sizeof encoders / sizeof *encoders; j++) {
            unsigned codec = encoders[j];
            if (codec == MF_PLANES && !width)
                continue;
            out = block(NULL, cap);
            done = (size_t) -1;
            REQUIRE(mf_encode(ctx, plain, n, codec, width, level, out, cap, &done) == MF_OK);
            REQUIRE(done <= cap);
            if (done)
                decode_exactly(ctx, out, done, codec, width, plain, n);
            free(out);
        }
        /* Raw chunks are never encoded; shuffled raw ones are still readable. */
        out = block(plain, n);
        REQUIRE(mf_encode(ctx, plain, n, MF_NONE, width, level, out, n, &done) == MF_UNKNOWN_CODEC);
        if (width)
            REQUIRE(mf_shuffle(plain, out, n, width) == MF_OK);
        decode_exactly(ctx, out, n, MF_NONE, width, plain, n);
        free(out);
    }
}

/* Bytes as rare or frequent as those of the input, in no order: literals. Zstandard reads what is made of them. */
static void literals_round_trip(const uint8_t *data, size_t size, uint32_t pick) {
    size_t n = (pick >> 8) % (pick & 63 ? 3 * MF_LITERALS_LEAST : MF_LITERALS_MOST + 2);
    size_t cap = pick & 64 ? n : pick % (n + 1), done;
    uint8_t *plain, *out, *again;
    if (!size || !n)
        return;
    plain = block(NULL, n);
    out = block(NULL, cap);
    for (size_t i = 0; i < n; i++) {
        pick = pick * 1664525 + 1013904223;
        plain[i] = data[(pick >> 8) % size];
    }
    done = mf_literals_encode(plain, n, out, cap);
    if (done) {
        uint8_t *frame;
        REQUIRE(done <= cap && n >= MF_LITERALS_LEAST && n <= MF_LITERALS_MOST);
        frame = block(out, done);
        again = block(NULL, n);
        REQUIRE(ZSTD_getFrameContentSize(frame, done) == n);
        REQUIRE(ZSTD_decompress(again, n, frame, done) == n && !memcmp(again, plain, n));
        free(again);
        free(frame);
        REQUIRE(mf_literals_encode(plain, n, NULL, done - 1) == 0);
    }
    if (n >= MF_LITERALS_LEAST)
        mf_repeats(plain, n);
    free(out);
    free(plain);
}

/* Four chunks as a group, all of them and some of them out of it, side by side and apart. */
static void group_round_trip(mf_codec_ctx *ctx, const uint8_t *plain, size_t n, size_t cap, int level, uint32_t pick) {
    size_t ends[4], sizes[4], count = 0, done, total = 0, first;
    uint8_t *out, *whole, *copies[4];
    mf_group_part parts[5];
    for (unsigned i = 1; i <= 4; i++) {
        size_t end = i < 4 ? (size_t) (pick >> (8 * (i - 1)) & 0xFF) * n >> 8 : n;
        if (end > (count ? ends[count - 1] : 0))
            ends[count++] = end;
    }
    if (!count || ends[count - 1] != n)
        return;
    out = block(NULL, cap);
    REQUIRE(mf_encode_group(ctx, plain, ends, count, level, out, cap, sizes, &done) == MF_OK);
    REQUIRE(done <= cap);
    if (done) {
        uint8_t *src = block(out, done);
        for (size_t i = 0; i < count; i++)
            total += sizes[i];
        REQUIRE(total == done);
        whole = block(NULL, n);
        for (size_t i = 0; i < count; i++) {
            size_t start = i ? ends[i - 1] : 0;
            parts[i] = (mf_group_part) {start, ends[i] - start, whole + start};
        }
        REQUIRE(mf_decode_group(ctx, src, done, parts, count) == MF_OK && !memcmp(whole, plain, n));
        for (size_t i = 0; i < count; i++) {
            copies[i] = block(NULL, parts[i].usize);
            parts[i].dst = copies[i];
        }
        first = pick & 1 && count > 1;
        REQUIRE(mf_decode_group(ctx, src, done, parts + first, count - first) == MF_OK);
        for (size_t i = first; i < count; i++)
            REQUIRE(!memcmp(copies[i], plain + parts[i].start, parts[i].usize));
        parts[count - 1].usize++;
        parts[count - 1].dst = whole;
        REQUIRE(mf_decode_group(ctx, src, done, parts + count - 1, 1) != MF_OK);
        for (size_t i = 0; i < count; i++)
            free(copies[i]);
        free(whole);
        free(src);
    }
    free(out);
}

/* Anything as a group, of which parts are wanted that need not lie in it, nor in order. */
static void decode_any_group(mf_codec_ctx *ctx, const uint8_t *data, size_t size, uint32_t claim) {
    uint8_t *src = block(data, size), *dst = block(NULL, 3000);
    mf_group_part parts[3];
    for (unsigned i = 0; i < 3; i++)
        parts[i] = (mf_group_part) {(claim >> (4 * i)) % 5000, (claim >> (3 * i)) % 1001, dst + 1000 * i};
    REQUIRE(mf_decode_group(ctx, src, size, parts, 3) != MF_NO_MEMORY);
    free(src);
    free(dst);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    /* Kept between inputs as a thread keeps it: state left behind by a failed call must not
     * matter. Now and then a new one, whose scratch memory does not exist yet. */
    static mf_codec_ctx *kept;
    mf_codec_ctx *ctx;
    uint8_t *plain;
    uint32_t claim;
    unsigned codec, width, copies;
    size_t usize, n;
    if (size < HEADER)
        return 0;
    if (!kept)
        kept = mf_codec_new();
    ctx = data[0] & 0x80 ? mf_codec_new() : kept;
    REQUIRE(ctx);
    codec = data[0] & 7;
    copies = 1 + (data[0] >> 3 & 15);
    width = data[1] & 0x80 ? data[1] : widths[data[1] & 3];
    memcpy(&claim, data + 2, sizeof claim);
    /* Mostly small claims: large ones cost a fresh mapping each. */
    usize = data[1] & 0x40 ? claim % (MF_CHUNK_LIMIT + 4) : claim % 5000;
    if ((data[1] & 0x70) == 0x70)
        usize = (size_t) claim << (claim & 31);
    data += HEADER;
    size -= HEADER;
    decode_anything(ctx, data, size, codec, width, usize);

    n = size * copies;
    plain = block(NULL, n);
    for (unsigned i = 0; i < copies; i++)
        if (size)
            memcpy(plain + i * size, data, size);
    /* Repeats with a difference, so that there are matches and planes that end early. */
    for (size_t i = size; i < n; i += 1 + claim % 61)
        plain[i] ^= (uint8_t) (i * 31 + claim);
    literals_round_trip(data, size, claim);
    round_trip(ctx, plain, n, n, (int) (claim % 7) - 1);
    round_trip(ctx, plain, n, claim % (n + 64), 1);
    decode_any_group(ctx, data, size, claim);
    group_round_trip(ctx, plain, n, n + 64, (int) (claim % 7) - 1, claim);
    group_round_trip(ctx, plain, n, claim % (n + 64), 1, claim);
    free(plain);
    if (ctx != kept)
        mf_codec_free(ctx);
    return 0;
}
