# The headers of a response, as transfer.pyx hands them on.

cdef enum:
    MANY = 24  # lines of headers that are found without the mapping
    UNSEEN = -1
    ODD = -2


cdef struct Line:
    uint16_t name, name_stop, value, stop


cdef inline bint blank(char c) noexcept nogil:
    return c == b" " or c == b"\t"


cdef inline char lower(char c) noexcept nogil:
    return c + 32 if b"A" <= c <= b"Z" else c


@cython.final
@cython.no_gc
cdef class Headers:
    """The headers of a response, from its header lines: a mapping of lower-case names to values.

    The mapping is made when first looked at as a whole. Single names are looked for among the lines: a small GET asks for
    seven, which takes 1.7 us instead of 6.
    """

    cdef bytes raw
    cdef dict made
    cdef Line[MANY] lines
    cdef int lines_n

    def __cinit__(self, bytes raw=b""):
        self.raw = raw
        self.lines_n = UNSEEN

    cdef void split(self) noexcept:
        """Find the lines; ODD when they are many or long, or one is folded: those only the mapping understands."""
        cdef const char *at = PyBytes_AS_STRING(self.raw)
        cdef Py_ssize_t n = len(self.raw), i = 0, stop
        cdef Line *line
        self.lines_n = ODD
        if n > UINT16_MAX:
            return
        cdef int count = 0
        while i < n:
            if blank(at[i]) or count == MANY:
                return
            line = &self.lines[count]
            line.name = i
            while i < n and at[i] != b":" and not (at[i] == b"\r" and i + 1 < n and at[i + 1] == b"\n"):
                i += 1
            if i == n or at[i] != b":":
                i += 2
                continue
            stop = i
            while stop > line.name and blank(at[stop - 1]):
                stop -= 1
            line.name_stop = stop
            i += 1
            while i < n and blank(at[i]):
                i += 1
            line.value = i
            while i < n and not (at[i] == b"\r" and i + 1 < n and at[i + 1] == b"\n"):
                i += 1
            stop = i
            while stop > line.value and blank(at[stop - 1]):
                stop -= 1
            line.stop = stop
            i += 2
            count += 1
        self.lines_n = count

    cdef object find(self, name, default):
        cdef const char *at = PyBytes_AS_STRING(self.raw)
        cdef const char *wanted
        cdef Py_ssize_t n
        cdef int number, i
        cdef Line line
        if self.lines_n == UNSEEN:
            self.split()
        if self.lines_n == ODD or type(name) is not str or not (<str> name).isascii():
            return self.whole().get(name, default)
        wanted = PyUnicode_AsUTF8AndSize(name, &n)
        for number in range(self.lines_n):
            line = self.lines[number]
            if line.name_stop - line.name != n:
                continue
            i = 0
            while i < n and lower(at[line.name + i]) == wanted[i]:
                i += 1
            if i == n:
                return PyUnicode_DecodeUTF8(at + line.value, line.stop - line.value, "surrogateescape")
        return default

    cdef dict whole(self):
        cdef dict made
        if self.made is None:
            made = {}
            last = None
            for line in self.raw.decode("utf-8", "surrogateescape").split("\r\n"):
                if line[:1] in (" ", "\t"):
                    if last is not None:
                        made[last] += " " + line.strip(" \t")
                    continue
                name, colon, value = line.partition(":")
                if colon:
                    last = name.strip(" \t").lower()
                    if last in made:
                        last = None
                    else:
                        made[last] = value.strip(" \t")
            self.made = made
        return self.made

    def __getitem__(self, name):
        found = self.find(name, None)
        if found is None:
            raise KeyError(name)
        return found

    def __contains__(self, name):
        return self.find(name, None) is not None

    def get(self, name, default=None):
        return self.find(name, default)

    def __iter__(self):
        return iter(self.whole())

    def __len__(self):
        return len(self.whole())

    def keys(self):
        return self.whole().keys()

    def values(self):
        return self.whole().values()

    def items(self):
        return self.whole().items()

    def __eq__(self, other):
        return self.whole() == ((<Headers> other).whole() if isinstance(other, Headers) else other)

    __hash__ = None

    def __repr__(self):
        return repr(self.whole())

    def __reduce__(self):
        return dict, (self.whole(),)
