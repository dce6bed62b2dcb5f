/* syscall. */
#define _GNU_SOURCE

#include "files/plain.h"

#include <errno.h>
#include <stdint.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

int mf_open_plain(int directory, const char *path, int flags, unsigned int mode) {
#if defined(SYS_openat2)
    struct { uint64_t flags, mode, resolve; } how = {(uint64_t) flags, mode, 0x04 | 0x08};
    return (int) syscall(SYS_openat2, directory, path, &how, sizeof how);
#else
    (void) directory, (void) path, (void) flags, (void) mode;
    errno = ENOSYS;
    return -1;
#endif
}

/* Asked with nothing to open, which it then finds fault with. A filter of system calls may refuse it with EPERM, as a
   directory may. */
int mf_opens_plainly(void) {
#if defined(SYS_openat2)
    return syscall(SYS_openat2, -1, NULL, NULL, (size_t) 0) == -1 && errno == EINVAL;
#else
    return 0;
#endif
}
