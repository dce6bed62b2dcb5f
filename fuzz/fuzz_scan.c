/* mf_scan_pickle in one piece and in two, and against what a slow look at each opcode finds. */
#include "pickle/scan.h"
#include "fuzzing.h"

static const char sized_1[] = "\x8c" "C\x8a", sized_4[] = "XB\x8b", sized_8[] = "\x8d\x8e\x96";
static const char alone[] = "N\x88\x89(]})teaus\x85\x86\x87\x8f\x90\x91" "01Rb\x81\x92\x93\x97\x94.";

static int is_one_of(uint8_t opcode, const char *some) {
    return opcode && strchr(some, opcode) != NULL;
}

static uint64_t number(const uint8_t *at, int width) {
    uint64_t value = 0;
    for (int i = width; i > 0; i--)
        value = value << 8 | at[i - 1];
    return value;
}

/* Length of the opcode at `data` with its argument; 0: there is none here, n + 1: it goes on behind the end. */
static size_t length_of(const uint8_t *data, size_t n) {
    int width = is_one_of(*data, sized_1) ? 1 : is_one_of(*data, sized_4) ? 4 : is_one_of(*data, sized_8) ? 8 : 0;
    size_t length = is_one_of(*data, alone)    ? 1
                    : is_one_of(*data, "Kh")   ? 2
                    : is_one_of(*data, "M")    ? 3
                    : is_one_of(*data, "Jj")   ? 5
                    : is_one_of(*data, "G")    ? 9
                    : width                    ? (size_t) width + 1
                                               : 0;
    if (!length || length > n)
        return length ? n + 1 : 0;
    if (width && *data != 0x8b && number(data + 1, width) >= 65536)
        return 0; /* which this core's pickler writes elsewhere */
    if (width && number(data + 1, width) > n - length)
        return n + 1;
    return width ? length + (size_t) number(data + 1, width) : length;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    mf_pickle_scan whole = {0}, parts = {0};
    mf_pickle_found found, again, expected = MF_PICKLE_GOES_ON;
    uint64_t memo = 0, counted = 0, references = 0;
    size_t n, split, cut, at = 0;
    uint8_t *copy;
    if (size < 2)
        return 0;
    split = (size_t) (data[0] | data[1] << 8);
    n = size - 2;
    copy = block(data + 2, n);
    found = mf_scan_pickle(&whole, copy, n);
    cut = split < n ? 0 : n;
    while (at < n && expected == MF_PICKLE_GOES_ON) {
        size_t length = length_of(copy + at, n - at);
        if (at <= split)
            cut = at;
        if (!length) {
            expected = MF_PICKLE_OTHER;
        } else if (length > n - at) {
            expected = MF_PICKLE_CUT;
        } else if (copy[at] == '.') {
            expected = MF_PICKLE_ENDS;
        } else if (copy[at] == 'h' || copy[at] == 'j') {
            references++;
            if (number(copy + at + 1, copy[at] == 'h' ? 1 : 4) >= memo)
                expected = MF_PICKLE_OTHER;
        }
        memo += copy[at] == 0x94;
        at += length;
    }
    REQUIRE(found == expected);
    for (size_t i = 0; i < whole.room; i++)
        counted += whole.counts[i];
    if (found != MF_PICKLE_OTHER)
        REQUIRE(counted == references && whole.memo == memo);

    /* Pieces end between opcodes. */
    again = mf_scan_pickle(&parts, copy, cut);
    if (again == MF_PICKLE_GOES_ON)
        again = mf_scan_pickle(&parts, copy + cut, n - cut);
    REQUIRE(again == found);
    REQUIRE(parts.memo == whole.memo && parts.room == whole.room);
    REQUIRE(!whole.room || !memcmp(parts.counts, whole.counts, whole.room * sizeof *whole.counts));
    free(whole.counts);
    free(parts.counts);
    free(copy);
    return 0;
}
