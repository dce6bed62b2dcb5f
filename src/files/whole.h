/* Small files read whole, and looked for, many in one call. */

#ifndef MF_FILES_WHOLE_H
#define MF_FILES_WHOLE_H

#include <fcntl.h>
#include <stddef.h>

#define MF_WHOLE_OTHER (-1)
/* In place of a directory: paths are whole ones. */
#define MF_HERE AT_FDCWD

struct mf_whole {
    int status;   /* 0: read; MF_WHOLE_OTHER: longer than ``longest``, or no regular file; else what errno was. */
    size_t start; /* Where in ``into`` its bytes begin. */
    size_t length;
};

/* A directory, for the functions below to begin at: with a hundred files in it, the steps of the way to it are walked
   once. Closed by the caller; negative: errno, with a minus. Needs no right to list it, as the way through it needs
   none. */
int mf_open_place(const char *path);

/* Read the files at ``paths`` below ``place`` in order into ``into``, one behind the other, each opened with ``flags``.
   Ends before one that might not fit into what is left of the ``room`` bytes, which must be more than ``longest``. How
   many it has dealt with; of these ``out`` tells. With ``sealed`` what a file gives at once is taken for all of it,
   without a question what it is and how long: for files of which the reader can tell. */
size_t mf_read_whole(int place, const char *const *paths, size_t count, int flags, int sealed, size_t longest,
                     char *into, size_t room, struct mf_whole *out);

/* For each of ``paths`` below ``place`` 0 where something is there, or what errno was. A link is something. */
void mf_look(int place, const char *const *paths, size_t count, int *out);

#endif
