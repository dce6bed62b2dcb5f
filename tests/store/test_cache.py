"""Functions that remember: which calls are the same one, what is remembered of them, and what goes wrong."""

import asyncio
import inspect
import pickle
import subprocess
import sys
import threading
import warnings
from datetime import timedelta
from functools import partial, wraps
from types import FunctionType
from typing import ClassVar

import numpy as np
import pytest

import mfstore
from mfstore.errors import MfstoreWarning, NotSerializable, WrongArgument
from mfstore.memoizing import PREFIX, code_of, hash_of, name_of, versions_of


@pytest.fixture
def store():
    with mfstore.open("memory://", threads=1) as store:
        yield store


def counting(store, **rules):
    calls = []

    @store.cache(ignore=["calls", *rules.pop("ignore", ())], **rules)
    def add(x, y=1, *more, verbose=False, **options):
        calls.append((x, y))
        return np.asarray(x) + y

    return add, calls


class Scaled:
    def __init__(self, by):
        self.by = by

    def times(self, x):
        return self.by * x


def of_source(text, name="f"):
    """A function that is made anew, as another process makes it."""
    space = {"__name__": "made"}
    exec(compile(text, "<made>", "exec"), space)
    return space[name]


# Which calls are the same one


def test_a_call_runs_once_however_its_arguments_are_given(store):
    add, calls = counting(store)
    assert add(np.arange(3)).tolist() == [1, 2, 3]
    assert add(np.arange(3), 1).tolist() == [1, 2, 3]
    assert add(y=1, x=np.arange(3)).tolist() == [1, 2, 3]
    assert len(calls) == 1
    others = [
        ((1,), {}),
        ((1.0,), {}),
        ((True,), {}),
        ((1, 2), {}),
        ((1, 1, 3), {}),
        ((1,), {"z": 1}),
        ((1,), {"a": 1}),
    ]
    for args, kwargs in others:
        add(*args, **kwargs)
    assert len(calls) == 1 + len(others)
    assert add.ref_of(1, y=1, verbose=False) == add.ref_of(x=1)


def test_what_is_ignored_does_not_count(store):
    add, calls = counting(store, ignore=["verbose", "options", "seen"])
    add(1)
    add(1, verbose=True, seen=3)
    assert len(calls) == 1
    add(1, other=3)
    assert len(calls) == 2


def test_an_unknown_name_is_refused_unless_any_keyword_is_taken(store):
    with pytest.raises(WrongArgument, match="It has x"):
        store.cache(lambda x: x, ignore=["y"])
    store.cache(lambda **options: options, ignore="y")


def test_the_code_counts_and_not_where_it_stands():
    plain = of_source("def f(x):\n    return x + 1\n")
    assert code_of(plain) == code_of(of_source("\n\n# moved\ndef f(x):  # and told\n    return (x + 1)\n"))
    others = ["x + 2", "x - 1", "x + 1.0", "x.real + 1", "abs(x) + 1", "[y + 1 for y in x]", "(lambda: x + 1)()"]
    sources = [f"def f(x):\n    return {body}\n" for body in others]
    assert len({code_of(of_source(source)) for source in sources} | {code_of(plain)}) == len(others) + 1
    before = code_of(plain)
    for n in range(100):  # its bytecode is specialized meanwhile
        plain(n)
    assert code_of(plain) == before


def test_the_order_of_a_set_in_the_code_does_not_count():
    """It is another one in each process."""
    one, other = frozenset((0, 8)), frozenset((8, 0))
    assert list(one) != list(other)

    def within(x):
        return x in (0, 8)

    codes = [within.__code__.replace(co_consts=(None, (found, 1))) for found in (one, other, frozenset((0, 9)))]
    first, second, third = [code_of(FunctionType(code, {})) for code in codes]
    assert first == second != third


def test_what_a_function_takes_from_around_it_counts(store):
    calls = []

    def times(factor):
        @store.cache(ignore="calls")
        def scale(x):
            calls.append(factor)
            return x * factor

        return scale

    assert [times(2)(3), times(5)(3), times(2)(3)] == [6, 15, 6]
    assert calls == [2, 5]


def test_a_function_that_calls_itself(store):
    @store.cache
    def factorial(n):
        return n * factorial(n - 1) if n else 1

    assert factorial(5) == 120
    assert len(store.refs) == 6


def test_functions_among_the_arguments_count_by_their_code():
    assert hash_of(lambda x: x) == hash_of(lambda x: x)
    assert hash_of(lambda x: x) != hash_of(lambda x: -x)
    assert hash_of(lambda x, y=1: x) != hash_of(lambda x, y=2: x)
    assert hash_of(lambda *, y=1: y) != hash_of(lambda *, y=2: y)
    assert hash_of(np) != hash_of(sys)


def test_functions_of_the_program_inside_of_arguments_count_by_their_code(monkeypatch):
    def hash_with(text):
        function = of_source(text)
        function.__module__ = "__main__"
        monkeypatch.setattr(sys.modules["__main__"], "f", function, raising=False)
        return hash_of([function]), hash_of(partial(function, 1))

    one, same, other = map(hash_with, ("def f(x): return x", "\ndef f(x):\n  return x", "def f(x): return x + 1"))
    assert one == same
    assert one[0] != other[0]
    assert one[1] != other[1]


def test_what_a_method_is_bound_to_counts(store):
    two, three = Scaled(2), Scaled(3)
    assert store.cache(two.times)(10) == 20
    assert store.cache(three.times)(10) == 30
    assert store.cache(Scaled(2).times).check_call_in_cache(10)
    assert store.cache(three.times, ignore="self").ref_of(10) == store.cache(two.times, ignore="self").ref_of(10)
    assert store.cache([1, 2, 2].count)(2) == 2
    assert store.cache([3].count)(2) == 0


def test_what_wraps_a_function_that_is_remembered_is_another_one(store):
    @store.cache
    def one(x):
        return x

    assert one(1) == 1

    @wraps(one)
    def negative(x):
        return -one(x)

    @wraps(one)
    def double(x):
        return 2 * one(x)

    assert (store.cache(negative)(1), store.cache(double)(1)) == (-1, 2)


def test_the_order_of_any_keywords_counts(store):
    @store.cache
    def columns(**named):
        return list(named)

    assert columns(a=1, b=2) == ["a", "b"]
    assert columns(b=2, a=1) == ["b", "a"]


def test_programs_that_are_written_alike_are_told_apart(store):
    def ref_in(file, module="__main__"):
        space = {"__name__": module}
        exec(compile("def f(): return PATH", file, "exec"), space)
        return store.cache(space["f"]).ref_of()

    assert ref_in("/a/one.py") == ref_in("/b/one.py") != ref_in("/a/two.py")
    assert ref_in("/a/one.py", "made") == ref_in("/a/two.py", "made")
    assert ref_in("/tmp/ipykernel_1/12.py") == ref_in("/tmp/ipykernel_2/34.py")


def test_versions_of_the_libraries_that_the_code_names():
    def inside(x):
        return [np.sin(x) for _ in range(3)]

    found = dict(versions_of(inside))
    assert found == {"python": f"{sys.version_info[0]}.{sys.version_info[1]}", "numpy": np.__version__}
    assert dict(versions_of(np.linalg.norm))["numpy"] == np.__version__
    assert dict(versions_of(lambda x: x)).keys() == {"python"}


def test_another_version_is_another_call(store, monkeypatch):
    before = store.cache(np.linalg.norm).ref_of([1.0])
    monkeypatch.setattr("mfstore.memoizing.version_of", lambda top: "99" if top == "numpy" else None)
    assert store.cache(np.linalg.norm).ref_of([1.0]) != before


def test_an_argument_that_cannot_be_hashed_is_named(store):
    add, _ = counting(store)
    with pytest.raises(NotSerializable, match=r"'lock' of a call of .*add cannot be hashed.*ignore=\['lock'\]"):
        add(1, lock=threading.Lock())

    lock = threading.Lock()

    @store.cache
    def locked():
        return lock.locked()

    with pytest.raises(NotSerializable, match="'lock'"):
        locked()
    assert store.cache(locked.__wrapped__, ignore="lock")() is False


def test_wrong_calls_are_type_errors(store):
    add, _ = counting(store)
    with pytest.raises(TypeError, match="missing a required argument: 'x'"):
        add()


# What can be decorated


def test_functions_in_c(store):
    assert store.cache(sum)([1, 2]) == 3
    assert store.cache([3, 4].index)(4) == 1
    assert [ref.split("/")[1] for ref in store.refs] == ["builtins.list.index", "builtins.sum"]


class Model:
    """With a method that remembers, in a store of its class."""

    store = mfstore.open("memory://", threads=1)
    calls: ClassVar = []

    def __init__(self, slope):
        self.slope = slope

    @store.cache
    def predict(self, x):
        self.calls.append(x)
        return self.slope * x

    @staticmethod
    @store.cache
    def fit(x):
        return x + 1


def test_methods_count_by_the_state_of_their_object():
    assert [Model(2).predict(3), Model(5).predict(3), Model(2).predict(x=3)] == [6, 15, 6]
    assert Model.calls == [3, 3]
    assert Model(2).predict.check_call_in_cache(3) and not Model(3).predict.check_call_in_cache(3)
    assert Model.predict(Model(5), 3) == 15
    assert Model(2).fit(1) == 2
    assert Model.predict.clear() == 2


def test_it_is_a_function_for_those_who_ask(store):
    add, _ = counting(store)
    assert inspect.signature(add) == inspect.signature(add.__wrapped__)
    assert add.__name__ == "add" and "add, remembered in" in repr(add)


@Model.store.cache
def doubled(x):
    return 2 * x


def test_it_pickles_by_its_name():
    assert pickle.loads(pickle.dumps(doubled)) is doubled
    bound = pickle.loads(pickle.dumps(Model(4).predict))
    assert bound.ref_of(3) == Model(4).predict.ref_of(3)


SCRIPT = """
import mfstore
store = mfstore.open({folder!r})

@store.cache
def factorial(n):
    return 1 if n < 2 else n * factorial(n - 1)

if __name__ == "__main__":
    from joblib import Parallel, delayed
    print(Parallel(n_jobs=2)(delayed(factorial)(n) for n in (3, 4)), factorial.check_call_in_cache(4))
"""


@pytest.mark.second
def test_workers_of_joblib_run_what_a_script_defines(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT.format(folder=str(tmp_path / "store")))
    ran = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=120)
    assert ran.stdout == "[6, 24] True\n", ran.stderr


def test_what_a_script_defines_is_found_there_by_its_name(store, monkeypatch):
    def function(x):
        return x

    function.__module__ = "__main__"
    function.__qualname__ = "function"
    cached = store.cache(function)
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "function", cached, raising=False)
    pickled = pickle.dumps(cached)
    assert pickle.loads(pickled) is cached
    monkeypatch.delattr(main, "function")
    assert pickle.loads(pickled)(3) == 3


def test_coroutine_functions(store):
    calls = []

    @store.cache(ignore="calls")
    async def fetch(x):
        calls.append(x)
        await asyncio.sleep(0)
        return x + 1

    async def several():
        return [await fetch(1), await fetch(1), await fetch.call(1)]

    assert asyncio.run(several()) == [2, 2, 2]
    assert calls == [1, 1]
    if sys.version_info >= (3, 12):
        assert inspect.iscoroutinefunction(fetch)


def generator():
    yield 1


async def asynchronous_generator():
    yield 1


@pytest.mark.parametrize(
    "what", [generator, asynchronous_generator, Model, staticmethod(len), 3, np.vectorize(len), partial(len)]
)
def test_what_has_no_result_to_remember_is_refused(store, what):
    with pytest.raises(WrongArgument):
        store.cache(what)


def test_names_fit_into_refs():
    def function():
        pass

    assert name_of(function) == "tests.store.test_cache.test_names_fit_into_refs.function"
    assert name_of(lambda: 0).endswith(".test_names_fit_into_refs.lambda")
    function.__qualname__ = "é" * 300
    longest = name_of(function)
    function.__qualname__ = "é" * 301
    assert longest != name_of(function)
    with mfstore.open("memory://") as store:
        store.refs.settable(f"{PREFIX}{longest}/{'0' * 32}")


# What is remembered


def test_a_ref_names_the_result_and_tells_of_the_call(store):
    add, _ = counting(store)
    add(np.arange(6.0).reshape(2, 3), 2, rate=0.5, name="x", many=[1] * 1000, ratio=np.float64(0.25))
    (ref,) = store.refs.list(PREFIX)
    (entry,) = store.refs.log(ref)
    assert store.get(ref)[1, 2] == 7
    assert entry.note["function"] == "tests.store.test_cache.counting.add"
    told = entry.note["arguments"]
    assert told.pop("many").startswith("[1, 1,")
    assert told == {
        "x": "ndarray 2 x 3", "y": 2, "more": "()", "verbose": False, "rate": 0.5, "name": "x", "ratio": 0.25
    }  # fmt: skip
    assert entry.note["seconds"] >= 0


class Silent:
    """Whose repr fails."""

    def __repr__(self):
        raise ValueError


def test_a_name_of_a_file_that_is_no_unicode(store):
    double = store.cache(of_source("def f(x): return x + x"))
    assert double("a\udc80") == double("a\udc80")
    assert double.check_call_in_cache("a\udc80")


def test_notes_stay_short(store):
    add, _ = counting(store)
    add(1, silent=Silent())
    add(1, **{f"n{n}": "\U0001f600" * 50 for n in range(30)})
    add(2, odd=[float("inf"), 1 << 100], much=1 << 1000, inf=float("inf"))
    assert len(store.refs) == 3


def test_call_runs_it_anew_and_remembers_that(store):
    add, calls = counting(store)
    add(1)
    calls.clear()
    assert add.call(1) == 2 and calls == [(1, 1)]
    assert add(1) == 2 and len(calls) == 1


def test_an_old_result_is_computed_anew(store):
    young, _ = counting(store, max_age=timedelta(hours=1))
    young(1)
    assert young.check_call_in_cache(1)
    old, calls = counting(store, max_age=-1)
    assert not old.check_call_in_cache(1)
    old(1)
    assert calls == [(1, 1)]


def test_clear_forgets_the_results_of_this_function_alone(store):
    add, _ = counting(store)
    doubled = store.cache(lambda x: 2 * x)
    for x in range(5):
        add(x), doubled(x)
    assert add.clear() == 5
    assert not add.check_call_in_cache(1) and doubled.check_call_in_cache(1)
    assert add.clear() == 0


def test_a_collection_keeps_what_is_remembered(store):
    add, _ = counting(store)
    add(np.zeros(3)), add(np.ones(3))
    assert not store.plan_gc(grace=0).decision.condemns.recipes
    (forgotten,) = store.plan_gc(grace=0, series=["cache/*"], keep_last=1).decision.refs
    assert forgotten.name in store.refs.list(PREFIX)


def test_both_of_two_at_once_compute(store):
    barrier = threading.Barrier(2, timeout=30)

    @store.cache(ignore="barrier")
    def slow(x):
        barrier.wait()
        return x + 1

    found = []
    threads = [threading.Thread(target=lambda: found.append(slow(1))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [2, 2] and slow(1) == 2


# What goes wrong


def test_a_result_that_cannot_be_stored_is_returned(store):
    @store.cache
    def lock():
        return threading.Lock()

    with pytest.warns(MfstoreWarning, match="lock is not remembered") as told:
        assert lock().acquire()
    assert told[0].filename == __file__
    assert not store.refs


def test_exceptions_are_not_remembered(store):
    calls = []

    @store.cache(ignore="calls")
    def fails():
        calls.append(1)
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            fails()
    assert len(calls) == 2 and not store.refs


def test_a_damaged_result_is_computed_anew(store):
    add, calls = counting(store)
    add(1)
    path = next(info.key for info in store.backend.list("recipes/"))
    store.backend.put(path, [b"damage"])
    with pytest.warns(MfstoreWarning, match="runs again"):
        assert add(1) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert add(1) == 2
    assert len(calls) == 2


def test_verbose_tells_what_happens(store, capsys):
    add, _ = counting(store, verbose=1)
    add(1), add(1)
    told = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in told] == ["computing", "computed", "loaded"]
    assert "add(x=1, y=1, more=(), verbose=False)" in told[0]
