/* Where code of this process comes from. */

#ifndef MFSTORE_ORIGIN_LOADED_H
#define MFSTORE_ORIGIN_LOADED_H

typedef void (*mf_function)(void); /* any: it is not called */

/* The path of the file that a function lies in: of a shared library, or of the extension itself where the library is
 * linked into it. Empty: the loader does not say. The text is the loader's, for as long as the file is loaded. */
const char *mf_loaded_from(mf_function function);

#endif
