# Plain requests: items become requests, and good replies outcomes, without a call, a reply or a job in between.
# Part of transfer.pyx.

cdef extern from "http/plain.h" nogil:
    ctypedef struct mf_plain "struct mf_plain":
        mf_text etag
        int64_t length
        int verified

    int mf_plain_reply(const mf_xfer *xfer, int verify, mf_plain *found)


cdef extern from *:
    """
    #include "structmember.h"

    /* A slot of a class that has __slots__: where in its objects it lies, or 0 for none. */
    static Py_ssize_t mf_slot_of(PyObject *descriptor) {
        PyMemberDef *member;
        if (!PyObject_TypeCheck(descriptor, &PyMemberDescr_Type))
            return 0;
        member = ((PyMemberDescrObject *) descriptor)->d_member;
        return member->type == T_OBJECT_EX && !(member->flags & READONLY) ? member->offset : 0;
    }

    /* The value of a slot of an object that was just made; takes over the reference. */
    static void mf_fill(PyObject *made, Py_ssize_t slot, PyObject *value) {
        *(PyObject **) ((char *) made + slot) = value;
    }
    """
    Py_ssize_t mf_slot_of(object descriptor)
    void mf_fill(object made, Py_ssize_t slot, PyObject *value)


cdef extern from "Python.h":
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    const char *PyUnicode_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    object PyUnicode_Substring(object text, Py_ssize_t start, Py_ssize_t stop)
    str PyUnicode_DecodeASCII(const char *at, Py_ssize_t n, const char *errors)
    object PyType_GenericAlloc(type cls, Py_ssize_t n)
    int PyMemoryView_Check(object view)
    Py_buffer *PyMemoryView_GET_BUFFER(object view)


cdef enum Slot:
    INDEX, ITEM, BUCKET, KEY, DATA, PATH, SIZE, ETAG, ERROR, HEADERS, ATTEMPTS, SECONDS, FIRST_SECONDS, LAST, MEMORY
    SLOTS

cdef tuple slot_names = (
    "index", "item", "bucket", "key", "data", "path", "size", "etag", "error", "headers", "attempts", "seconds",
    "first_byte", "last", "memory",
)
cdef type outcome_class = None
cdef Py_ssize_t[15] slots


cdef int learn(cls) except -1:
    """Where the fields of an outcome lie. Its constructor takes a microsecond, which is a fifth of a small GET."""
    global outcome_class
    cdef int i
    for i in range(<int> SLOTS):
        slots[i] = mf_slot_of(cls.__dict__[slot_names[i]])
        if slots[i] == 0:
            raise TypeError(f"{cls.__qualname__}.{slot_names[i]} is no slot")
    if len([name for name in cls.__slots__ if name not in slot_names]) > 0:
        raise TypeError(f"{cls.__qualname__} has slots that nobody fills")
    outcome_class = cls
    return 0


cdef inline void fill(object made, int slot, object value):
    Py_INCREF(value)
    mf_fill(made, slots[slot], <PyObject *> value)


cdef enum:
    MOST_KEY = 1024  # bytes, in S3
    OUTCOME_BYTES = 2 << 10  # as in scheduler.py

# Why Lane.take took no more.
NO_ROOM, ODD_ITEM, NO_MORE = range(3)


@cython.final
cdef class Lane:
    """See mfstore.s3.engines.interface.Lane. Here the caller brings routes and credentials.

    ``outcome``: the class of outcomes. ``adopt`` makes the call of a plain request that needs one: its arguments are
    the item's number, the item, the memory reserved for it, when it was sent, and by which credentials.
    """

    cdef PyObject *held  # the channel, which whoever has the lane keeps: requests under way hold their lane
    cdef object adopt
    cdef str bucket, url
    cdef mf_operation operation
    cdef bint verify, targets, bare, ended
    cdef int crc_kind
    cdef int64_t longest
    cdef readonly Py_ssize_t flying
    cdef list outcomes, durations
    cdef double now, seconds, finished
    cdef int64_t moved, verified, memory, sizes

    def __cinit__(self, Channel channel, outcome, adopt, int operation, str bucket, bint bare, bint verify,
                  checksum, bint targets, int64_t longest):
        if outcome is not outcome_class:
            learn(outcome)
        self.held = <PyObject *> channel
        self.adopt = adopt
        self.operation = <mf_operation> operation
        if not bucket.isascii():
            raise ValueError("a bucket's name is ASCII")
        self.bucket = bucket
        self.url = f"s3://{bucket}/"
        self.bare = bare
        self.verify = verify
        self.crc_kind = MF_NO_CRC if checksum is None else CHECKSUMS.index(checksum)
        self.targets = targets
        self.longest = longest
        self.clear()

    cdef inline Channel channel(self):
        return <Channel> self.held

    cdef void clear(self):
        self.outcomes = []
        self.durations = []
        self.seconds = self.finished = 0.0
        self.moved = self.verified = self.memory = self.sizes = 0

    # ---- items -------------------------------------------------------------------------

    cdef bint set_key(self, Pending pending, text) except -1:
        """Whether it is a key of this bucket, or its URL, of which nobody needs another look."""
        cdef Py_ssize_t n, begin = 0
        cdef const char *at
        if type(text) is not str or not PyUnicode_IS_COMPACT_ASCII(text):
            return False
        n = PyUnicode_GET_LENGTH(text)
        at = PyUnicode_DATA(text)
        if n >= 5 and memcmp(at, b"s3://", 5) == 0:
            begin = PyUnicode_GET_LENGTH(self.url)
            if n <= begin or memcmp(at, PyUnicode_DATA(self.url), begin) != 0:
                return False
            text = PyUnicode_Substring(text, begin, n)
            at = PyUnicode_DATA(text)
            n -= begin
        elif not self.bare:
            return False
        if n == 0 or n > MOST_KEY:
            return False
        pending.key = text
        pending.xfer.key.at = at
        pending.xfer.key.n = n
        pending.xfer.has_key = 1
        return True

    cdef bint set_range(self, Pending pending, start, length):
        """Whether it is a range that has bytes: some from a byte on, all from there, or the last ones."""
        cdef mf_xfer *x = pending.xfer
        if type(start) is not int or not -(1 << 62) < start < 1 << 62:
            return False
        x.start = start
        if length is None:
            if self.targets:
                return False
        elif x.start < 0:
            return False
        elif type(length) is not int or not 0 < length < 1 << 62:
            return False
        else:
            x.stop = x.start + <int64_t> length
        x.has_range = 1
        return True

    cdef bint set_target(self, Pending pending, target):
        """Whether it is as many bytes as the range has."""
        cdef mf_xfer *x = pending.xfer
        cdef Py_buffer *view
        if not PyMemoryView_Check(target) or x.stop - x.start > self.longest:
            return False
        view = PyMemoryView_GET_BUFFER(target)
        if view.readonly or view.ndim != 1 or view.itemsize != 1 or view.len != x.stop - x.start:
            return False
        try:
            PyObject_GetBuffer(target, &pending.target, PyBUF_SIMPLE | PyBUF_WRITABLE)
        except (BufferError, ValueError):
            return False
        pending.has_target = True
        pending.body = target
        x.target.at = <uint8_t *> pending.target.buf
        x.target.fd = -1
        x.target.n = pending.target.len
        x.has_target = 1
        x.cut = 1
        return True

    cdef bint set_body(self, Pending pending, data) except -1:
        """Whether it is bytes or text that are sent in one request."""
        cdef mf_xfer *x = pending.xfer
        if type(data) is str:
            try:
                data = (<str> data).encode("utf-8")
            except UnicodeEncodeError:
                return False
        if type(data) is not bytes or len(<bytes> data) > self.longest:
            return False
        pending.body = data
        pending.part.at = <const uint8_t *> PyBytes_AS_STRING(data)
        pending.part.n = x.body_n = len(<bytes> data)
        x.parts = &pending.part
        x.parts_n = 1 if x.body_n else 0
        x.has_body = 1
        x.crc_kind = self.crc_kind
        return True

    cdef bint read(self, Pending pending, item) except -1:
        """Whether the item is one plain request, which ``pending`` then is."""
        cdef tuple given
        cdef Py_ssize_t n
        pending.item = item
        if self.operation == MF_HEAD or type(item) is str:
            return self.operation != MF_PUT and not self.targets and self.set_key(pending, item)
        if type(item) is not tuple:
            return False
        given = <tuple> item
        n = len(given)
        if self.operation == MF_PUT:
            if n != 2:
                return False
            pending.item = given[0]
            return self.set_key(pending, given[0]) and self.set_body(pending, given[1])
        if n != (4 if self.targets else 3) or not self.set_key(pending, given[0]):
            return False
        if not self.set_range(pending, given[1], given[2]):
            return False
        return not self.targets or self.set_target(pending, given[3])

    def take(self, items, left, Py_ssize_t most, int64_t memory, Py_ssize_t weight, bint alone, double now,
             WireRoute route, WireCredentials credentials, signed_by, double skew, double first_byte, double stall):
        """Start up to ``most`` of ``left``, if it is not None, and ``items``: pairs of a number and an item.

        Returns how many were started, the memory they take, why no more (``NO_ROOM``, ``ODD_ITEM`` or ``NO_MORE``), the pair that was looked at
        last and not started, or None, and of those that could not be started the calls."""
        cdef list pendings = []
        cdef Pending pending
        cdef int64_t taken = 0, own
        cdef int why = NO_ROOM, code
        cdef Py_ssize_t i, n = 0
        cdef object pair
        cdef object advance = iter(items)
        while n < most:
            if left is not None:
                pair, left = left, None
            else:
                pair = next(advance, None)
                if pair is None:
                    why = NO_MORE
                    break
            pending = Pending()
            pending.begin(route, credentials, skew, first_byte, stall)
            if not self.read(pending, (<tuple> pair)[1]):
                why, left = ODD_ITEM, pair
                break
            own = weight
            if self.operation == MF_PUT and pending.xfer.body_n:
                own = pending.xfer.body_n
            elif self.targets:
                own = 1
            if not alone and own > memory - taken:
                left = pair
                break
            alone = False
            taken += own
            pending.index = (<tuple> pair)[0]
            pending.given = (<tuple> pair)[1]
            pending.weight = own
            pending.sent = now
            pending.signed_by = signed_by
            pending.lane = self
            pendings.append(pending)
            n += 1
        if not n:
            return 0, 0, why, left, ()
        code = self.channel().start(pendings)
        if code:
            calls = [self.call_of(pending) for pending in pendings]
            return n, taken, why, left, calls
        self.flying += n
        return n, taken, why, left, ()

    cdef object call_of(self, Pending pending):
        return self.adopt(pending.index, pending.given, pending.weight, pending.sent, pending.signed_by)

    # ---- replies -----------------------------------------------------------------------

    cdef bint land(self, Pending pending) except -1:
        """Whether the reply is the good one: then its outcome is there."""
        cdef mf_xfer *x = pending.xfer
        cdef mf_plain found
        cdef object outcome, data = None, size, key, etag = None, headers
        cdef int64_t memory = OUTCOME_BYTES
        cdef double seconds
        if self.ended or not mf_plain_reply(x, self.verify, &found):
            return False
        if found.etag.n:
            etag = PyUnicode_DecodeASCII(found.etag.at, found.etag.n, NULL)
        if self.operation == MF_PUT:
            size = x.body_n
        elif self.operation == MF_HEAD:
            size = found.length
        else:
            size = x.received
            memory = max(memory, <int64_t> x.received)
            data = pending.body if self.targets else PyBytes_FromStringAndSize(<char *> x.data, x.data_n)
            if found.verified:
                self.verified += x.received
        if self.targets:
            # Nobody asked for more than the bytes.
            headers, etag = {}, None
        else:
            headers = Headers.__new__(Headers)
            (<Headers> headers).raw = PyBytes_FromStringAndSize(x.head, x.head_n)
        outcome = PyType_GenericAlloc(outcome_class, 0)
        fill(outcome, INDEX, pending.index)
        fill(outcome, ITEM, pending.item)
        fill(outcome, BUCKET, self.bucket)
        fill(outcome, KEY, pending.key)
        fill(outcome, DATA, data)
        fill(outcome, PATH, None)
        fill(outcome, SIZE, size)
        fill(outcome, ETAG, etag)
        fill(outcome, ERROR, None)
        fill(outcome, HEADERS, headers)
        fill(outcome, ATTEMPTS, 1)
        fill(outcome, SECONDS, self.now - pending.sent)
        fill(outcome, FIRST_SECONDS, 1e-9 * (x.first_ns - x.submitted_ns))
        fill(outcome, LAST, True)
        fill(outcome, MEMORY, memory)
        seconds = 1e-9 * (x.finished_ns - x.submitted_ns)
        self.outcomes.append(outcome)
        self.durations.append(seconds)
        self.seconds += seconds
        self.finished = max(self.finished, 1e-9 * x.finished_ns)
        self.moved += x.received
        self.sizes += size
        self.memory += memory - pending.weight
        self.flying -= 1
        return True

    cdef bint hand_over(self, Pending pending) except -1:
        """Make a plain request a call like others. False when the lane has ended: nobody waits for it."""
        self.flying -= 1
        pending.lane = None
        if self.ended:
            return False
        pending.call = self.call_of(pending)
        self.channel().live[id(pending.call)] = pending
        return True

    def landed(self):
        """See mfstore.s3.engines.interface.Landed: its fields, or None for nothing."""
        if not self.outcomes:
            return None
        found = (
            self.outcomes, self.durations, self.finished, self.sizes, self.moved, self.verified, self.memory
        )
        self.clear()
        return found

    def oldest(self):
        """The least number of an item whose request is under way; None without any."""
        cdef mf_xfer *x = self.channel().own
        cdef Pending pending
        cdef object found = None
        while x != NULL:
            pending = <Pending> x.owner
            if pending.lane is self and (found is None or pending.index < found):
                found = pending.index
            x = x.own_next
        return found

    def hand_over_late(self, double before):
        """Make each request under way that was sent before then a call like others."""
        cdef mf_xfer *x = self.channel().own
        cdef Pending pending
        cdef list found = []
        while x != NULL:
            pending = <Pending> x.owner
            if pending.lane is self and pending.sent < before:
                found.append(pending)
            x = x.own_next
        for pending in found:
            self.hand_over(pending)

    def end(self):
        """Cancel all. Nothing more comes of it, but ``flying`` goes to 0 by polling the channel."""
        cdef mf_xfer *x = self.channel().own
        cdef mf_engine *engine
        self.ended = True
        self.adopt = None
        self.clear()
        if self.channel().c == NULL or self.channel().pid != getpid():
            return
        engine = self.channel().engine.here()
        while x != NULL:
            if (<Pending> x.owner).lane is self:
                mf_xfer_cancel(engine, x)
            x = x.own_next
