#include "http/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#if defined(__linux__) && !defined(MF_NO_EVENTFD)
#define MF_EVENTFD
#include <sys/eventfd.h>
#endif

int mf_wake_open(int wake[2]) {
#if defined(MF_EVENTFD)
    wake[0] = wake[1] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return wake[0] < 0 ? errno : 0;
#else
    int side;
    if (pipe(wake) < 0) {
        wake[0] = wake[1] = -1;
        return errno;
    }
    for (side = 0; side < 2; side++) {
        fcntl(wake[side], F_SETFD, FD_CLOEXEC);
        fcntl(wake[side], F_SETFL, O_NONBLOCK);
    }
    return 0;
#endif
}

void mf_wake_close(int wake[2]) {
    if (wake[0] >= 0)
        close(wake[0]);
    if (wake[1] >= 0 && wake[1] != wake[0])
        close(wake[1]);
    wake[0] = wake[1] = -1;
}

void mf_wake_set(int wake[2]) {
    uint64_t one = 1;
    ssize_t written;
    /* EAGAIN: it is set as can be. */
    do
        written = write(wake[1], &one, wake[0] == wake[1] ? sizeof one : 1);
    while (written < 0 && errno == EINTR);
}

void mf_wake_clear(int wake[2]) {
    uint64_t count[8];
    while (read(wake[0], count, sizeof count) > 0 && wake[0] != wake[1]) {
    }
}
