"""Pickles that want something to be run: each is refused by name before anything runs or is imported.

The cases are those that scanners of pickles are tested with, told anew: what they call, and how they hide it.
"""

import collections
import copyreg
import functools
import os
import pickle
import struct
import sys
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mfstore
from mfstore.allow import Allow
from mfstore.errors import CorruptObject, MfstoreError, NotLoadable, UnsafeObject
from mfstore.pickling.safe.loading import load
from mfstore.pickling.safe.rules import canonical, rule_of
from mfstore.pickling.streams import load as unpickle

RAN = []
"""What ran, if anything did."""
WATCHED = ("os.", "subprocess.", "socket.", "shutil.", "import", "exec", "ctypes.", "marshal.", "code.", "urllib.")
HEARD = []
armed = False


def hear(event, args):
    if armed and event.startswith(WATCHED):
        HEARD.append((event, args))


sys.addaudithook(hear)


def canary(*args, **keywords):
    """What the attacks call."""
    RAN.append(args)
    return canary


class Canary:
    """A class that notes everything that is done to it."""

    def __new__(cls, *args):
        RAN.append(args)
        return super().__new__(cls)

    def __setstate__(self, state):
        RAN.append(state)


HERE = __name__
P2, P4, STOP = b"\x80\x02", b"\x80\x04", b"."


def text(value):
    data = value.encode("utf-8", "surrogatepass")
    return b"\x8c" + bytes([len(data)]) + data if len(data) < 256 else b"X" + struct.pack("<I", len(data)) + data


def named(module, name):
    """GLOBAL."""
    return f"c{module}\n{name}\n".encode()


def stacked(module, name):
    """STACK_GLOBAL."""
    return text(module) + text(name) + b"\x93"


def call(function, *args):
    """REDUCE."""
    return function + b"(" + b"".join(args) + b"tR"


def stop(*parts):
    return P4 + b"".join(parts) + STOP


TOUCH = text("touch /tmp/it-ran")
CODE = text("RAN.append(1)")
CALLS = [
    ("os", "system", [TOUCH]), ("posix", "system", [TOUCH]), ("nt", "system", [TOUCH]), ("os", "popen", [TOUCH]),
    ("os", "execv", [TOUCH, b"]"]), ("os", "spawnl", [b"K\x00", TOUCH]), ("os", "remove", [TOUCH]),
    ("subprocess", "Popen", [TOUCH]), ("subprocess", "check_output", [TOUCH]), ("subprocess", "run", [TOUCH]),
    ("subprocess", "getoutput", [TOUCH]), ("commands", "getoutput", [TOUCH]), ("builtins", "eval", [CODE]),
    ("builtins", "exec", [CODE]), ("builtins", "compile", [CODE, CODE, text("exec")]), ("builtins", "open", [TOUCH, text("w")]),
    ("builtins", "__import__", [text("antigravity")]), ("builtins", "breakpoint", []), ("builtins", "input", []),
    ("builtins", "getattr", [text(""), text("join")]), ("builtins", "setattr", [text(""), text("a"), text("b")]),
    ("builtins", "delattr", [text(""), text("a")]), ("builtins", "globals", []), ("builtins", "vars", []),
    ("builtins", "map", [b"N", b"]"]), ("builtins", "filter", [b"N", b"]"]), ("builtins", "memoryview", [b"C\x01a"]),
    ("builtins", "type", [text("T"), b")", b"}"]), ("builtins", "super", []), ("builtins", "help", []),
    ("builtins", "exit", []), ("builtins", "print", [text("x")]), ("builtins", "list", [text("abc")]),
    ("builtins", "int", [text("3")]), ("builtins", "str", [b"K\x03"]), ("builtins", "sum", [b"]"]),
    ("__builtin__", "eval", [CODE]), ("__builtin__", "apply", [b"N", b")"]), ("__builtin__", "execfile", [TOUCH]),
    ("importlib", "import_module", [text("antigravity")]), ("importlib.util", "spec_from_file_location", [TOUCH]),
    ("runpy", "run_path", [TOUCH]), ("runpy", "_run_code", [CODE, b"}"]), ("runpy", "run_module", [text("this")]),
    ("pip._internal", "main", [b"]"]), ("pip", "main", [b"]"]), ("pty", "spawn", [TOUCH]), ("timeit", "timeit", [CODE]),
    ("timeit", "repeat", [CODE]), ("cProfile", "run", [CODE]), ("profile", "run", [CODE]), ("profile", "runctx", [CODE, b"}", b"}"]),
    ("pdb", "run", [CODE]), ("bdb", "Bdb", []), ("doctest", "debug_script", [CODE]), ("trace", "Trace", []),
    ("code", "InteractiveInterpreter", []), ("codeop", "compile_command", [CODE]), ("webbrowser", "open", [TOUCH]),
    ("asyncio.unix_events", "_UnixSubprocessTransport._start", []), ("asyncio", "run", []), ("ctypes", "CDLL", [TOUCH]),
    ("ctypes.util", "find_library", [TOUCH]), ("ctypes", "cast", []), ("socket", "create_connection", []),
    ("urllib.request", "urlopen", [text("http://127.0.0.1:1/")]), ("http.client", "HTTPSConnection", [text("127.0.0.1")]),
    ("requests.api", "get", [text("http://127.0.0.1:1/")]), ("aiohttp.client", "ClientSession", []),
    ("smtplib", "SMTP", [text("127.0.0.1")]), ("ssl", "get_server_certificate", []), ("shutil", "rmtree", [TOUCH]),
    ("shutil", "copyfile", [TOUCH, TOUCH]), ("tempfile", "mkstemp", []), ("sys", "exit", [b"K\x01"]), ("sys", "settrace", [b"N"]),
    ("sys", "modules.__setitem__", [text("os"), b"N"]), ("pickle", "loads", [b"C\x01."]), ("_pickle", "loads", [b"C\x01."]),
    ("marshal", "loads", [b"C\x01N"]), ("dill", "loads", [b"C\x01."]), ("cloudpickle.cloudpickle", "_make_function", []),
    ("cloudpickle.cloudpickle", "subimport", [text("antigravity")]), ("joblib", "load", [TOUCH]), ("torch", "load", [TOUCH]),
    ("torch.storage", "_load_from_bytes", [b"C\x01."]), ("torch.utils.collect_env", "run", [TOUCH]),
    ("torch.serialization", "load", [TOUCH]), ("torch.jit.unsupported_tensor_ops", "execWrapper", [CODE, b"}", b"}"]),
    ("torch.utils._config_module", "ConfigModule.load_config", [b"C\x01."]), ("torch._dynamo.guards", "GuardBuilder.get", [CODE]),
    ("torch.fx.experimental.symbolic_shapes", "ShapeEnv.evaluate_guards_expression", [CODE]), ("torch.hub", "load", [TOUCH]),
    ("numpy.testing._private.utils", "runstring", [CODE, b"}"]), ("numpy.testing", "runstring", [CODE, b"}"]),
    ("numpy.testing._private.utils", "measure", [CODE]), ("numpy", "load", [TOUCH]), ("numpy.f2py.crackfortran", "getlincoef", [CODE]),
    ("numpy", "fromfile", [TOUCH]), ("numpy", "loadtxt", [TOUCH]), ("numpy.ctypeslib", "load_library", [TOUCH, TOUCH]),
    ("numpy.distutils.exec_command", "exec_command", [TOUCH]), ("numpy.lib.npyio", "DataSource", []), ("numpy", "frompyfunc", []),
    ("numpy", "ndarray.tofile", []), ("numpy", "vectorize", []), ("numpy.core.numeric", "fromfunction", []),
    ("pandas.io.pickle", "read_pickle", [TOUCH]), ("pandas", "read_pickle", [TOUCH]), ("pandas", "eval", [CODE]),
    ("pandas", "DataFrame.eval", [CODE]), ("pandas.core.frame", "DataFrame.apply", []), ("pandas", "read_csv", [TOUCH]),
    ("pandas.core.computation.eval", "eval", [CODE]), ("pyarrow", "deserialize", []), ("pyarrow.lib", "foreign_buffer", [b"K\x00", b"K\xff"]),
    ("pyarrow", "memory_map", [TOUCH]), ("pyarrow.fs", "LocalFileSystem", []), ("pyarrow.lib", "PyExtensionType", []),
    ("pyarrow.types", "lib.foreign_buffer", []), ("operator", "attrgetter", [text("system")]), ("operator", "methodcaller", [text("system")]),
    ("operator", "itemgetter", [text("system")]), ("operator", "call", [b"N"]), ("_operator", "attrgetter", [text("system")]),
    ("functools", "partial", [b"N"]), ("functools", "reduce", [b"N", b"]"]), ("functools", "singledispatch", [b"N"]),
    ("functools", "partialmethod", [b"N"]), ("itertools", "starmap", [b"N", b"]"]), ("itertools", "accumulate", [b"]"]),
    ("types", "FunctionType", [b"N", b"}"]), ("types", "CodeType", []), ("types", "MethodType", [b"N", b"N"]), ("types", "new_class", []),
    ("types", "ModuleType", [text("os")]), ("copyreg", "add_extension", [text("os"), text("system"), b"K\x05"]),
    ("copyreg", "pickle", [b"N", b"N"]), ("copyreg", "_inverted_registry.__setitem__", []), ("copyreg", "constructor", [b"N"]),
    ("weakref", "finalize", [b"N", b"N"]), ("atexit", "register", [b"N"]), ("signal", "signal", []), ("threading", "Thread", []),
    ("multiprocessing.util", "spawnv_passfds", []), ("concurrent.futures", "ThreadPoolExecutor", []), ("logging.config", "listen", []),
    ("logging", "FileHandler", [TOUCH]), ("io", "FileIO", [TOUCH]), ("_io", "FileIO", [TOUCH]), ("io", "open", [TOUCH]),
    ("distutils.file_util", "write_file", [TOUCH]), ("distutils.spawn", "spawn", [b"]"]), ("setuptools", "setup", []),
    ("ensurepip", "_run_pip", [b"]"]), ("venv", "create", [TOUCH]), ("zipimport", "zipimporter", [TOUCH]), ("site", "addsitedir", [TOUCH]),
    ("linecache", "getlines", [TOUCH]), ("inspect", "getattr_static", []), ("pkgutil", "resolve_name", [text("os:system")]),
    ("pydoc", "pipepager", [TOUCH, TOUCH]), ("pydoc", "locate", [text("os.system")]), ("test.support.script_helper", "assert_python_ok", []),
    ("unittest.mock", "_importer", [text("antigravity")]), ("lib2to3.pgen2.pgen", "ParserGenerator", [TOUCH]), ("idlelib.pyshell", "ModifiedInterpreter.runcode", []),
    ("idlelib.autocomplete", "AutoComplete.get_entity", [CODE]), ("_aix_support", "_read_cmd_output", [TOUCH]), ("_osx_support", "_read_output", [TOUCH]),
    ("imaplib", "IMAP4_stream", [TOUCH]), ("cgitb", "lookup", []), ("antigravity", "geohash", []), ("this", "s", []), ("ast", "literal_eval", [CODE]),
    ("collections", "namedtuple", [text("T"), text("a")]), ("collections", "UserDict", []), ("enum", "Enum", [text("T"), text("a")]),
    ("dataclasses", "make_dataclass", [text("T"), b"]"]), ("typing", "get_type_hints", []), ("string", "Formatter", []), ("re", "_compile", [text("a"), b"K\x00"]),
    ("random", "Random", []), ("getpass", "getpass", []), ("platform", "popen", [TOUCH]), ("nturl2path", "url2pathname", [TOUCH]),
    ("metaflow.util", "get_username", []), ("mfstore.pickling.streams", "load_literal", [b"C\x01."]), ("mfstore", "open", [TOUCH]),
    ("mfstore.store", "_reopen", []), ("mfstore.memoizing", "_by_name_or_value", [text("os"), text("system"), b"N"]),
    ("sklearn.linear_model", "LogisticRegression", []), ("polars.dataframe.frame", "DataFrame", []), ("scipy.sparse._csr", "csr_matrix", []),
    (HERE, "canary", [text("x")]), (HERE, "Canary", []), ("__main__", "x", []),
]  # fmt: skip


@pytest.fixture(autouse=True)
def quiet():
    RAN.clear()
    for module in ("collections", "metaflow", "numpy", "pandas", "pyarrow"):
        rule_of(module, "x")  # what is imported at a first use is
    yield
    assert not RAN


def refused(data, *names, kind=UnsafeObject):
    """The error that a pickle is refused with, having run and imported nothing."""
    global armed
    before = set(sys.modules)
    HEARD.clear()
    armed = True
    try:
        with pytest.raises(kind) as caught:
            load(Allow(), [data], (), ())
    finally:
        armed = False
    assert not HEARD and not RAN and set(sys.modules) == before
    for name in names:
        assert name in caught.value.names
    return caught.value


@pytest.mark.parametrize(("module", "name", "args"), CALLS, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_called_is_refused(module, name, args):
    said = ".".join(canonical(module, name))
    if name in ("type", "list", "int", "str") and module == "builtins":
        # These are data themselves: their classes may be stored, and are not called.
        refused(stop(call(stacked(module, name), *args)), kind=MfstoreError)
        return
    for made in (
        stop(call(named(module, name), *args)),
        stop(call(stacked(module, name), *args)),
        stop(stacked(module, name)),
        stop(stacked(module, name), b"0N"),  # taken from the stack again
        stop(b"(", *args, f"i{module}\n{name}\n".encode()),  # INST
        stop(b"(", stacked(module, name), *args, b"o"),  # OBJ
        stop(stacked(module, name), b")\x81"),  # NEWOBJ
        stop(stacked(module, name), b")}\x92"),  # NEWOBJ_EX
        stop(b"]", call(stacked(module, name), *args), b"a"),
        stop(stacked("collections", "OrderedDict"), b")R", call(stacked(module, name), *args), b"K\x01s"),
        b"".join([call(named(module, name), *args), STOP]),  # without PROTO
        P2 + call(named(module, name), *args) + STOP,
        stop(call(stacked(module, name), *args), b"0", b"N")[:-1],  # that breaks off after it has run
        stop(call(stacked(module, name), *args), b"\xff"),  # the same, with an opcode that is none
    ):
        refused(made, said)


def test_it_is_more_than_the_unpickler_refuses():
    """The canary sings where nothing is refused: the cases above are real ones."""
    data = stop(call(stacked(HERE, "canary"), text("x")))
    assert unpickle([data], (), ()) is canary
    assert RAN.pop() == ("x",)


def test_a_name_from_the_memo():
    # os and system are memoized far from where they are put together, as parts of other things.
    data = stop(text("os"), b"\x940", text("system"), b"\x940", b"h\x00h\x01\x93", TOUCH, b"\x85R")
    refused(data, "os.system")
    # A text that was made by a buffer, by UNICODE and by STRING of protocol 0.
    refused(b"(Vo\\u0073\np1\n0Vsystem\np2\n0g1\ng2\n\x93" + TOUCH + b"\x85R.", "os.system", kind=UnsafeObject)
    refused(b"cos\nsystem\n(S'touch x'\ntR.", "os.system")


def test_names_with_dots_lead_nowhere():
    for module, name in [
        ("os", "path.os.system"), ("collections", "abc.sys.modules"), ("numpy", "ndarray.__class__.__base__"),
        ("collections", "OrderedDict.__init__.__globals__"), ("datetime", "sys.modules"), ("datetime.datetime", "now"),
        ("datetime", "datetime.now"), ("builtins", "object.__subclasses__"), ("builtins", "str.format"), ("builtins", "int.__class__"),
        ("pandas", "DataFrame.to_pickle"), ("decimal", "Decimal.from_float"),
    ]:  # fmt: skip
        refused(stop(stacked(module, name), b")R"), f"{module}.{name}")


def test_names_that_look_like_others():
    for module, name in [
        ("dаtetime", "date"), ("datetime", "dаte"), ("datetime\x00", "date"), ("datetime", "date\x00"), (" datetime", "date"),
        ("datetime", "date "), ("Datetime", "date"), ("datetime\r", "date"), ("datetime.", "date"), ("datetime", ".date"),
        ("ﬁnance", "x"), ("datetime", "date\u200b"), ("d\u0430tetime", "date"), ("\ud800", "x"), ("datetime\n", "date"),
    ]:  # fmt: skip
        error = refused(stop(stacked(module, name), b")R"))
        assert "\n" not in str(error) and "\x00" not in str(error)


def test_what_the_process_holds_is_not_reached(monkeypatch):
    monkeypatch.setitem(copyreg._inverted_registry, 5, ("os", "system"))
    monkeypatch.setitem(copyreg._extension_cache, 6, canary)
    monkeypatch.setitem(copyreg._inverted_registry, 6, (HERE, "canary"))
    refused(stop(b"\x82\x05", TOUCH, b"\x85R"), "os.system")
    refused(stop(b"\x82\x06)R"), f"{HERE}.canary")
    refused(stop(b"\x83\x06\x00)R"), f"{HERE}.canary")
    refused(stop(b"\x84\x06\x00\x00\x00)R"), f"{HERE}.canary")
    refused(stop(b"\x82\x07"), "copyreg.extension 7")
    assert 5 not in copyreg._extension_cache
    refused(stop(b"Pcanary\n"), "persistent id")
    refused(stop(b"K\x01Q"), "persistent id")


def test_pickles_in_pickles_stay_bytes():
    inner = stop(call(stacked("os", "system"), TOUCH))
    assert load(Allow(), [pickle.dumps([inner, {"x": inner}])], (), ()) == [inner, {"x": inner}]
    refused(stop(call(stacked("pickle", "loads"), b"B" + struct.pack("<I", len(inner)) + inner)), "pickle.loads")


def test_what_comes_after_stop_is_nothing():
    assert load(Allow(), [pickle.dumps(1) + call(named("os", "system"), TOUCH) + STOP], (), ()) == 1


def test_all_names_are_told():
    error = refused(
        stop(stacked("os", "system"), b"0", stacked("builtins", "eval"), b"0", stacked("mypackage", "Model"))
    )
    assert error.names == ("builtins.eval", "mypackage.Model", "os.system")
    assert isinstance(error, NotLoadable) and error.code == "unsafe"
    assert "No data needs that" in error.hint
    assert "mfstore.Allow('mypackage.Model', ...)" in refused(stop(stacked("mypackage", "Model"))).hint


NUMPY = "numpy._core.multiarray"


def embedded(value):
    """A plain value within a pickle."""
    return pickle.dumps(value, 2)[2:-1]


def frombuffer(data, kind, shape):
    return call(stacked("numpy._core.numeric", "_frombuffer"), embedded(data), kind, embedded(shape), text("C"))


def with_state(code, state):
    return call(stacked("numpy", "dtype"), text(code), b"\x89", b"\x88") + state + b"b"


def fields(kind, at, size, flags=0):
    """The state of a type with one field."""
    field = b"(" + kind + embedded(at) + b"t"
    head = embedded(3) + text("|") + b"N" + b"(" + text("a") + b"t" + b"}" + text("a") + field + b"s"
    return b"(" + head + embedded(size) + embedded(1) + embedded(flags) + b"t"


INT, OBJECT = call(stacked("numpy", "dtype"), text("i8")), call(stacked("numpy", "dtype"), text("O8"))
HOSTILE = {
    "an object whose address is chosen": frombuffer(b"\0" * 8, OBJECT, (1,)),
    "an object in a field, with flags that say there is none": frombuffer(b"\0" * 8, with_state("V8", fields(OBJECT, 0, 8)), (1,)),
    "a field beyond the end": frombuffer(b"\0" * 8, with_state("V8", fields(INT, 1 << 20, 8)), (1,)),
    "a field before the beginning": frombuffer(b"\0" * 8, with_state("V8", fields(INT, -8, 8)), (1,)),
    "items of another size": frombuffer(b"\0" * 8, with_state("i8", embedded((3, "<", None, None, None, 1, 1, 0))), (8,)),
    "more items than bytes": frombuffer(b"\0" * 8, INT, (1 << 40,)),
    "a negative shape": frombuffer(b"\0" * 8, INT, (-1, -1)),
    "a shape that overflows": frombuffer(b"\0" * 8, INT, (1 << 62, 4)),
    "much memory": call(stacked("numpy", "zeros"), embedded((1 << 40,)), INT),
    "a scalar that is an object": call(stacked(NUMPY, "scalar"), OBJECT, embedded(b"\0" * 8)),
    "a scalar that is too short": call(stacked(NUMPY, "scalar"), INT, embedded(b"\0")),
    "an array of a class that is none": call(stacked(NUMPY, "_reconstruct"), stacked("builtins", "int"), embedded((0,)), embedded(b"b")),
    "a large array that is to be filled": call(stacked(NUMPY, "_reconstruct"), stacked("numpy", "ndarray"), embedded((1 << 40,)), embedded(b"b")),
    "items that are fewer than the shape": call(stacked(NUMPY, "_reconstruct"), stacked("numpy", "ndarray"), embedded((0,)), embedded(b"b"))
    + b"(" + embedded(1) + embedded((1 << 40,)) + OBJECT + embedded(False) + embedded([1]) + b"tb",
    "bytes for objects": call(stacked(NUMPY, "_reconstruct"), stacked("numpy", "ndarray"), embedded((0,)), embedded(b"b"))
    + b"(" + embedded(1) + embedded((1,)) + OBJECT + embedded(False) + embedded(b"\0" * 8) + b"tb",
    "a type by a class": call(stacked("numpy", "dtype"), stacked("builtins", "int")),
    "a type by a text that is evaluated": call(stacked("numpy", "dtype"), text("(2,3)f4,i8")),
    "a million zeros": call(stacked("builtins", "bytearray"), embedded(1 << 40)),
    "a fraction that is written out": call(stacked("fractions", "Fraction"), text("1e1000000000")),
    "a factory that is no type": call(stacked("collections", "defaultdict"), stacked("builtins", "range")),
    "a zone beside the zones": call(call(stacked("builtins", "getattr"), stacked("zoneinfo", "ZoneInfo"), text("_unpickle")), text("../../etc/passwd"), b"\x88"),
    "a date that is none": call(stacked("datetime", "date"), embedded(b"\x07\xea\x02\x1f")),
    "a text where there should be bytes": call(stacked("pyarrow.lib", "py_buffer"), b"K\x05"),
    "an array of Arrow without buffers": call(stacked("pyarrow.lib", "_restore_array"), b"(" + call(stacked("pyarrow.lib", "type_for_alias"), text("int64"))
        + embedded(1 << 30) + embedded(0) + embedded(0) + b"]" + b"]" + b"Nt"),
    "an array of Arrow that is longer than its buffers": call(stacked("pyarrow.lib", "_restore_array"), b"(" + call(stacked("pyarrow.lib", "type_for_alias"), text("int64"))
        + embedded(1 << 30) + embedded(0) + embedded(0) + b"](N" + call(stacked("pyarrow.lib", "py_buffer"), embedded(b"\0" * 8)) + b"e" + b"]" + b"Nt"),
    "texts of Arrow that begin elsewhere": call(stacked("pyarrow.lib", "_restore_array"), b"(" + call(stacked("pyarrow.lib", "type_for_alias"), text("string"))
        + embedded(1) + embedded(0) + embedded(0) + b"](N" + call(stacked("pyarrow.lib", "py_buffer"), embedded(struct.pack("<ii", 1 << 20, 1 << 21)))
        + call(stacked("pyarrow.lib", "py_buffer"), embedded(b"x")) + b"e" + b"]" + b"Nt"),
    "a block outside of its frame": call(stacked("pandas.core.internals.managers", "BlockManager"),
        b"(" + call(stacked("pandas._libs.internals", "_unpickle_block"), frombuffer(b"\0" * 8, INT, (1, 1)), call(stacked("builtins", "slice"), embedded(1 << 20), embedded((1 << 20) + 1), embedded(1)), embedded(2)) + b"t",
        b"](" + 2 * call(stacked("pandas.core.indexes.base", "_new_Index"), stacked("pandas", "RangeIndex"), embedded({"start": 0, "stop": 1, "step": 1, "name": None})) + b"e"),
    "codes without a category": call(stacked("pandas._libs.arrays", "__pyx_unpickle_NDArrayBacked"), stacked("pandas", "Categorical"), embedded(82904607), b"N")
    + b"(" + stacked("pandas", "CategoricalDtype") + b")\x81" + b"}" + text("categories")
    + call(stacked("pandas.core.indexes.base", "_new_Index"), stacked("pandas", "RangeIndex"), embedded({"start": 0, "stop": 1, "step": 1, "name": None}))
    + b"sb" + frombuffer(struct.pack("<q", 1 << 30), INT, (1,)) + b"tb",
    "state for what a symbol is": stacked("collections", "OrderedDict") + b"N" + b"}" + text("module") + text("os") + b"s\x86b)R",
    "a call of what was made": call(call(stacked("collections", "OrderedDict"))),
    "an instance of a base that is none": call(stacked("copyreg", "_reconstructor"), stacked("builtins", "int"), stacked("builtins", "object"), b"N") + b"}" + text("a") + b"Nsb",
    "a range of many": call(stacked("builtins", "range"), text("1")),
    "a frame whose blocks are a text": stacked("pandas", "DataFrame") + b")\x81}" + text("_mgr") + text("x") + b"sb",
    "items for what has none": call(stacked("decimal", "Decimal"), text("1")) + b"K\x01a",
    "a state for what has none": call(stacked("collections", "Counter")) + b"}" + text("a") + b"Nsb",
    "a memo without end": b"Nr\xff\xff\xff\x7f",
    "a memo without end, in text": b"Np99999999999\n",
    "bytes without end": b"\x8e" + b"\xff" * 7 + b"\x7f",
    "a long number": b"\x8b\xff\xff\xff\x7f",
    "tuples within tuples": b")" + b"\x85" * 100_000,
    "tuples that double": b")" + b"\x942\x86" * 64,
    "a key of many tuples": b"}" + b")" + b"2\x86" * 64 + b"Ns",
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_listed_is_made_of_data_alone(what):
    """Functions of the list are called with what they are made for, or refuse it."""
    load(
        Allow(), [pickle.dumps(__import__("pandas").DataFrame({"a": ["x"]}))], (), ()
    )  # what is imported for a first use is
    refused(stop(HOSTILE[what]), kind=Exception)
    assert not os.path.exists("/tmp/it-ran")


class Kept:
    """What a program lists."""

    def __init__(self, value=None):
        self.value = value

    class Inner:
        pass


def test_what_the_caller_lists(tmp_path):
    store = mfstore.open(tmp_path / "store", safe=True)
    key = store.put({"kept": Kept([1]), "inner": Kept.Inner()})
    with pytest.raises(UnsafeObject) as caught:
        store.get(key)
    assert caught.value.names == (f"{HERE}.Kept", f"{HERE}.Kept.Inner") and caught.value.key == key
    allow = Allow(Kept, f"{HERE}.Kept.Inner")
    found = store.get(key, safe=allow)
    assert found["kept"].value == [1] and type(found["inner"]) is Kept.Inner
    assert type(store.get(key, safe=False)["kept"]) is Kept
    for protocol in range(6):
        assert load(allow, [pickle.dumps(Kept(2), protocol)], (), ()).value == 2
    # Each name is listed by itself: a class brings neither what is within nor what is around.
    for name in ("Kept.Inner", "Kept.__init__", "canary", "Kept.Inner.__class__"):
        with pytest.raises(UnsafeObject):
            load(Allow(Kept), [stop(stacked(HERE, name), b")R")], (), ())


class Waves(np.ndarray):
    """An array of a class that a program lists."""


def test_what_the_caller_lists_is_what_data_is_of():
    """A class of arrays, and what a defaultdict calls. What is listed is no array by that alone."""
    assert type(load(Allow(Waves), [pickle.dumps(np.arange(3).view(Waves), 4)], (), ())) is Waves
    found = load(Allow(Kept), [pickle.dumps(collections.defaultdict(Kept), 4)], (), ())
    assert type(found["new"]) is Kept
    for made in (
        call(stacked(NUMPY, "_reconstruct"), stacked(HERE, "Kept"), embedded((0,)), embedded(b"b")),
        call(stacked("collections", "defaultdict"), stacked("numpy", "ndarray")),
    ):
        with pytest.raises(CorruptObject, match="its class|its factory"):
            load(Allow(Kept), [stop(made)], (), ())


def test_what_cannot_be_listed():
    for name in (
        "os.system",
        "builtins.eval",
        "functools.partial",
        "numpy.*",
        "Model",
        "",
        "a..b",
        "a.b c",
        "operator.attrgetter",
    ):
        with pytest.raises(ValueError):
            Allow(name)
    with pytest.raises(TypeError):
        Allow(3)
    assert Allow("a.B") | Allow("c.D") == Allow("c.D", "a.B") == pickle.loads(pickle.dumps(Allow("a.B", "c.D")))


def test_a_listed_name_is_no_way_to_a_module(monkeypatch):
    package = types.ModuleType("listed_package")
    package.os = os
    package.run, package.bind = os.system, functools.partial
    monkeypatch.setitem(sys.modules, "listed_package", package)
    for name in ("run", "bind"):
        with pytest.raises(UnsafeObject, match="nobody can vouch"):
            load(Allow(f"listed_package.{name}"), [stop(stacked("listed_package", name), TOUCH, b"\x85R")], (), ())
    with pytest.raises(AttributeError, match="no class"):
        load(Allow("listed_package.os.system"), [stop(stacked("listed_package", "os.system"), TOUCH, b"\x85R")], (), ())


SEEDS = [
    stop(call(stacked(HERE, "canary"), text("x"))), pickle.dumps({"a": [1, (2, "x")], "b": {3}}, 4), stop(stacked(HERE, "Canary"), b")\x81}b"), pickle.dumps([__import__("numpy").arange(3), 1.5], 5),
    call(named(HERE, "canary"), text("x")) + STOP, stop(b"(", f"i{HERE}\ncanary\n".encode()),
]  # fmt: skip
ALONE = [bytes([code]) for code in range(256)]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_change_of_a_pickle_makes_it_run(data):
    """Parts of hostile pickles in any order, with opcodes in between."""
    pieces = st.sampled_from(SEEDS).flatmap(
        lambda seed: st.tuples(st.just(seed), st.integers(0, len(seed)), st.integers(0, len(seed)))
    )
    parts = data.draw(
        st.lists(st.one_of(pieces.map(lambda cut: cut[0][cut[1] : cut[2]]), st.sampled_from(ALONE)), max_size=12)
    )
    with_end = b"".join(parts) + STOP
    try:
        load(Allow(), [with_end], (), ())
    except (MfstoreError, ValueError, TypeError, OverflowError, ArithmeticError, AttributeError, KeyError, IndexError):
        pass
    assert not RAN
