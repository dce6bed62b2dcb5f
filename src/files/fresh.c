/* renameat, O_CLOEXEC. */
#define _GNU_SOURCE

#include "files/fresh.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files/plain.h"

/* The kernel takes 1024 at a time. */
#define PARTS 512

static int write_parts(int fd, struct iovec *parts, size_t count) {
    while (count) {
        ssize_t done;
        /* An empty one may stand at the end, where nothing is left to write. */
        if (parts->iov_len == 0) {
            parts++, count--;
            continue;
        }
        done = writev(fd, parts, (int) (count < PARTS ? count : PARTS));
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) return errno;
        while (count && (size_t) done >= parts->iov_len) {
            done -= (ssize_t) parts->iov_len;
            parts++, count--;
        }
        if (done) {
            parts->iov_base = (char *) parts->iov_base + done;
            parts->iov_len -= (size_t) done;
        }
    }
    return 0;
}

static int write_one(int fd, const struct mf_fresh *file, struct iovec *parts, size_t *found) {
    struct stat status;
    int failed = write_parts(fd, parts, file->parts);
    if (failed) return failed;
    if (fstat(fd, &status) != 0) return errno;
    *found = (size_t) status.st_size;
    return *found == file->length ? 0 : MF_FRESH_LENGTH;
}

size_t mf_write_fresh(int directory, int plain, const struct mf_fresh *files, size_t count, struct iovec *parts,
                      unsigned int mode, int *failed, size_t *found) {
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
    size_t number;
    for (number = 0; number < count; number++) {
        const struct mf_fresh *file = &files[number];
        int fd;
        do {
            fd = plain ? mf_open_plain(directory, file->path, flags, mode)
                       : openat(directory, file->path, flags, (mode_t) mode);
        } while (fd < 0 && errno == EINTR);
        if (fd < 0) {
            *failed = errno;
            return number;
        }
        *failed = write_one(fd, file, parts, found);
        /* A network file system tells here that what was written is lost. After EINTR it is closed as well. */
        if (close(fd) != 0 && errno != EINTR && !*failed) *failed = errno;
        if (*failed) return number;
        parts += file->parts;
    }
    return number;
}

size_t mf_rename_each(int directory, const char *const *from, const char *const *to, size_t count, int *failed) {
    size_t number;
    for (number = 0; number < count; number++)
        if (renameat(directory, from[number], directory, to[number]) != 0) {
            *failed = errno;
            break;
        }
    return number;
}
