# cython: language_level=3
"""Tables of what a pickler remembers, which hold a reference to each of it."""

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free


cdef extern from "pickle/memo.h":
    ctypedef struct mf_object_slot:
        uintptr_t key
        uint32_t number

    ctypedef struct mf_objects:
        mf_object_slot *slots
        size_t mask
        size_t used

    ctypedef struct mf_value_slot:
        uintptr_t key
        uint64_t hash
        uint32_t number
        uint32_t used_again

    ctypedef struct mf_values:
        mf_value_slot *slots
        size_t mask
        size_t used

    int mf_objects_add(mf_objects *table, uintptr_t key, uint32_t number)
    const mf_object_slot *mf_objects_find(const mf_objects *table, uintptr_t key)
    int mf_values_add(mf_values *table, uintptr_t key, uint64_t hash, uint32_t number)
    mf_value_slot *mf_values_next(const mf_values *table, uint64_t hash, const mf_value_slot *last)


cdef extern from "Python.h":
    Py_ssize_t PyObject_Hash(object value) except? -1
    int PyObject_RichCompareBool(object one, object other, int operation) except -1
    int Py_EQ


ctypedef fused mf_table:
    mf_objects
    mf_values


cdef inline void clear_table(mf_table *table) noexcept:
    cdef mf_table old = table[0]
    cdef size_t at
    table.slots = NULL
    table.used = table.mask = 0
    if old.slots != NULL:
        for at in range(old.mask + 1):
            if old.slots[at].key:
                Py_DECREF(<object> <PyObject *> old.slots[at].key)
    free(old.slots)


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


cdef inline mf_value_slot *value_slot(const mf_values *table, object value, uint64_t hash) except? NULL:
    """Where an equal value is remembered, or NULL. Comparing runs no code of any class: of texts, bytes and what stands
    for a long one."""
    cdef mf_value_slot *slot = mf_values_next(table, hash, NULL)
    while slot != NULL:
        if PyObject_RichCompareBool(<object> <PyObject *> slot.key, value, Py_EQ):
            return slot
        slot = mf_values_next(table, hash, slot)
    return NULL


cdef inline int add_value(mf_values *table, object value, uint64_t hash, uint32_t number) except -1:
    if mf_values_add(table, <uintptr_t> <void *> value, hash, number) < 0:
        raise MemoryError()
    Py_INCREF(value)
    return 0


cdef inline int keep_referenced(mf_values *table, size_t most) except -1:
    """Forget what was not referred to since it was added or kept, and all if more than ``most`` would stay."""
    cdef mf_values old = table[0]
    cdef mf_value_slot *slot
    cdef size_t at, stay = 0
    for at in range(old.mask + 1):
        stay += old.slots[at].key != 0 and old.slots[at].used_again
    table.slots = NULL
    table.used = table.mask = 0
    try:
        if stay <= most:
            for at in range(old.mask + 1):
                slot = &old.slots[at]
                if slot.key and slot.used_again:
                    add_value(table, <object> <PyObject *> slot.key, slot.hash, slot.number)
    finally:
        clear_table(&old)
    return 0
