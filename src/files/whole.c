/* O_PATH. */
#define _GNU_SOURCE

#include "files/whole.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* The usual file gives all it has, up to the bytes that were asked for. What gives nothing may be anything. */
static int read_sealed(int fd, size_t longest, char *into, size_t *length) {
    ssize_t count;
    do {
        count = read(fd, into, longest + 1);
    } while (count < 0 && errno == EINTR);
    if (count <= 0 || (size_t) count > longest) return MF_WHOLE_OTHER;
    *length = (size_t) count;
    return 0;
}

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

#if defined(O_PATH)
#define PLACE O_PATH
#elif defined(O_SEARCH)
#define PLACE O_SEARCH
#else
#define PLACE O_RDONLY
#endif

int mf_open_place(const char *path) {
    int fd;
    do {
        fd = open(path, PLACE | O_DIRECTORY | O_CLOEXEC);
    } while (fd < 0 && errno == EINTR);
    return fd < 0 ? -errno : fd;
}

void mf_look(int place, const char *const *paths, size_t count, int *out) {
    for (size_t number = 0; number < count; number++) {
        struct stat found;
        out[number] = fstatat(place, paths[number], &found, AT_SYMLINK_NOFOLLOW) == 0 ? 0 : errno;
    }
}

size_t mf_read_whole(int place, const char *const *paths, size_t count, int flags, int sealed, size_t longest,
                     char *into, size_t room, struct mf_whole *out) {
    size_t at = 0, number;
    for (number = 0; number < count && room - at > longest; number++) {
        struct mf_whole *one = &out[number];
        int fd;
        one->start = at;
        one->length = 0;
        do {
            fd = openat(place, paths[number], flags);
        } while (fd < 0 && errno == EINTR);
        if (fd < 0) {
            one->status = errno;
            continue;
        }
        one->status = (sealed ? read_sealed : read_one)(fd, longest, into + at, &one->length);
        close(fd);
        at += one->length;
    }
    return number;
}
