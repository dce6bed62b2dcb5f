# cython: language_level=3, boundscheck=False, wraparound=False
"""What the pickler asks about objects: the name of a class, whether a graph is plain, how a set is ordered."""

import builtins
import re
import sys
from hashlib import sha256
from operator import itemgetter
from pickle import PicklingError, whichmodule

cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport uintptr_t
from libc.stdlib cimport free
from libc.string cimport memset

from memo cimport mf_objects, mf_objects_add, mf_objects_find
from stack cimport Py_LeaveRecursiveCall, look_further, mf_enter_recursion, mf_stack_first_look, mf_stack_here


cdef extern from "Python.h":
    PyTypeObject PyUnicode_Type, PyLong_Type, PyFloat_Type, PyBool_Type, PyBytes_Type, PyByteArray_Type, PyComplex_Type
    PyTypeObject PyDict_Type, PyList_Type, PyTuple_Type, PySet_Type, PyFrozenSet_Type
    PyObject *Py_None
    PyTypeObject *Py_TYPE(PyObject *value)
    Py_ssize_t Py_REFCNT(PyObject *value)
    int PyDict_Next(PyObject *mapping, Py_ssize_t *position, PyObject **key, PyObject **value)
    PyObject *PyList_GET_ITEM(PyObject *items, Py_ssize_t index)
    Py_ssize_t PyList_GET_SIZE(PyObject *items)
    PyObject *PyTuple_GET_ITEM(PyObject *items, Py_ssize_t index)
    Py_ssize_t PyTuple_GET_SIZE(PyObject *items)


cdef object _atoms = frozenset([type(None), bool, int, float, str, bytes])


def find_global(obj, name=None):
    """Module and qualified name under which ``obj`` (a class, a function, a singleton) is found again.

    PicklingError when it is not: defined inside a function, renamed, or shadowed by another object.
    """
    if name is None:
        name = getattr(obj, "__qualname__", None) or obj.__name__
    module = None
    try:
        module = whichmodule(obj, name)
        __import__(module, level=0)
        found = sys.modules[module]
        for part in name.split("."):
            if part == "<locals>":
                raise AttributeError("it is defined inside a function")
            found = getattr(found, part)
    except Exception as error:  # whichmodule looks into every module, and some lazy ones raise anything
        raise PicklingError(f"Can't pickle {obj!r:.200}: it's not found as {module}.{name} ({error})") from None
    if found is not obj:
        raise PicklingError(f"Can't pickle {obj!r:.200}: it's not the same object as {module}.{name}")
    return module, name


# Of a buffer's format (PEP 3118, and the letters that ctypes adds): objects and pointers, outside of names.
cdef object _names = re.compile(":[^:]*:")
cdef object _addresses = re.compile("[OPXz&]|Z(?![fdg])")


def holds_addresses(kind):
    """Whether memory of this format (``memoryview.format``) holds addresses of this process, as an array of objects
    does: its bytes mean nothing to anybody else."""
    return kind != "B" and _addresses.search(_names.sub("", kind)) is not None


cdef extern from *:
    """
    /* What Python gives to the classes of class statements, and to nobody else. */
    static int mf_same_end(PyObject *one, PyObject *other) {
        return ((PyTypeObject *) one)->tp_dealloc == ((PyTypeObject *) other)->tp_dealloc;
    }
    """
    bint mf_same_end(object one, object other)


class _Made:
    """A class of a class statement."""


def counts_references(kind, counted):
    """Whether whatever leads to an instance of ``kind`` is a reference that Python counts, or a weak one: true of
    classes of Python code, and of classes in C from the modules named in ``counted``. Others may find an object again
    that they hold by means of their own, as torch does tensors."""
    return all([_is_from(base, counted) or mf_same_end(base, _Made) for base in kind.__mro__])


def is_from_all(kind, modules):
    """Whether ``kind`` and what it comes from are classes in C of these modules, and their instances are written by
    code of theirs alone."""
    return all([_is_from(base, modules) for base in kind.__mro__])


cdef bint _is_from(base, counted):
    # A class in C that names no module says that it is a builtin one.
    module = base.__module__
    return module in counted and (module != "builtins" or getattr(builtins, base.__name__, None) is base)


cdef enum:
    LEAF = 0
    CONTAINER = 1
    OTHER = 2


cdef inline int sort_of(PyObject *obj):
    cdef PyTypeObject *kind = Py_TYPE(obj)
    if kind == &PyUnicode_Type or kind == &PyLong_Type or kind == &PyFloat_Type or obj == Py_None:
        return LEAF
    if kind == &PyDict_Type or kind == &PyList_Type or kind == &PyTuple_Type:
        return CONTAINER
    if kind == &PySet_Type or kind == &PyFrozenSet_Type:
        return CONTAINER
    if kind == &PyBool_Type or kind == &PyBytes_Type or kind == &PyByteArray_Type or kind == &PyComplex_Type:
        return LEAF
    return OTHER


def is_plain(root):
    """Whether ``root`` holds nothing but exact builtin containers and atoms.

    Pickling such a graph runs no code of any class, so an object in it is reached only through the containers that
    hold a counted reference to it. Memory: a pointer per waiting container and 32 bytes per one that more than one
    refers to. Of another thread no code runs until this is done.
    """
    cdef Waiting waiting = Waiting()
    cdef mf_objects seen
    memset(&seen, 0, sizeof(seen))
    try:
        return waiting.all_plain(<PyObject *> root, &seen)
    finally:
        free(seen.slots)


@cython.final
cdef class Waiting:
    """Containers that were not looked into yet. They are held by those that hold them, since no code runs meanwhile."""

    cdef PyObject **items
    cdef size_t used, room

    def __dealloc__(self):
        PyMem_Free(self.items)

    cdef int add(self, PyObject *item) except -1:
        """0 if it is neither an atom nor a container."""
        cdef int sort = sort_of(item)
        cdef PyObject **grown
        if sort == CONTAINER:
            if self.used == self.room:
                grown = <PyObject **> PyMem_Realloc(self.items, (self.room * 2 + 64) * sizeof(PyObject *))
                if grown == NULL:
                    raise MemoryError()
                self.items, self.room = grown, self.room * 2 + 64
            self.items[self.used] = item
            self.used += 1
        return sort != OTHER

    cdef bint all_plain(self, PyObject *root, mf_objects *seen) except -1:
        cdef PyObject *obj
        cdef PyObject *key
        cdef PyObject *value
        cdef Py_ssize_t position, at
        if not self.add(root):
            return False
        while self.used:
            self.used -= 1
            obj = self.items[self.used]
            # One reference is the only container's: such an object is not met again.
            if Py_REFCNT(obj) > 1:
                if mf_objects_find(seen, <uintptr_t> obj) != NULL:
                    continue
                if mf_objects_add(seen, <uintptr_t> obj, 0) < 0:
                    raise MemoryError()
            if Py_TYPE(obj) == &PyDict_Type:
                position = 0
                while PyDict_Next(obj, &position, &key, &value):
                    if not self.add(key) or not self.add(value):
                        return False
            elif Py_TYPE(obj) == &PyList_Type:
                for at in range(PyList_GET_SIZE(obj)):
                    if not self.add(PyList_GET_ITEM(obj, at)):
                        return False
            elif Py_TYPE(obj) == &PyTuple_Type:
                for at in range(PyTuple_GET_SIZE(obj)):
                    if not self.add(PyTuple_GET_ITEM(obj, at)):
                        return False
            else:
                for item in <object> obj:
                    if not self.add(<PyObject *> item):
                        return False
        return True


# How deep elements may lie in sets of elements to be ordered. Each level is a pickle inside of a pickle; objects that
# reach each other through sets would otherwise be followed to their end.
cdef enum:
    DEPTH = 8


cdef class ContentOrder:
    """Sorts the elements of sets by their content. ``value_pickle`` gives a value's own pickle, or None if it is no
    value; ``element_pickle`` that of anything else, or None if it has none that is short.

    Lives as long as one object is pickled: it remembers the keys of nested tuples and frozensets and of objects, so
    that ordering costs no more than the size of what is ordered.
    """

    cdef object value_pickle, element_pickle
    cdef int depth
    cdef dict keys
    cdef list alive
    cdef uintptr_t floor

    def __cinit__(self, value_pickle, element_pickle):
        self.value_pickle = value_pickle
        self.element_pickle = element_pickle
        self.depth = 0
        self.keys = {}
        self.alive = []

    def sort(self, items):
        """The elements in order, or as they come when one of them has no order of its own."""
        if len(items) < 2:
            return list(items)
        self.floor = mf_stack_first_look()
        keyed = [(self.key(item), item) for item in items]
        if any(key is None for key, _ in keyed):
            return list(items)
        keyed.sort(key=itemgetter(0))
        return [item for _, item in keyed]

    cdef object key(self, object item):
        cdef object kind = type(item)
        if kind is int:
            return b"int" + hex(item).encode()
        if kind in _atoms:
            return f"{kind.__name__}:{item!r}".encode("utf-8", "surrogatepass")
        if kind is not tuple and kind is not frozenset:
            known = self.value_pickle(item)
            return known if known is not None else self.object_key(item)
        known = self.keys.get(id(item))
        if known is not None:
            return known
        # Frozensets know their hashes, so they can be nested more deeply than the stack bears.
        mf_enter_recursion(b" while ordering a set")
        try:
            if mf_stack_here() < self.floor:
                self.floor = look_further(b"an element of a set")
            inner = [self.key(part) for part in item]
        finally:
            Py_LeaveRecursiveCall()
        if None in inner:
            return None
        if kind is frozenset:
            inner.sort()
        # A digest, so that the keys of nested ones stay short.
        key = sha256(kind.__name__.encode() + b"".join([sha256(part).digest() for part in inner])).digest()
        self.keys[id(item)] = key
        self.alive.append(item)
        return key

    cdef object object_key(self, object item):
        if id(item) in self.keys:
            return self.keys[id(item)]
        # None while it is being asked for: what leads back to itself has no order, and neither has what failed.
        self.keys[id(item)] = None
        self.alive.append(item)
        if self.depth < DEPTH:
            self.depth += 1
            try:
                self.keys[id(item)] = self.element_pickle(item, self)
            finally:
                self.depth -= 1
        return self.keys[id(item)]
