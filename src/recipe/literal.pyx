# cython: language_level=3
"""Recipes of one literal without a name, written and read; ``mfstore.format.recipes`` has those of everything else."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.string cimport memcpy


cdef extern from "recipe/records.h" nogil:
    size_t MF_RECIPE_HEADER
    size_t MF_LITERAL_BEGINS
    size_t MF_NONCE
    void mf_literal_begin(uint8_t algorithm, uint8_t encoding, size_t length, uint8_t *out)
    void mf_literal_header(
        uint8_t algorithm, const uint8_t *tables, size_t content, size_t length, const uint8_t *nonce, uint8_t *out
    )
    size_t mf_literal_content(const uint8_t *data, size_t length, uint8_t encoding, uint8_t *algorithm)


def content_of(uint8_t algorithm, uint8_t encoding, literal):
    """The content section of a literal, which is any buffer."""
    if not PyBytes_CheckExact(literal):
        literal = bytes(literal)
    cdef size_t length = PyBytes_GET_SIZE(literal)
    cdef bytes content = PyBytes_FromStringAndSize(NULL, MF_LITERAL_BEGINS + length)
    cdef uint8_t *out = <uint8_t *> PyBytes_AS_STRING(content)
    mf_literal_begin(algorithm, encoding, length, out)
    memcpy(out + MF_LITERAL_BEGINS, PyBytes_AS_STRING(literal), length)
    return content


def recipe_of(uint8_t algorithm, bytes content not None, bytes about not None, bytes nonce not None):
    """The whole recipe of a literal, by its content section and what is said of it; not compressed."""
    cdef size_t length = PyBytes_GET_SIZE(content), behind = PyBytes_GET_SIZE(about)
    cdef bytes recipe = PyBytes_FromStringAndSize(NULL, MF_RECIPE_HEADER + length + behind)
    cdef uint8_t *out = <uint8_t *> PyBytes_AS_STRING(recipe)
    cdef uint8_t *tables = out + MF_RECIPE_HEADER
    if <size_t> PyBytes_GET_SIZE(nonce) != MF_NONCE:
        raise ValueError("a nonce has 8 bytes")
    memcpy(tables, PyBytes_AS_STRING(content), length)
    memcpy(tables + length, PyBytes_AS_STRING(about), behind)
    mf_literal_header(algorithm, tables, length, length + behind, <const uint8_t *> PyBytes_AS_STRING(nonce), out)
    return recipe


def literal_of(uint8_t encoding, digests, bytes data not None, key):
    """The literal, from a whole recipe; None of any other recipe, and of one whose content section has not the digest
    that ``key`` has, by that of ``digests`` which it names."""
    cdef const uint8_t *start = <const uint8_t *> PyBytes_AS_STRING(data)
    cdef uint8_t algorithm = 0
    cdef size_t length = mf_literal_content(start, PyBytes_GET_SIZE(data), encoding, &algorithm)
    cdef bytes found
    if length == 0:
        return None
    digest = digests.get(algorithm)
    if digest is None:
        return None
    start += MF_RECIPE_HEADER
    found = digest(PyBytes_FromStringAndSize(<const char *> start, length))
    if found.hex() != key:
        return None
    return PyBytes_FromStringAndSize(<const char *> start + MF_LITERAL_BEGINS, length - MF_LITERAL_BEGINS)
