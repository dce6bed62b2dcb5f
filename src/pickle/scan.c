#include "pickle/scan.h"

#include <stdlib.h>
#include <string.h>

#include "memory/little_endian.h"

/* Of each opcode: its length with its argument, if that is always the same; or what its argument says. */
enum { FIXED = 9, MEMOIZE, GET_1, GET_4, SIZED_1, NUMBER_4, SIZED_4, SIZED_8, STOP };
/* From so many bytes on this core's pickler writes no text and no bytes into a body: OUT_OF_LINE in pickler.pyx.
 * CPython's writes them outside of its frames, by which it is told apart otherwise, but maybe only gigabytes later. */
#define OUT_OF_LINE 65536

static const uint8_t forms[256] = {
    /* None, False, True, integers, numbers */
    ['N'] = 1, [0x88] = 1, [0x89] = 1, ['K'] = 2, ['M'] = 3, ['J'] = 5, ['G'] = 9, [0x8a] = SIZED_1, [0x8b] = NUMBER_4,
    /* texts, bytes, bytearrays, a buffer that lies elsewhere */
    [0x8c] = SIZED_1, ['X'] = SIZED_4, [0x8d] = SIZED_8, ['C'] = SIZED_1, ['B'] = SIZED_4, [0x8e] = SIZED_8,
    [0x96] = SIZED_8, [0x97] = 1,
    /* containers */
    ['('] = 1, [']'] = 1, ['}'] = 1, [')'] = 1, ['t'] = 1, ['e'] = 1, ['a'] = 1, ['u'] = 1, ['s'] = 1, [0x85] = 1,
    [0x86] = 1, [0x87] = 1, [0x8f] = 1, [0x90] = 1, [0x91] = 1, ['0'] = 1, ['1'] = 1,
    /* objects */
    ['R'] = 1, ['b'] = 1, [0x81] = 1, [0x92] = 1, [0x93] = 1,
    /* the memo and the end */
    [0x94] = MEMOIZE, ['h'] = GET_1, ['j'] = GET_4, ['.'] = STOP,
};

static int count(mf_pickle_scan *scan, size_t entry) {
    if (entry >= scan->room) {
        size_t room = entry + entry / 2 + 64;
        uint32_t *grown = realloc(scan->counts, room * sizeof *grown);
        if (grown == NULL)
            return -1;
        memset(grown + scan->room, 0, (room - scan->room) * sizeof *grown);
        scan->counts = grown;
        scan->room = room;
    }
    scan->counts[entry]++;
    return 0;
}

mf_pickle_found mf_scan_pickle(mf_pickle_scan *scan, const uint8_t *data, size_t n) {
    size_t at = 0;
    if (n > UINT32_MAX)
        return MF_PICKLE_OTHER; /* more references than can be counted */
    while (at < n) {
        unsigned form = forms[data[at]];
        uint64_t length;
        size_t entry;
        if (form - 1 < FIXED) {
            length = form;
        } else if (form == MEMOIZE) {
            scan->memo++;
            at++;
            continue;
        } else if (form == GET_1 || form == GET_4) {
            length = form == GET_1 ? 2 : 5;
            if (n - at < length)
                return MF_PICKLE_CUT;
            entry = form == GET_1 ? data[at + 1] : mf_load_32(data + at + 1);
            if (entry >= scan->memo)
                return MF_PICKLE_OTHER;
            if (count(scan, entry) < 0)
                return MF_PICKLE_NO_MEMORY;
        } else if (form == SIZED_1) {
            if (n - at < 2)
                return MF_PICKLE_CUT;
            length = (uint64_t) data[at + 1] + 2;
        } else if (form == SIZED_4 || form == NUMBER_4) {
            if (n - at < 5)
                return MF_PICKLE_CUT;
            length = (uint64_t) mf_load_32(data + at + 1);
            if (form == SIZED_4 && length >= OUT_OF_LINE)
                return MF_PICKLE_OTHER;
            length += 5;
        } else if (form == SIZED_8) {
            if (n - at < 9)
                return MF_PICKLE_CUT;
            length = mf_load_64(data + at + 1);
            if (length >= OUT_OF_LINE)
                return MF_PICKLE_OTHER;
            length += 9;
        } else {
            return form == STOP ? MF_PICKLE_ENDS : MF_PICKLE_OTHER;
        }
        if (length > n - at)
            return MF_PICKLE_CUT;
        at += (size_t) length;
    }
    return MF_PICKLE_GOES_ON;
}
