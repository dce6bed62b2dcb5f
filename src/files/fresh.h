/* New files, written and renamed many in one call. */

#ifndef MF_FILES_FRESH_H
#define MF_FILES_FRESH_H

#include <stddef.h>
#include <sys/uio.h>

#define MF_FRESH_LENGTH (-1)

struct mf_fresh {
    const char *path;
    size_t parts;  /* How many of ``parts`` it is made of. */
    size_t length; /* Bytes of these. */
};

/* Create the files below ``directory`` in order, write each and close it. ``parts`` are those of all of them, one after
   the other, and are used up. No file may be there already; with ``plain`` no step of a path may be a link, which
   needs ``mf_opens_plainly``. How many are whole; if not all are, ``failed`` is what errno was at the next one, which
   may be there in part, or MF_FRESH_LENGTH, and then ``found`` how many bytes the system says that it has. */
size_t mf_write_fresh(int directory, int plain, const struct mf_fresh *files, size_t count, struct iovec *parts,
                      unsigned int mode, int *failed, size_t *found);

/* Rename below ``directory``, in order. How many are; if not all are, ``failed`` is what errno was at the next one. */
size_t mf_rename_each(int directory, const char *const *from, const char *const *to, size_t count, int *failed);

#endif
