"""Functions whose results a store remembers: which calls are the same one, and what becomes of their results."""

from __future__ import annotations

import inspect
import pickle
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from datetime import timedelta
from functools import update_wrapper
from itertools import chain
from reprlib import Repr
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar, cast
from urllib.parse import quote

from mfstore.display.amounts import duration
from mfstore.errors import (
    CorruptObject,
    MfstoreWarning,
    NotFound,
    NotLoadable,
    NotSerializable,
    NotSigned,
    WrongArgument,
)
from mfstore.format.digests import BLAKE3, digest_function
from mfstore.provenance import OWN, version_of
from mfstore.records import NamedTuple
from mfstore.saving.drafts import hashed_draft

if TYPE_CHECKING:
    from typing import Self

    from mfstore.format.digests import Key
    from mfstore.format.refs import RefEntry
    from mfstore.refs import Refs

P = ParamSpec("P")
R = TypeVar("R")

PREFIX = "cache/"
"""What the refs of remembered results begin with."""
DIGEST_DIGITS = 32
"""Of a call, in its ref: 128 bits, by which no two calls of a function are confused by chance."""
NAME_BYTES = 180
"""Longest encoded name of a function in a ref: of the 240 bytes that a ref's name may have, the rest are the prefix
and the digits."""
TOLD_ARGUMENTS = 20
"""How many arguments a note tells."""
TOLD_LETTERS = 60
"""How much of each: a note has 16 KiB, and a letter may take twelve bytes of it."""
CLEARING = 16
"""Refs that are removed at once: each takes two requests, one after the other."""


class Keeper(Protocol):
    """The store that remembers."""

    refs: Refs

    def put(self, obj: object, /) -> Key:
        """As ``Store.put``."""

    def get(self, key: str, /) -> Any:
        """As ``Store.get``."""


class Rules(NamedTuple):
    """What a user says of a function that is remembered."""

    ignore: tuple[str, ...] = ()
    """Parameters that do not matter to the result."""
    verbose: int = 0
    """Whether each call is told on stderr."""
    max_age: float | None = None
    """Seconds after which a result is computed anew."""


class Call(NamedTuple):
    """One call of a remembered function: what it is known by."""

    ref: str
    """Under which its result is remembered."""
    arguments: dict[str, Any]
    """For people, each in a few words."""


class Cached(Generic[P, R]):
    """A function whose results a store remembers, as ``Store.cache`` makes it. It is called like the function.

    A method of a class gets ``self`` as its first argument, which counts by its state like any other. Pickles by its
    name, as functions do, where it can be found by that; that of a script or notebook by its value too, if cloudpickle
    is installed, so that workers of joblib, Dask or Ray run it.
    """

    def __init__(self, store: Keeper, function: Callable[P, R], rules: Rules) -> None:
        _refuse_what_is_no_function(function)
        # First: it takes over what a function has in its own dict.
        update_wrapper(cast("Any", self), function)
        self.__dict__.pop("_known", None)  # of another one that the function wraps
        self._store = store
        self._function: Callable[..., Any] = function
        self._rules = rules
        self._first: tuple[object, ...] = ()
        self._signature = _signature(function)
        self._name = name_of(function)
        self._waits = inspect.iscoroutinefunction(function)
        _refuse_unknown(rules.ignore, function, self._signature)
        if self._waits and sys.version_info >= (3, 12):
            inspect.markcoroutinefunction(cast("Any", self))

    def __get__(self, owner: object, kind: type | None = None) -> Self:
        """Of an object: with it as the first argument."""
        if owner is None:
            return self
        bound = type(self).__new__(type(self))
        bound.__dict__.update(self.__dict__)
        bound._first = (owner,)
        return bound

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The result: the remembered one, or the function's, which is remembered then."""
        if self._waits:
            return cast("R", self._await(args, kwargs, anew=False))
        return self._run(args, kwargs, anew=False)

    def call(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The function's result: it runs whatever is remembered, and what it returns is remembered instead."""
        if self._waits:
            return cast("R", self._await(args, kwargs, anew=True))
        return self._run(args, kwargs, anew=True)

    def check_call_in_cache(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Whether such a call would find its result remembered. The function does not run, and nothing is loaded."""
        return self._entry(self._plan(args, kwargs)) is not None

    def ref_of(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The ref under which the result of such a call is remembered, whether there is one or not: for ``store.get``,
        ``stat``, ``refs.log``.

        Raises:
            NotSerializable: an argument cannot be hashed; the message names it.
        """
        return self._plan(args, kwargs).ref

    def clear(self) -> int:
        """Forget all results of the function, also those of its former code; returns how many there were. What only
        they named goes with the next collections (``mfstore gc``)."""
        refs = self._store.refs
        names = refs.list(f"{PREFIX}{self._name}/")

        def remove(name: str) -> None:
            with suppress(NotFound):  # somebody else has
                del refs[name]

        with ThreadPoolExecutor(CLEARING) as pool:
            list(pool.map(remove, names))
        return len(names)

    # ---- one call ---------------------------------------------------------------------

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any], anew: bool) -> R:
        call = self._plan(args, kwargs)
        there, value = (False, None) if anew else self._load(call)
        if not there:
            self._say(call, "computing")
            begin = time.perf_counter()
            value = self._function(*self._first, *args, **kwargs)
            self._remember(call, value, time.perf_counter() - begin)
        return cast("R", value)

    async def _await(self, args: tuple[Any, ...], kwargs: dict[str, Any], anew: bool) -> Any:
        """As ``_run``, of a coroutine function: what the store does is done in threads."""
        from asyncio import to_thread

        call = await to_thread(self._plan, args, kwargs)
        there, value = (False, None) if anew else await to_thread(self._load, call)
        if not there:
            self._say(call, "computing")
            begin = time.perf_counter()
            value = await self._function(*self._first, *args, **kwargs)
            await to_thread(self._remember, call, value, time.perf_counter() - begin)
        return value

    def _plan(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """What a call is known by. NotSerializable for an argument that cannot be hashed."""
        function = self._function
        named = [*_owner(function), *_bound(self._signature, (*self._first, *args), kwargs), *_around(function)]
        counted = [(name, value) for name, value in named if name.lstrip("*") not in self._rules.ignore]
        parts = [*self._identity(), *(f"{name} {self._hashed(name, value)}" for name, value in counted)]
        digest = digest_function(BLAKE3)("\n".join(parts).encode("utf-8", "surrogatepass")).hex()
        told = {name.lstrip("*"): _for_people(value) for name, value in counted[:TOLD_ARGUMENTS]}
        return Call(f"{PREFIX}{self._name}/{digest[:DIGEST_DIGITS]}", told)

    def _identity(self) -> list[str]:
        """What of the function itself counts: its code, and with which versions of what it runs."""
        found = self.__dict__.get("_known")
        if found is None:
            versions = versions_of(self._function)
            code = [code_of(self._function), *script_of(self._function)]
            found = self._known = [*code, *(f"{name} {version}" for name, version in versions)]
        return cast("list[str]", found)

    def _hashed(self, name: str, value: object) -> str:
        try:
            return hash_of(value)
        except NotSerializable as error:
            what = name.lstrip("*")
            raise NotSerializable(
                f"{what!r} of a call of {self._name} cannot be hashed: {error.message}",
                hint=f"If it does not matter to the result: cache(ignore=[{what!r}])",
            ) from error

    def _entry(self, call: Call) -> RefEntry | None:
        """What is remembered of a call, if it is young enough."""
        try:
            entry = self._store.refs.log(call.ref)[0]
        except NotFound:
            return None
        age = self._rules.max_age
        return entry if age is None or time.time() - entry.time <= age else None

    def _load(self, call: Call) -> tuple[bool, Any]:
        """Whether there is a result, and which. One that is damaged, or cannot be loaded here, is none."""
        begin = time.perf_counter()
        try:
            entry = self._entry(call)
            if entry is None:
                return False, None
            value = self._store.get(entry.key)
        except (NotFound, CorruptObject, NotLoadable, NotSigned) as error:
            _warn(f"what is remembered of {self._name} cannot be loaded, so it runs again: {error}")
            return False, None
        self._say(call, "loaded", time.perf_counter() - begin)
        return True, value

    def _remember(self, call: Call, value: object, seconds: float) -> None:
        """Store a result. Whatever happens, the caller gets it: to compute it may have taken hours."""
        note = {"function": self._name, "arguments": call.arguments, "seconds": round(seconds, 6)}
        try:
            self._store.refs.set(call.ref, self._store.put(value), note=note)
        except Exception as error:
            _warn(f"the result of {self._name} is not remembered: {error}")
        self._say(call, "computed", seconds)

    def _say(self, call: Call, what: str, seconds: float | None = None) -> None:
        if self._rules.verbose:
            text = ", ".join(f"{name}={value}" for name, value in call.arguments.items())
            took = "" if seconds is None else f" in {duration(seconds)}"
            sys.stderr.write(f"mfstore: {what} {self._name}({text}){took}\n")

    def __reduce__(self) -> str | tuple[Any, ...]:
        if self._first:
            alone = self._alone()
            return _bind, (alone, *self._first)
        if _found_by_name(self) is self:
            name: str = self.__dict__["__qualname__"]
            if self.__module__ in OWN:
                return _by_name_or_value, (self.__module__, name, self._value())
            return name
        return Cached, (self._store, self._function, self._rules)

    def _value(self) -> bytes | None:
        """The whole of it by value, for a process that has not this program's main module, such as a worker of joblib;
        None where it is being pickled by value already, which it is when it calls itself, or cannot be."""
        if self in _by_value.get():
            return None
        try:
            import cloudpickle
        except ImportError:
            return None
        token = _by_value.set((*_by_value.get(), self))
        try:
            return cast("bytes", cloudpickle.dumps((self._store, self._function, self._rules, self._identity())))
        except Exception:
            return None  # whoever has the module finds it by its name
        finally:
            _by_value.reset(token)

    def _alone(self) -> Cached[P, R]:
        """Without the object that it is a method of."""
        found = getattr(type(self._first[0]), self.__dict__.get("__name__", ""), None)
        return found if isinstance(found, Cached) else Cached(self._store, self._function, self._rules)

    def __repr__(self) -> str:
        return f"<{self._name}, remembered in {self._store!r}>"


_by_value: ContextVar[tuple[Cached[Any, Any], ...]] = ContextVar("mfstore_by_value", default=())
"""Those that are being pickled by value."""
_restored: ContextVar[dict[tuple[str, str], Cached[Any, Any]]] = ContextVar("mfstore_restored")
"""Those that are being unpickled by value, by module and name: a function that calls itself finds itself there."""


def _bind(cached: Cached[P, R], owner: object) -> Cached[P, R]:
    return cached.__get__(owner)


def _by_name_or_value(module: str, name: str, value: bytes | None) -> object:
    """The function that a module has under this name; where it has none, one that is made of its value."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if isinstance(found, Cached):
        return found
    under_way = _restored.get({})
    if (module, name) in under_way:
        return under_way[module, name]
    if value is None:
        raise AttributeError(f"module {module!r} has no function {name!r} here, and cloudpickle did not send it")
    made: Cached[Any, Any] = Cached.__new__(Cached)
    token = _restored.set(under_way | {(module, name): made})
    try:
        *how, identity = pickle.loads(value)
    finally:
        _restored.reset(token)
    made.__init__(*how)  # type: ignore[misc]
    made._known = identity  # cloudpickle does not keep the file that the code is of
    return made


def rules_of(ignore: str | Iterable[str], verbose: int, max_age: float | timedelta | None) -> Rules:
    """The rules that a user gives."""
    seconds = max_age.total_seconds() if isinstance(max_age, timedelta) else max_age
    return Rules((ignore,) if isinstance(ignore, str) else tuple(ignore), verbose, seconds)


# ---- functions ------------------------------------------------------------------------


def _refuse_what_is_no_function(function: object) -> None:
    """WrongArgument for what has no results that could be remembered, or that says nothing of itself."""
    hint = None
    if isinstance(function, (staticmethod, classmethod)):
        hint = f"Write @{type(function).__name__} above @store.cache"
    elif inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        hint = "What it yields comes one by one: return a list instead"
    elif isinstance(function, type) or not (
        isinstance(function, (BuiltinFunctionType, MethodType))
        or hasattr(function, "__code__")
        or _is_of_a_library(function)
    ):
        # Of another callable, such as a partial, no code says what it has in itself.
        hint = "cache remembers functions, coroutine functions and methods: write one around it"
    if hint is not None:
        found = getattr(function, "__name__", type(function).__name__)
        raise WrongArgument("the results of this cannot be remembered", found=found, hint=hint)


def _is_of_a_library(function: object) -> bool:
    """Whether a callable without bytecode is one of a library, whose version stands for its code."""
    module = getattr(function, "__module__", None) or ""
    return _found_by_name(function) is function and version_of(module.partition(".")[0]) is not None


def _found_by_name(function: object) -> object:
    """What the module of a function has under its name; None: nothing."""
    found: Any = sys.modules.get(getattr(function, "__module__", None) or "")
    for part in getattr(function, "__qualname__", "").split("."):
        found = getattr(found, part, None)
    return found


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    """None: it does not say which parameters it has, as some functions in C do not."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def _refuse_unknown(ignore: Iterable[str], function: Callable[..., Any], signature: inspect.Signature | None) -> None:
    """WrongArgument for a name to be ignored that the function has not."""
    if signature is None:
        return
    has = {*signature.parameters, *(name for name, _ in [*_owner(function), *_around_names(function)])}
    if any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values()):
        return
    for name in ignore:
        if name not in has:
            raise WrongArgument(
                f"ignore names no parameter of {function.__name__}", found=repr(name),
                hint=f"It has {', '.join(signature.parameters) or 'none'}",
            )  # fmt: skip


def name_of(function: Callable[..., Any]) -> str:
    """How the refs of a function's results call it: its module and what it is called there."""
    module = getattr(function, "__module__", None) or "builtins"
    qualified = getattr(function, "__qualname__", function.__name__).replace("<locals>.", "")
    name = re.sub(r"[^\w.]", "-", f"{module}.{qualified.replace('<lambda>', 'lambda')}")
    if len(quote(name)) > NAME_BYTES:
        digest = digest_function(BLAKE3)(name.encode()).hex()[:DIGEST_DIGITS]
        while len(quote(name)) > NAME_BYTES - DIGEST_DIGITS - 1:
            name = name[:-1]
        name = f"{name}-{digest}"
    return name


def code_of(function: object) -> str:
    """A digest of what a function does, as far as its own code says: of its bytecode, constants and names, without the
    lines where they stand. Of a function in C, of its name. It is what runs: a source file may have changed since."""
    hashes: list[str] = []
    while function is not None:
        function = getattr(function, "__func__", function)
        code = getattr(function, "__code__", None)
        if isinstance(code, CodeType):
            hashes.extend(_described(code))
        else:
            hashes.append(f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}")
        function = getattr(function, "__wrapped__", None)
    return digest_function(BLAKE3)("\n".join(hashes).encode("utf-8", "surrogatepass")).hex()


def _described(code: CodeType) -> Iterator[str]:
    yield code.co_code.hex()
    yield code.co_exceptiontable.hex()
    yield repr((code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags))
    yield repr((code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars))
    for constant in code.co_consts:
        yield from _constant(constant)


def _constant(value: object) -> Iterator[str]:
    if isinstance(value, CodeType):
        yield from _described(value)
    elif isinstance(value, (tuple, frozenset)):
        yield f"{type(value).__name__} {len(value)}"
        parts = ["\n".join(_constant(part)) for part in value]
        # The order of a set's elements is another one in each process.
        yield from parts if isinstance(value, tuple) else sorted(parts)
    else:
        yield f"{type(value).__name__} {value!r}"


def script_of(function: Callable[..., Any]) -> list[str]:
    """The file name of the program that a function is defined in, if it is a program and no module: another one's may
    be written alike, and mean other globals. None of a notebook, whose cells have other files each time."""
    inner: Any = inspect.unwrap(getattr(function, "__func__", function))
    code = getattr(inner, "__code__", None)
    if getattr(inner, "__module__", None) not in OWN or not isinstance(code, CodeType):
        return []
    folder, _, file = code.co_filename.replace("\\", "/").rpartition("/")
    return [] if file.startswith("<") or "ipykernel" in folder else [f"script {file}"]


def versions_of(function: Callable[..., Any]) -> list[tuple[str, str]]:
    """With which versions a function runs: of Python, to the minor one; of the library that it is of; and of those
    whose modules, functions or classes its code takes from its module by name."""
    inner: Any = inspect.unwrap(getattr(function, "__func__", function))
    tops = {(getattr(inner, "__module__", None) or "").partition(".")[0]}
    space = getattr(inner, "__globals__", {})
    code = getattr(inner, "__code__", None)
    for name in _names(code) if isinstance(code, CodeType) else ():
        value = space.get(name)
        module = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        if isinstance(module, str):
            tops.add(module.partition(".")[0])
    found = [(top, version) for top in sorted(tops) if (version := version_of(top)) is not None]
    return [("python", f"{sys.version_info[0]}.{sys.version_info[1]}"), *found]


def _names(code: CodeType) -> set[str]:
    """Names that a code and those inside of it use: of globals, attributes and modules."""
    inside = [_names(part) for part in code.co_consts if isinstance(part, CodeType)]
    return {*code.co_names, *chain.from_iterable(inside)}


def _owner(function: Callable[..., Any]) -> list[tuple[str, object]]:
    """What a method is bound to: it decides what is returned as an argument does."""
    owner = getattr(function, "__self__", None)
    if owner is None or isinstance(owner, ModuleType):
        return []
    code = getattr(getattr(function, "__func__", None), "__code__", None)
    return [(code.co_varnames[0] if isinstance(code, CodeType) and code.co_argcount else "self", owner)]


def _around_names(function: Callable[..., Any]) -> list[tuple[str, Any]]:
    """The variables that a function takes from the function around it, with their cells."""
    inner = getattr(function, "__func__", function)
    code, cells = getattr(inner, "__code__", None), getattr(inner, "__closure__", None)
    return list(zip(code.co_freevars, cells, strict=True)) if isinstance(code, CodeType) and cells else []


def _around(function: Callable[..., Any]) -> Iterator[tuple[str, object]]:
    """Those variables with what they are now: they decide what it returns as arguments do."""
    for name, cell in _around_names(function):
        with suppress(ValueError):  # there is nothing in it yet
            yield name, cell.cell_contents


# ---- arguments ------------------------------------------------------------------------


def _bound(
    signature: inspect.Signature | None, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterator[tuple[str, object]]:
    """The arguments by name, however they were given, with those left to their defaults. TypeError as a call raises
    it."""
    if signature is None:
        yield "*args", args
        yield from ((f"**{name}", value) for name, value in kwargs.items())
        return
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    for name, value in bound.arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            yield f"*{name}", value
        elif kind is inspect.Parameter.VAR_KEYWORD:
            # In their order: what a function makes of them may have it too, as the columns of a table.
            yield from ((f"**{key}", given) for key, given in value.items())
        else:
            yield name, value


def hash_of(value: object) -> str:
    """What an argument is known by: the key that it would have in a store; nothing is stored. A function counts by its
    code, and a module by its name, where pickle would know a function by its name alone. Inside of others functions
    count by their code if this program defines them itself. NotSerializable for what cannot be pickled."""
    return _hash_of(value, set())


def _hash_of(value: object, met: set[int]) -> str:
    if isinstance(value, Cached):
        return _hash_of((value._function, *value._first) if value._first else value._function, met)
    if isinstance(value, ModuleType):
        return f"module {value.__name__}"
    if isinstance(value, FunctionType):
        return _hash_of_function(value, met)
    digest = digest_function(BLAKE3)
    draft = hashed_draft(value, digest)
    key = draft.key(digest, BLAKE3)
    own = [_own(where) for where in sorted({where for where in draft.modules if ":" in where})]
    inside = [_hash_of(found, met) for found in own if isinstance(found, (FunctionType, Cached))]
    return " ".join([key, *inside])


def _own(where: str) -> object:
    """What this program defines, by ``module:name`` as ``dump`` gives it."""
    module, _, name = where.partition(":")
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _hash_of_function(function: FunctionType, met: set[int]) -> str:
    """``met``: those that are being hashed, one of which may be what another takes from around it."""
    if id(function) in met:
        return "itself"
    met.add(id(function))
    parts = [f"{function.__module__}.{function.__qualname__}", code_of(function)]
    parts += [_hash_of(value, met) for value in function.__defaults__ or ()]
    parts += [f"{name} {_hash_of(value, met)}" for name, value in sorted((function.__kwdefaults__ or {}).items())]
    parts += [f"{name} {_hash_of(value, met)}" for name, value in _around(function)]
    met.discard(id(function))
    return digest_function(BLAKE3)("\n".join(parts).encode("utf-8", "surrogatepass")).hex()


_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = TOLD_LETTERS
_SHORT.maxlevel = 3


def _for_people(value: object) -> Any:
    """An argument in a note: a number, a short text and None as they are, so that they can be looked for; of an array
    or a table its shape; else a few words."""
    if value is None or type(value) is bool or (type(value) is int and abs(value) < 2**63):
        return value
    if type(value) is float:
        return value if abs(value) < float("inf") else repr(value)
    if type(value) is str and len(value) <= TOLD_LETTERS:
        return value.encode("utf-8", "backslashreplace").decode()  # a note is Unicode, as names of files may not be
    try:
        shape = getattr(value, "shape", None)
        if shape == () and hasattr(value, "item"):
            return _for_people(value.item())
        if isinstance(shape, tuple):
            return f"{type(value).__name__} {' x '.join(map(str, shape))}"[:TOLD_LETTERS]
        return " ".join(_SHORT.repr(value).split())[:TOLD_LETTERS]
    except Exception:
        return type(value).__name__  # its repr is no reason to fail


def _warn(message: str) -> None:
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__") == __name__:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, MfstoreWarning, level)
