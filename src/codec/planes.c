#include "codec/planes.h"

#include <string.h>

#include "codec/literals.h"
#include "codec/shuffle.h"
#include "codec/status.h"

enum { LENGTH = 4, WIDEST = 8 };

/* Bytes, not memcpy of a number: stored bytes are little-endian on every machine. Compilers make one load of them. */
static uint64_t load(const uint8_t *src, unsigned bytes) {
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; i++)
        value |= (uint64_t) src[i] << (8 * i);
    return value;
}

static void store_length(uint8_t *dst, size_t length) {
    for (unsigned i = 0; i < LENGTH; i++)
        dst[i] = (uint8_t) (length >> (8 * i));
}

/* For planes that are more than literals: next to no search for matches. Of 8 MB float32 weights in chunks of 64 KiB
 * this left 0.836 at 1.1 GB/s, level 1 0.849 at 0.57, level 3 0.855 at 0.43.
 *
 * Arrays in a pickle have headers in between, whose bytes are in all planes and as far apart as the arrays are long: of
 * such with 128 float32 literals leave 0.852, that search 0.823, a table of 4 KiB entries 0.808, and of arrays of
 * several lengths 0.945 and 0.892. Matches of 5 or 6 bytes take 0.817 and 0.812 of the former. */
static const int next_to_none[] = {7, 6}, searched[] = {7, 12};

static int prepare(ZSTD_CCtx *compress, const int *match_and_table) {
    const struct {
        ZSTD_cParameter parameter;
        int value;
    } settings[] = {{ZSTD_c_compressionLevel, 1},
                    {ZSTD_c_strategy, ZSTD_fast},
                    {ZSTD_c_minMatch, match_and_table[0]},
                    {ZSTD_c_hashLog, match_and_table[1]}};
    if (ZSTD_isError(ZSTD_CCtx_reset(compress, ZSTD_reset_session_and_parameters)))
        return MF_NO_MEMORY;
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        if (ZSTD_isError(ZSTD_CCtx_setParameter(compress, settings[i].parameter, settings[i].value)))
            return MF_NO_MEMORY;
    return MF_OK;
}

/* Where there are few values, bytes in some order are found again by chance. Of planes of so many bytes and more in
 * which that happens, a sample of up to a quarter is encoded both ways. Of text in Cyrillic letters the plane of
 * leading bytes has two values: a search for matches took 72 us of 32 KiB, and made of it 1.4 times as much as literals
 * do. Chunks of 64 KiB of such a text take 1.5 ms for a MB, and took 2.5. */
enum { TRIED_FROM = 16 << 10, TRIED = 4 << 10, TRIED_RUN = 512 };

static int search_pays(ZSTD_CCtx *compress, const uint8_t *plane, size_t count) {
    uint8_t sample[TRIED], out[TRIED];
    size_t runs = TRIED / TRIED_RUN, searched, literals;
    if (count < TRIED_FROM)
        return 1;
    for (size_t i = 0; i < runs; i++)
        memcpy(sample + i * TRIED_RUN, plane + i * ((count - TRIED_RUN) / (runs - 1)), TRIED_RUN);
    literals = mf_literals_encode(sample, TRIED, out, TRIED);
    searched = ZSTD_compress2(compress, out, literals ? literals : TRIED, sample, TRIED);
    return !ZSTD_isError(searched);
}

static int is_width(unsigned width) {
    return width == 2 || width == 4 || width == 8;
}

int mf_planes_encode(ZSTD_CCtx *compress, const uint8_t *src, size_t n, unsigned width, int level,
                     uint8_t *scratch, uint8_t *dst, size_t cap, size_t *size) {
    size_t count, tail, used, worth;
    int status;
    *size = 0;
    if (!is_width(width))
        return MF_BAD_WIDTH;
    count = n / width;
    tail = n % width;
    used = LENGTH * (size_t) width;
    if (cap < used + tail)
        return MF_OK;
    cap -= tail;
    if ((status = prepare(compress, level ? searched : next_to_none)) != MF_OK)
        return status;
    if ((status = mf_split(src, scratch, count, width)) != MF_OK)
        return status;
    /* A plane that shrinks by less than a thirty-second is copied when it is decoded instead. */
    worth = count - count / 32;
    for (unsigned j = 0; j < width; j++) {
        const uint8_t *plane = scratch + j * count;
        size_t room = cap - used < worth ? cap - used : worth;
        int is_block = count >= MF_LITERALS_LEAST && count <= MF_LITERALS_MOST;
        size_t done = 0, literals = 0;
        if (!is_block || level || !mf_is_noise(plane, count)) {
            if (!is_block || level || (mf_repeats(plane, count) && search_pays(compress, plane, count))) {
                done = ZSTD_compress2(compress, dst + used, room, plane, count);
                if (ZSTD_isError(done) || done >= count)
                    done = 0;
            }
            /* A code has a bit at least. */
            if (!done || done > count / 8)
                literals = mf_literals_encode(plane, count, dst + used, done ? done - 1 : room);
        }
        done = literals ? literals : done;
        if (!done) {
            if (count > cap - used)
                return MF_OK;
            if (count)
                memcpy(dst + used, plane, count);
            done = count;
        }
        store_length(dst + j * LENGTH, done);
        used += done;
    }
    if (tail)
        memcpy(dst + used, src + n - tail, tail);
    *size = used + tail;
    return MF_OK;
}

int mf_planes_decode(ZSTD_DCtx *decompress, const uint8_t *src, size_t csize, unsigned width, uint8_t *scratch,
                     uint8_t *dst, size_t n) {
    const uint8_t *planes[WIDEST];
    size_t count, tail, left, at;
    if (!is_width(width))
        return MF_BAD_WIDTH;
    count = n / width;
    tail = n % width;
    at = LENGTH * (size_t) width;
    if (csize < at)
        return MF_MALFORMED;
    left = csize - at;
    for (unsigned j = 0; j < width; j++) {
        size_t length = (size_t) load(src + j * LENGTH, LENGTH);
        if (length > left || length > count)
            return MF_MALFORMED;
        if (length == count) {
            planes[j] = src + at;
        } else {
            uint8_t *plane = scratch + j * count;
            size_t done = ZSTD_decompressDCtx(decompress, plane, count, src + at, length);
            if (ZSTD_isError(done))
                return MF_MALFORMED;
            if (done != count)
                return MF_SHORT;
            planes[j] = plane;
        }
        at += length;
        left -= length;
    }
    if (left != tail)
        return MF_MALFORMED;
    if (tail)
        memcpy(dst + n - tail, src + at, tail);
    return mf_join(planes, dst, count, width);
}
