# cython: language_level=3
"""Tables of what a pickler remembers, which hold a reference to each of it."""

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free
from libc.string cimport memset


cdef extern from "pickle/memo.h":
    ctypedef struct mf_object_slot:
        uintptr_t key
        uint32_t number

    ctypedef struct mf_objects:
        mf_object_slot *slots
        size_t mask
        size_t used

    ctypedef struct mf_notes:
        mf_object_slot *slots
        size_t used

    ctypedef struct mf_value:
        uintptr_t key
        uint64_t hash
        uint32_t number
        uint32_t used_again

    ctypedef struct mf_values:
        mf_value *values
        uint64_t *places
        size_t used

    int mf_objects_add(mf_objects *table, uintptr_t key, uint32_t number)
    const mf_object_slot *mf_objects_find(const mf_objects *table, uintptr_t key)
    int mf_notes_add(mf_notes *notes, uintptr_t key, uint32_t number)
    int mf_values_add(mf_values *table, uintptr_t key, uint64_t hash, uint32_t number)
    void mf_values_cut(mf_values *table, size_t count)
    mf_value *mf_values_next(const mf_values *table, uint64_t hash, size_t *at)
    size_t mf_values_first(uint64_t hash)


cdef extern from "Python.h":
    Py_ssize_t PyObject_Hash(object value) except? -1
    int PyObject_RichCompareBool(object one, object other, int operation) except -1
    int Py_EQ


cdef extern from *:
    """
    /* So many objects ahead: where they lie is known before they are read. */
    enum { MF_AHEAD = 16 };
    #if defined(__GNUC__)
    #define mf_prefetch(address) __builtin_prefetch((const void *) (address), 1)
    #else
    #define mf_prefetch(address) ((void) (address))
    #endif
    """
    size_t MF_AHEAD
    void mf_prefetch(uintptr_t address)


cdef inline void clear_objects(mf_objects *table) noexcept:
    cdef mf_objects old = table[0]
    cdef size_t at
    table.slots = NULL
    table.used = table.mask = 0
    if old.slots != NULL:
        for at in range(old.mask + 1):
            if old.slots[at].key:
                Py_DECREF(<object> <PyObject *> old.slots[at].key)
    free(old.slots)


cdef inline void clear_values(mf_values *table) noexcept:
    cdef mf_values old = table[0]
    cdef size_t at
    memset(table, 0, sizeof(mf_values))
    for at in range(old.used):
        if at + MF_AHEAD < old.used:
            mf_prefetch(old.values[at + MF_AHEAD].key)
        Py_DECREF(<object> <PyObject *> old.values[at].key)
    free(old.values)
    free(old.places)


cdef inline int add_note(mf_notes *notes, object obj, uint32_t number) except -1:
    if mf_notes_add(notes, <uintptr_t> <void *> obj, number) < 0:
        raise MemoryError()
    Py_INCREF(obj)
    return 0


cdef inline void drop_notes(mf_notes *notes) noexcept:
    cdef mf_notes old = notes[0]
    cdef size_t at
    memset(notes, 0, sizeof(mf_notes))
    for at in range(old.used):
        if at + MF_AHEAD < old.used:
            mf_prefetch(old.slots[at + MF_AHEAD].key)
        Py_DECREF(<object> <PyObject *> old.slots[at].key)
    free(old.slots)


cdef inline int move_notes(mf_notes *notes, mf_objects *table) except -1:
    """Into the table, with the references. After MemoryError, what was not moved yet is noted still."""
    cdef mf_object_slot slot
    cdef int added
    while notes.used:
        slot = notes.slots[notes.used - 1]
        added = mf_objects_add(table, slot.key, slot.number)
        if added < 0:
            raise MemoryError()
        notes.used -= 1
        if not added:
            Py_DECREF(<object> <PyObject *> slot.key)
    drop_notes(notes)
    return 0


cdef inline const mf_object_slot *object_slot(const mf_objects *table, object obj) noexcept:
    """Where an object is remembered, or NULL. Identity, whatever its class says."""
    return mf_objects_find(table, <uintptr_t> <void *> obj)


cdef inline int add_object(mf_objects *table, object obj, uint32_t number) except -1:
    cdef int added = mf_objects_add(table, <uintptr_t> <void *> obj, number)
    if added < 0:
        raise MemoryError()
    if added:
        Py_INCREF(obj)
    return 0


cdef inline mf_value *value_of(const mf_values *table, object value, uint64_t hash) except? NULL:
    """Where an equal value is remembered, or NULL. Comparing runs no code of any class: of texts, bytes and what stands
    for a long one."""
    cdef size_t at = mf_values_first(hash)
    cdef mf_value *known = mf_values_next(table, hash, &at)
    while known != NULL:
        if PyObject_RichCompareBool(<object> <PyObject *> known.key, value, Py_EQ):
            return known
        known = mf_values_next(table, hash, &at)
    return NULL


cdef inline int add_value(mf_values *table, object value, uint64_t hash, uint32_t number) except -1:
    if mf_values_add(table, <uintptr_t> <void *> value, hash, number) < 0:
        raise MemoryError()
    Py_INCREF(value)
    return 0


cdef inline void keep_referenced(mf_values *table, size_t most) noexcept:
    """Forget what was not referred to since it was added or kept, and all if more than ``most`` would stay."""
    cdef size_t at, stay = 0, kept = 0
    for at in range(table.used):
        stay += table.values[at].used_again
    for at in range(table.used):
        if at + MF_AHEAD < table.used:
            mf_prefetch(table.values[at + MF_AHEAD].key)
        if table.values[at].used_again and stay <= most:
            table.values[kept] = table.values[at]
            table.values[kept].used_again = 0
            kept += 1
        else:
            # Of a text, of bytes, or of what stands for a long one: no code of anybody else runs.
            Py_DECREF(<object> <PyObject *> table.values[at].key)
    mf_values_cut(table, kept)
