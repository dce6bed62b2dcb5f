/* Small files read whole, many in one call. */

#ifndef MF_FILES_WHOLE_H
#define MF_FILES_WHOLE_H

#include <stddef.h>

#define MF_WHOLE_OTHER (-1)

struct mf_whole {
    int status;   /* 0: read; MF_WHOLE_OTHER: longer than ``longest``, or no regular file; else what errno was. */
    size_t start; /* Where in ``into`` its bytes begin. */
    size_t length;
};

/* Read the files at ``paths`` in order into ``into``, one behind the other, each opened with ``flags``. Ends before
   one that might not fit into what is left of the ``room`` bytes, which must be more than ``longest``. How many it has
   dealt with; of these ``out`` tells. */
size_t mf_read_whole(const char *const *paths, size_t count, int flags, size_t longest, char *into, size_t room,
                     struct mf_whole *out);

#endif
