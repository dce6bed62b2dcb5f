#define _GNU_SOURCE /* dladdr */

#include "origin/loaded.h"

#include <dlfcn.h>
#include <string.h>

const char *mf_loaded_from(mf_function function) {
    Dl_info found;
    void *address;
    /* C has no cast from a function to an object; POSIX says that they look alike. */
    memcpy(&address, &function, sizeof address);
    return dladdr(address, &found) && found.dli_fname ? found.dli_fname : "";
}
