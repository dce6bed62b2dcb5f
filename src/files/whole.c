#include "files/whole.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static int read_one(int fd, size_t longest, char *into, size_t *length) {
    struct stat found;
    size_t done = 0;
    if (fstat(fd, &found) != 0) return errno;
    if (!S_ISREG(found.st_mode) || found.st_size < 0 || (size_t) found.st_size > longest) return MF_WHOLE_OTHER;
    /* One byte more than it has: where that comes, the file has grown since. */
    while (done <= (size_t) found.st_size) {
        ssize_t count = read(fd, into + done, (size_t) found.st_size + 1 - done);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return errno;
        if (count == 0) break;
        done += (size_t) count;
        /* The usual file has been read whole now; asking for its end as well costs a call. */
        if (done == (size_t) found.st_size) break;
    }
    if (done != (size_t) found.st_size) return MF_WHOLE_OTHER;
    *length = done;
    return 0;
}

size_t mf_read_whole(const char *const *paths, size_t count, int flags, size_t longest, char *into, size_t room,
                     struct mf_whole *out) {
    size_t at = 0, number;
    for (number = 0; number < count && room - at > longest; number++) {
        struct mf_whole *one = &out[number];
        int fd;
        one->start = at;
        one->length = 0;
        do {
            fd = open(paths[number], flags);
        } while (fd < 0 && errno == EINTR);
        if (fd < 0) {
            one->status = errno;
            continue;
        }
        one->status = read_one(fd, longest, into + at, &one->length);
        close(fd);
        at += one->length;
    }
    return number;
}
