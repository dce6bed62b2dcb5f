/* Files below an open directory, to which no link leads. */

#ifndef MF_FILES_PLAIN_H
#define MF_FILES_PLAIN_H

/* A file below an open directory, where no step of the path may be a link or lead out. As openat; ENOSYS where the
   system cannot do that. */
int mf_open_plain(int directory, const char *path, int flags, unsigned int mode);

/* Whether it can. */
int mf_opens_plainly(void);

#endif
