# cython: language_level=3
"""What an extension is linked with, for those who ask."""

cdef extern from "Python.h":
    str PyUnicode_DecodeFSDefault(const char *text)


cdef extern from "origin/loaded.h" nogil:
    ctypedef void (*mf_function)()
    const char *mf_loaded_from(mf_function function)


cdef inline tuple linked(str now, str then, mf_function function):
    """A library's version, that of the headers it was built with, and the file that it was loaded from."""
    return now, then, PyUnicode_DecodeFSDefault(mf_loaded_from(function))
