"""Objects to segments and back: what is specific to Python and pandas.

Saving hands each large payload to the sink without a copy; loading lets the unpickler place
buffers that already lie in their final memory.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from mfstore._core.cycles import without_search
from mfstore._core.pickler import Pickler
from mfstore.errors import CorruptObject, MfstoreError, NotSerializable
from mfstore.format.recipes import Segment
from mfstore.pickling.arrays import array_reducers, flat_arrays, reduce_in_file, short_arrays, without_metadata
from mfstore.records import NamedTuple

if TYPE_CHECKING:
    from types import ModuleType

    from typing_extensions import Buffer

    from mfstore._core.pickler import Arrays, Sink

# BYTEARRAY8, BINBYTES8 or BINUNICODE8 and a 64-bit length precede every spliced payload.
HEADER = 9
NEXT_BUFFER = b"\x97"
PIECE = 256 << 10
"""Bytes of another pickler's stream that CPython's unpickler gets at a time: between two pieces others have their turn,
among them the event loop that waits for this thread. A MiB of numbers and short texts takes 15 ms."""
SHORT = 1024
"""Pickles of up to so many bytes are CPython's to read: it begins sooner, and a process that has no others need not
load an unpickler."""


def dump(
    obj: object, sink: Sink, name: str | None = None, modules: list[str] | None = None, by_value: bool = False
) -> int:  # fmt: skip
    """Pickle ``obj`` into ``sink``; returns the length of the body.

    ``name`` is the artifact's name for the error message. NotSerializable names the path to the part
    that cannot be pickled. ``modules`` gets the module of each class and function that is needed to load it; of those
    that the program itself defines with their names, as ``__main__:Model``. ``by_value``: functions and classes that
    no other program finds are written as what they are, by cloudpickle.
    """
    known = _known_types()
    pickler = Pickler(
        sink,
        _with_functions(known.reducers) if by_value else known.reducers,
        known.values,
        known.once,
        counted=_COUNTED,
        arrays=known.arrays,
        modules=modules,
    )
    try:
        return pickler.dump(obj)
    except Exception as error:
        path = pickler.path()
        label = f"artifact {name!r}" if name is not None else "the object"
        where = f" at {'obj' if name is None else name}{path}" if path else ""
        if isinstance(error, (MfstoreError, OSError, MemoryError)):
            error.add_note(f"while pickling {label}{where}")
            raise
        hint = "Remove that part, or give its class a __reduce__ or __getstate__"
        if isinstance(error, pickle.PicklingError) and not by_value:
            # A function or a class that is not found where it says.
            hint += "; of functions and classes that a program defines itself: put(obj, pickler='cloudpickle')"
        if isinstance(error, RecursionError):
            hint = "Save it from a thread with more stack (threading.stack_size) or with a higher sys.setrecursionlimit"
        raise NotSerializable(
            f"{label} cannot be pickled{where}: {type(error).__name__}: {error}", hint=hint
        ) from error


def load(body: Iterable[Buffer], segments: Sequence[Segment], payloads: Iterable[Any], *, writable: bool = True) -> Any:
    """Unpickle an artifact from the blocks of its body and the objects its segments became.

    Each of ``payloads`` is used as is for its segment, and taken when it is needed: writable memory makes a writable
    array. With ``writable`` false small arrays, which lie in the body, are made read-only too. Executes pickle: only
    for trusted stores.
    """
    kind = pickle.Unpickler if writable else _ReadOnly
    source = iter(body)
    begun = list(islice(source, 2)) or [b""]
    whole = len(begun) < 2
    pieces: Iterable[Buffer]
    try:
        if whole and writable and not segments and memoryview(begun[0]).nbytes <= SHORT:
            return without_search(pickle.loads, begun[0])
        # Whoever has short pickles alone need not load it.
        from mfstore._core.unpickler import Unpickler

        own = Unpickler(partial(finder, kind), payloads, flat_arrays)
        if whole:
            pieces = held = list(placeholders(begun, segments)) if segments else begun
            is_ours = own.looks_through(held)
        else:
            # What a body refers to that is not there as a whole is not known. Whose it is its first block tells.
            blocks: Iterator[Buffer] = chain(_taken(begun), source)
            blocks = placeholders(blocks, segments) if segments else blocks
            first = [next(blocks, b"")]
            is_ours = own.begins(first[0])
            pieces = chain(_taken(first), blocks)
        if is_ours:
            return without_search(own.load, pieces)
        # Another pickler than mfstore's has written it.
        return without_search(kind(block_stream(iter(pieces)), buffers=payloads).load)
    except (pickle.UnpicklingError, EOFError) as error:
        if _is_of_others(error):
            raise
        raise _no_pickle(error) from error


def finder(kind: type[pickle.Unpickler]) -> Callable[[str, str], Any]:
    """What finds a class or a function as ``kind`` does in a pickle of protocol 5."""
    unpickler = kind(io.BytesIO(b"\x80\x05N."))
    unpickler.load()
    return unpickler.find_class


def load_literal(body: Any) -> Any:
    """Unpickle a body that has no segments, into writable arrays. Executes pickle, as ``load``."""
    try:
        return without_search(pickle.loads, body)
    except (pickle.UnpicklingError, EOFError) as error:
        if _is_of_others(error):
            raise
        raise _no_pickle(error) from error


def _is_of_others(error: Exception) -> bool:
    """Whether code that a pickle calls has raised it: such as that of a class with a pickle in its state, of which a
    damaged one is another matter than this one."""
    trace = error.__traceback__
    while trace is not None:
        if not str(trace.tb_frame.f_globals.get("__name__")).startswith("mfstore."):
            return True
        trace = trace.tb_next
    return False


def _no_pickle(error: Exception) -> CorruptObject:
    return CorruptObject(
        f"the artifact is no pickle that can be read: {type(error).__name__}: {error}",
        hint="get_bytes gives its bytes as they are; verify tells whether they are those that were stored",
    )


def placeholders(body: Iterable[Buffer], segments: Sequence[Segment]) -> Iterator[Buffer]:
    """The body with each payload's opcode and length replaced by the opcode that takes the next buffer."""
    skips = iter(segments)
    segment = next(skips, None)
    at = skip_to = 0
    for block in body:
        view = memoryview(block)
        low = 0
        while True:
            low = max(low, min(skip_to - at, len(view)))
            if segment is None or segment.at - HEADER >= at + len(view):
                break
            start = segment.at - HEADER
            if start < skip_to:
                raise CorruptObject("segments overlap in the body", offset=segment.at)
            yield view[low : start - at]
            yield NEXT_BUFFER
            low = start - at
            skip_to = segment.at
            segment = next(skips, None)
        if low < len(view):
            yield view[low:]
        at += len(view)


def _taken(blocks: list[Buffer]) -> Iterator[Buffer]:
    """The blocks, none of which is held any longer here."""
    while blocks:
        yield blocks.pop(0)


def block_stream(blocks: Iterator[Buffer]) -> io.BufferedReader:
    """A stream over the blocks, of which CPython's unpickler gets a piece at a time."""
    return io.BufferedReader(_BlockStream(blocks), PIECE)


class _BlockStream(io.RawIOBase):
    """A stream over buffers, read once from front to back."""

    def __init__(self, blocks: Iterator[Buffer]) -> None:
        self._blocks = blocks
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, target: Buffer) -> int:
        while not self._left:
            self._left = memoryview(b"")  # what is read to its end goes before the next one comes
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._left = memoryview(block)
        view = memoryview(target)
        count = min(len(view), len(self._left))
        view[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


class _ReadOnly(pickle.Unpickler):
    """Makes every array it rebuilds read-only."""

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        if name == "_frombuffer" and module.startswith("numpy"):
            return partial(_frozen, found)
        return found


def _frozen(build: Callable[..., Any], *args: Any) -> Any:
    array = build(*args)
    array.flags.writeable = False
    return array


_COUNTED = frozenset([
    "_io", "_pickle", "array", "builtins", "collections", "datetime", "decimal", "numpy", "numpy.ma",
    "pandas._libs.arrays", "pandas._libs.internals", "pandas._libs.sparse", "pickle", "pyarrow.lib",
])  # fmt: skip
"""Modules whose classes in C hold what they refer to by references that Python counts, and are found by no other means:
what a reducer makes of them is freed once it is written, and as long as there are no other classes than these and those
of plain instances, what one container holds need not be remembered. Not torch, which keeps the Python object of a
tensor or of a storage as long as the one in C++: two tensors find the same object though neither refers to it."""
_VALUES = (
    ("builtins", ("complex", "range")),
    ("datetime", ("date", "time", "timedelta", "tzinfo")),
    ("decimal", ("Decimal",)),
    ("fractions", ("Fraction",)),
    ("uuid", ("UUID",)),
    ("pathlib", ("PurePath",)),
    ("numpy", ("dtype", "number", "bool_", "character", "datetime64")),
)
"""Immutable value types by module: those of modules nobody imported cannot occur."""
_ONCE: dict[tuple[str, str], Callable[[Any], bool] | None] = {
    ("datetime", "tzinfo"): None,
    ("numpy", "dtype"): without_metadata,
}
"""Those of the values that are written once: few, long (a dtype has 45 bytes), and shared by many arrays, scalars and
times. To know one again takes a pickle of its own; for a date or a Decimal, of 10 to 20 bytes, that would not pay. A
function says of which instances it is so."""
_MODULES = (
    *(module for module, _ in _VALUES), "numpy.ma", "torch", "pandas", "pyarrow.lib", "mfstore.safetensors.files"
)  # fmt: skip


class _Reducers:
    """What the pickler asks for the reducer of a class: its own, or that of a family whose subclasses belong to it."""

    def __init__(self) -> None:
        self.exact: dict[type, Callable[[Any], Any]] = {}
        self.families: dict[type, Callable[[Any], Any]] = {}

    def get(self, kind: type) -> Callable[[Any], Any] | None:
        found = self.exact.get(kind)
        if found is None and self.families:
            found = next((self.families[base] for base in kind.__mro__ if base in self.families), None)
        return found


def _with_functions(known: _Reducers) -> _Reducers:
    """Those of one pickle that has functions by value."""
    from mfstore.pickling.by_value import by_value_reducers

    exact, families = by_value_reducers()
    reducers = _Reducers()
    reducers.exact.update({**exact, **known.exact})
    reducers.families.update({**families, **known.families})
    return reducers


class _Known(NamedTuple):
    """What the pickler is told of the libraries this process has imported."""

    seen: tuple[ModuleType | None, ...]
    reducers: _Reducers
    values: tuple[type, ...]
    once: dict[type, Callable[[Any], bool] | None]
    arrays: Arrays | None


_known = _Known((), _Reducers(), (), {}, None)


def _known_types() -> _Known:
    global _known
    seen = tuple(map(sys.modules.get, _MODULES))
    if seen == _known.seen:
        return _known
    reducers = _Reducers()
    values = tuple(_imported((module, name) for module, names in _VALUES for name in names))
    once = {kind: test for place, test in _ONCE.items() for kind in _imported([place])}
    np: Any = sys.modules.get("numpy")
    arrays = short_arrays(np) if hasattr(np, "recarray") else None
    unready = _Known((), reducers, values, once, arrays)  # a library is being imported: look again
    if np is not None:
        if not (hasattr(np, "memmap") and hasattr(np, "recarray")):
            return unready
        reducers.exact.update(array_reducers(np, sys.modules.get("numpy.ma")))
        files: Any = sys.modules.get("mfstore.safetensors.files")
        if hasattr(files, "ArrayInFile"):
            reducers.exact[files.ArrayInFile] = partial(reduce_in_file, np)
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        if not all(hasattr(torch, part) for part in ("UntypedStorage", "storage", "Tensor", "_tensor", "_utils")):
            return unready
        from mfstore.pickling.tensors import reduce_tensor, storage_reducers

        reducers.exact.update(storage_reducers(torch))
        reducers.families[torch.Tensor] = partial(reduce_tensor, torch)
    pandas: Any = sys.modules.get("pandas")
    if pandas is not None:
        if not hasattr(pandas, "arrays"):
            return unready
        # pandas 3 takes a state without attributes, pandas 2 wants them though there are none.
        without = len(pandas.Categorical([]).__reduce_ex__(5)[2]) == 2
        for kind in _extension_arrays(pandas):
            reducers.exact[kind] = partial(_reduce_extension_array, without)
    lib: Any = sys.modules.get("pyarrow.lib")
    if lib is not None:
        if not hasattr(lib, "Array"):
            return unready
        from mfstore.pickling.arrow import ArrowArrays

        reducers.families[lib.Array] = ArrowArrays(lib)
    _known = _Known(seen, reducers, values, once, arrays)
    return _known


def _imported(names: Iterable[tuple[str, str]]) -> Iterator[type]:
    """The classes of these names, as far as their modules are imported."""
    for module, name in names:
        if hasattr(sys.modules.get(module), name):
            yield getattr(sys.modules[module], name)


def _extension_arrays(pandas: Any) -> Iterator[type]:
    """The classes of pandas whose instances remember what they were asked."""
    for name in (*pandas.arrays.__all__, "Categorical"):
        yield getattr(pandas.arrays, name, None) or pandas.Categorical
    arrays: Any = sys.modules.get("pandas.core.arrays")
    if hasattr(arrays, "ArrowExtensionArray"):
        yield arrays.ArrowExtensionArray


def _reduce_extension_array(without: bool, array: Any) -> Any:
    """A column of pandas as pandas pickles it, without what it has noted when it was read: each ``df.loc`` would give
    the frame another key. Whether it may be written to is no content either: what is loaded is the caller's.
    ``without``: a state that has no attributes has no dict for them."""
    reduced = array.__reduce_ex__(5)
    if not isinstance(reduced, tuple) or len(reduced) < 3:
        return reduced
    state = reduced[2]
    if isinstance(state, dict):
        state = _without_notes(state)
        if "_pa_array" in state:
            state["_cache"] = {}  # as it is in one that nobody has read
    elif isinstance(state, tuple) and state and isinstance(state[-1], dict):
        # As arrays in Cython write it: what they have in C, then attributes if there are any.
        attributes = _without_notes(state[-1])
        state = state[:-1] if without and not attributes and len(state) > 1 else (*state[:-1], attributes)
    return (*reduced[:2], state, *reduced[3:])


def _without_notes(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name not in ("_cache", "_readonly")}
