"""Rules of pandas: frames, series, indexes, and the arrays and types that they have.

pandas writes and reads the places of columns and codes of categories without looking whether they are within, so here
it is looked at first.
"""

from __future__ import annotations

import datetime
from typing import Any

from mfstore.pickling.safe.arrays import MOST_EMPTY
from mfstore.pickling.safe.plain import are, called
from mfstore.pickling.safe.rules import Given, Rule, check, value_of, whole

_MOST_OF_RANGE = 1 << 27
"""Values of a range that pandas may write out: a gigabyte."""
_SIDES = ("left", "right", "both", "neither")
"""At which the intervals of an array may be closed."""


def _pd() -> Any:
    import pandas

    return pandas


def _np() -> Any:
    import numpy

    return numpy


def _found(*places: str) -> Any:
    """The first of these, ``module:name``, that this pandas has."""
    for place in places:
        module, name = place.split(":")
        try:
            return value_of(module, name)()
        except (ImportError, AttributeError):
            continue
    raise ImportError(f"this pandas has no {places[0].replace(':', '.')}", name="pandas")


def _state(given: Given, name: str, *known: str) -> dict[str, Any]:
    """The attributes of an instance that is made without arguments."""
    check(given.new and not given.args and not given.keywords, name, "its arguments")
    return _attributes(given.state, name, *known)


def _attributes(state: Any, name: str, *known: str) -> dict[str, Any]:
    """The attributes in a state, all of which are known."""
    check(type(state) is dict, name, "its state")
    stated = {attribute: value for attribute, value in state.items() if attribute not in _NOTED}
    check(stated.keys() <= set(known), name, "its state")
    return stated


_NOTED = ("_cache", "_readonly")
"""Attributes of arrays that are no content: what they were asked, and whether they may be written to."""


def _is_array(value: Any) -> bool:
    return isinstance(value, (_np().ndarray, _pd().api.extensions.ExtensionArray))


# ---- types of columns ---------------------------------------------------------------------


def _texts(given: Given) -> Any:
    pd = _pd()
    if given.new:
        # As pandas before 2.3 has it: a storage in the state.
        state = _state(given, "pandas.StringDtype", "storage", "_na_value")
        args: tuple[Any, ...] = tuple(state.values())
    else:
        args = called(given, "pandas.StringDtype", 0, 2)
    storage = args[0] if args else "python"
    missing = args[1] if len(args) > 1 else pd.NA
    check(storage in ("python", "pyarrow", "pyarrow_numpy"), "pandas.StringDtype", "its storage")
    check(missing is pd.NA or (type(missing) is float and missing != missing), "pandas.StringDtype", "what is missing")
    return pd.StringDtype(storage) if len(args) < 2 else pd.StringDtype(storage, missing)


def _categories(given: Given) -> Any:
    pd = _pd()
    state = _state(given, "pandas.CategoricalDtype", "categories", "ordered")
    categories, ordered = state.get("categories"), state.get("ordered", False)
    check(categories is None or isinstance(categories, pd.Index), "pandas.CategoricalDtype", "its categories")
    check(categories is None or _is_held(categories), "pandas.CategoricalDtype", "categories without end")
    check(ordered is None or type(ordered) is bool, "pandas.CategoricalDtype", "its order")
    return pd.CategoricalDtype(categories, ordered)


def _zoned(given: Given) -> Any:
    state = _state(given, "pandas.DatetimeTZDtype", "unit", "tz")
    check(type(state.get("unit")) is str and _is_zone(state.get("tz")), "pandas.DatetimeTZDtype", "its state")
    return _pd().DatetimeTZDtype(state["unit"], state["tz"])


def _is_zone(value: Any) -> bool:
    return isinstance(value, datetime.tzinfo)


def _periods(given: Given) -> Any:
    (freq,) = called(given, "pandas.PeriodDtype", 1, 1)
    check(type(freq) is str or _is_offset(freq), "pandas.PeriodDtype", "its frequency")
    return _pd().PeriodDtype(freq.removeprefix("period[").removesuffix("]") if type(freq) is str else freq)


def _is_offset(value: Any) -> bool:
    return isinstance(value, _pd().tseries.offsets.BaseOffset)


def _intervals(given: Given) -> Any:
    pd, np = _pd(), _np()
    if given.new:
        state = _state(given, "pandas.IntervalDtype", "subtype", "closed", "_subtype", "_closed")
        subtype = state.get("subtype", state.get("_subtype"))
        closed = state.get("closed", state.get("_closed"))
    else:
        subtype, closed = (*called(given, "pandas.IntervalDtype", 1, 2), None)[:2]
    check(isinstance(subtype, (np.dtype, str, pd.DatetimeTZDtype, type(None))), "pandas.IntervalDtype", "its type")
    check(closed in (*_SIDES, None), "pandas.IntervalDtype", "its sides")
    return pd.IntervalDtype(subtype, closed)


def _arrow_type(given: Given) -> Any:
    import pyarrow

    if given.new:
        # It has what it was asked for too, which is asked again.
        check(type(given.state) is dict and not given.args, "pandas.ArrowDtype", "its state")
        kind = given.state.get("pyarrow_dtype")
    else:
        (kind,) = called(given, "pandas.ArrowDtype", 1, 1)
    check(isinstance(kind, pyarrow.DataType), "pandas.ArrowDtype", "its type")
    return _pd().ArrowDtype(kind)


_MASKED = ("Int8Dtype", "Int16Dtype", "Int32Dtype", "Int64Dtype", "UInt8Dtype", "UInt16Dtype", "UInt32Dtype",
           "UInt64Dtype", "Float32Dtype", "Float64Dtype", "BooleanDtype")  # fmt: skip


def _masked_type(name: str) -> Any:
    def make(given: Given) -> Any:
        # Its state is what it was asked before.
        check(not given.args and not given.keywords, f"pandas.{name}", "its arguments")
        return getattr(_pd(), name)()

    return make


# ---- arrays -------------------------------------------------------------------------------


def _masked_array(name: str, kinds: str) -> Any:
    def make(given: Given) -> Any:
        np = _np()
        label = f"pandas.arrays.{name}"
        state = _state(given, label, "_data", "_mask", "_dtype")
        data: Any = state.get("_data")
        mask: Any = state.get("_mask")
        check(type(data) is np.ndarray and type(mask) is np.ndarray, label, "no arrays")
        check(data.dtype.kind in kinds and mask.dtype == bool and data.shape == mask.shape, label, "its arrays")
        kind: Any = getattr(_pd().arrays, name)
        made = kind(data, mask)
        check("_dtype" not in state or state["_dtype"] == made.dtype, label, "its type")
        # In the order in which they are there: it is part of how it pickles.
        made.__dict__.clear()
        made.__dict__.update(state)
        return made

    return make


def _arrow_array(name: str) -> Any:
    def make(given: Given) -> Any:
        import pyarrow

        pd = _pd()
        label = f"pandas.arrays.{name}"
        state = _state(given, label, "_pa_array", "_data", "_dtype")
        data: Any = state.get("_pa_array", state.get("_data"))
        check(isinstance(data, (pyarrow.Array, pyarrow.ChunkedArray)), label, "no array")
        kind = _found(f"pandas.arrays:{name}", f"pandas.core.arrays.string_arrow:{name}",
                      f"pandas.core.arrays.arrow.array:{name}", f"pandas.core.arrays.arrow:{name}")  # fmt: skip
        dtype = state.get("_dtype")
        if name == "ArrowExtensionArray":
            check(dtype is None or dtype == pd.ArrowDtype(data.type), label, "its type")
        else:
            texts = pyarrow.types.is_string(data.type) or pyarrow.types.is_large_string(data.type)
            check(texts and isinstance(dtype, pd.StringDtype) and dtype.storage != "python", label, "its type")
        made = kind.__new__(kind)
        state["_cache"] = {}
        made.__setstate__(state)
        return made

    return make


def _backed(given: Given) -> Any:
    """Arrays that pandas keeps in one of numpy's: dates, categories, texts."""
    pd, np = _pd(), _np()
    name = "pandas array"
    check(len(given.args) == 3 and type(given.state) is tuple and 2 <= len(given.state) <= 3, name, "its state")
    kind, checksum, _ = given.args
    dtype, data, *more = given.state
    if isinstance(dtype, np.ndarray):  # as pandas 1 has it
        dtype, data = data, dtype
    check(type(checksum) is int and type(data) is np.ndarray, name, "its state")
    attributes = more[0] if more else {}
    check(type(attributes) is dict, name, "its attributes")
    freq = attributes.get("_freq")
    check(freq is None or _is_offset(freq), name, "its frequency")
    arrays = pd.arrays
    if kind is arrays.DatetimeArray:
        fits = data.dtype.kind == "M" and (dtype == data.dtype or _fits_zone(dtype, data.dtype))
    elif kind is arrays.TimedeltaArray:
        fits = data.dtype.kind == "m" and dtype == data.dtype
    elif kind is arrays.PeriodArray:
        fits = data.dtype == np.int64 and isinstance(dtype, pd.PeriodDtype)
    elif kind is pd.Categorical:
        fits = isinstance(dtype, pd.CategoricalDtype) and data.dtype.kind == "i" and dtype.categories is not None
        fits = fits and (not data.size or (data.min() >= -1 and data.max() < len(dtype.categories)))
    elif kind is arrays.StringArray:
        fits = data.dtype == object and isinstance(dtype, pd.StringDtype) and dtype.storage == "python"
        fits = fits and all(type(one) is str or one is pd.NA or one is None or one != one for one in data.flat)
    elif kind is _numpy_array():
        fits = getattr(dtype, "numpy_dtype", None) == data.dtype
    else:
        fits = False
    check(fits, name, "its class or its type is not that of its data")
    rebuild: Any = value_of("pandas._libs.arrays", "__pyx_unpickle_NDArrayBacked")()
    made = rebuild(kind, checksum, None)
    # Its other attributes are what it has noted when it was read.
    kept = {attribute: attributes[attribute] for attribute in ("_freq",) if attribute in attributes}
    made.__setstate__((*given.state[:2], kept) if more else given.state)
    return made


def _fits_zone(dtype: Any, of_data: Any) -> bool:
    return isinstance(dtype, _pd().DatetimeTZDtype) and of_data == dtype.base


def _numpy_array() -> Any:
    return _found("pandas.arrays:NumpyExtensionArray", "pandas.arrays:PandasArray")


def _interval_array(given: Given) -> Any:
    pd = _pd()
    name = "pandas.arrays.IntervalArray"
    check(len(given.args) == 3 and given.args[0] is pd.arrays.IntervalArray, name, "its class")
    state = given.state[0] if type(given.state) is tuple and given.state else given.state
    state = _attributes(state, name, "_left", "_right", "_dtype")
    left, right = state.get("_left"), state.get("_right")
    kinds = pd.Index, pd.api.extensions.ExtensionArray, _np().ndarray
    check(all(isinstance(end, kinds) and _is_held(end) for end in (left, right)), name, "its ends")
    closed = getattr(state.get("_dtype"), "closed", None)
    check(closed in _SIDES, name, "its sides")
    return pd.arrays.IntervalArray.from_arrays(left, right, closed)


# ---- indexes ------------------------------------------------------------------------------


def _index(given: Given) -> Any:
    pd = _pd()
    kind, parts = called(given, "pandas.Index", 2, 2)
    check(type(parts) is dict and are(str, parts), "pandas.Index", "its parts")
    parts = dict(parts)
    if kind is pd.RangeIndex:
        name = parts.pop("name", None)
        check(parts.keys() <= {"start", "stop", "step"} and are(int, parts.values()), "pandas.RangeIndex", "its parts")
        return pd.RangeIndex(**parts, name=name)
    if kind is pd.MultiIndex:
        return _multi_index(parts)
    check(any(kind is one for one in (pd.Index, pd.CategoricalIndex, pd.PeriodIndex)), "pandas.Index", "its class")
    check(parts.keys() <= {"data", "name", "dtype"} and _is_array(parts.get("data")), "pandas.Index", "no array")
    dtype = parts.get("dtype")
    types = type(None), _np().dtype, pd.api.extensions.ExtensionDtype
    check(isinstance(dtype, types), "pandas.Index", "its type")
    rebuild: Any = value_of("pandas.core.indexes.base", "_new_Index")()
    return rebuild(kind, parts)


def _is_held(values: Any) -> bool:
    """Whether all of its values are there, or few: a range has any number of them in no memory until somebody looks."""
    return not isinstance(values, _pd().RangeIndex) or len(values) <= _MOST_OF_RANGE


def _multi_index(parts: dict[str, Any]) -> Any:
    """pandas looks whether the codes are within."""
    pd, np = _pd(), _np()
    known = {"levels", "codes", "sortorder", "names"}
    check(parts.keys() <= known and {"levels", "codes"} <= parts.keys(), "pandas.MultiIndex", "its parts")
    levels, codes = parts["levels"], parts["codes"]
    check(type(levels) in (list, tuple) and type(codes) in (list, tuple), "pandas.MultiIndex", "its levels")
    check(all(isinstance(level, pd.Index) for level in levels), "pandas.MultiIndex", "its levels")
    check(all(map(_is_held, levels)), "pandas.MultiIndex", "levels without end")
    check(all(type(one) is np.ndarray and one.dtype.kind == "i" for one in codes), "pandas.MultiIndex", "its codes")
    order = parts.get("sortorder")
    check(order is None or type(order) is int, "pandas.MultiIndex", "its order")
    return pd.MultiIndex(list(levels), list(codes), order, parts.get("names"), verify_integrity=True)


def _time_index(module: str, name: str, own: str) -> Any:
    def make(given: Given) -> Any:
        kind, parts = called(given, f"pandas.{own}", 2, 2)
        check(kind is getattr(_pd(), own) and type(parts) is dict, f"pandas.{own}", "its class")
        check(
            parts.keys() <= {"data", "name", "freq", "tz"} and _is_array(parts.get("data")), f"pandas.{own}", "no array"
        )
        freq, zone = parts.get("freq"), parts.get("tz")
        check(freq is None or type(freq) is str or _is_offset(freq), f"pandas.{own}", "its frequency")
        check(zone is None or _is_zone(zone), f"pandas.{own}", "its time zone")
        return value_of(module, name)()(kind, dict(parts))

    return make


def _interval_index(given: Given) -> Any:
    pd = _pd()
    kind, parts = called(given, "pandas.IntervalIndex", 2, 2)
    check(kind is pd.IntervalIndex and type(parts) is dict, "pandas.IntervalIndex", "its class")
    check(parts.keys() <= {"left", "right", "closed", "name"}, "pandas.IntervalIndex", "its parts")
    ends = parts.get("left"), parts.get("right")
    check(all(isinstance(end, pd.Index) and _is_held(end) for end in ends), "pandas.IntervalIndex", "its ends")
    check(parts.get("closed") in _SIDES, "pandas.IntervalIndex", "its sides")
    return pd.IntervalIndex.from_arrays(**parts)


# ---- frames and series --------------------------------------------------------------------


def _block(given: Given) -> Any:
    np = _np()
    values, place, dimensions = called(given, "pandas block", 3, 3)
    check(_is_array(values) and dimensions in (1, 2), "pandas block", "no array")
    if type(place) is slice:
        ends = place.start, place.stop, place.step
        check(
            are((int, type(None)), ends) and 0 <= (place.start or 0) <= (place.stop or 0), "pandas block", "its place"
        )
        check((place.stop or 0) < 1 << 31, "pandas block", "its place")
    else:
        check(type(place) is np.ndarray and place.dtype.kind == "i" and place.ndim == 1, "pandas block", "its place")
    return value_of("pandas._libs.internals", "_unpickle_block")()(values, place, dimensions)


def _manager(given: Given) -> Any:
    """The blocks of a frame, which take each of its columns once and are as long as it is."""
    pd, np = _pd(), _np()
    name = "pandas.DataFrame"
    blocks, axes = called(given, name, 2, 2)
    check(type(blocks) in (tuple, list) and type(axes) is list and len(axes) == 2, name, "its blocks")
    check(all(isinstance(axis, pd.Index) for axis in axes), name, "its axes")
    kind: Any = value_of("pandas.core.internals.blocks", "Block")()
    width, length = map(len, axes)
    taken = []
    check(length or width <= MOST_EMPTY, name, "columns without end")
    for block in blocks:
        check(isinstance(block, kind), name, "its blocks")
        shape, count = block.values.shape, len(block.mgr_locs)
        flat = len(shape) == 1 and count == 1 and shape[0] == length
        check((flat or shape == (count, length)) and count <= width, name, "a block of another size")
        taken.append(block.mgr_locs.as_array)
    everywhere = np.sort(np.concatenate(taken)) if taken else np.arange(0)
    check(len(everywhere) == width and (everywhere == np.arange(width)).all(), name, "its columns")
    return value_of("pandas.core.internals.managers", "BlockManager")()(tuple(blocks), list(axes))


def _one_manager(given: Given) -> Any:
    """The values of a series, which are as many as its index has."""
    pd = _pd()
    name = "pandas.Series"
    state = given.state
    check(given.new and not given.args and type(state) is tuple and len(state) == 4, name, "its state")
    stated: Any = state[3].get("0.14.1") if type(state[3]) is dict else None
    check(type(stated) is dict, name, "its state")
    axes, blocks = stated.get("axes"), stated.get("blocks")
    check(type(axes) is list and len(axes) == 1 and type(blocks) is list and len(blocks) == 1, name, "its blocks")
    check(isinstance(axes[0], pd.Index) and type(blocks[0]) is dict, name, "its index")
    values = blocks[0].get("values")
    check(_is_array(values) and values.shape == (len(axes[0]),), name, "its values are not as many as its index has")
    return value_of("pandas.core.internals.managers", "SingleBlockManager")().from_array(values, axes[0])


def _filled(name: str, manager: str) -> Any:
    """A frame or a series."""

    def make(given: Given) -> Any:
        label = f"pandas.{name}"
        state = _state(given, label, "_mgr", "_typ", "_metadata", "attrs", "_attrs", "_flags", "_name", "name")
        kind: Any = getattr(_pd(), name)
        check(type(state.get("_mgr")) is value_of("pandas.core.internals.managers", manager)(), label, "its blocks")
        check(state.get("_metadata", []) in ([], ["_name"], ["name"]), label, "its metadata")
        check(state.get("_typ") == name.lower(), label, "its class")
        for attributes in (state.get("attrs", {}), state.get("_attrs", {}), state.get("_flags", {})):
            check(type(attributes) is dict, label, "its attributes")
        check(state.get("_flags", {}).keys() <= {"allows_duplicate_labels"}, label, "its flags")
        made = kind.__new__(kind)
        made.__setstate__(state)
        return made

    return make


# ---- single values ------------------------------------------------------------------------


def _timestamp(given: Given) -> Any:
    value, freq, zone, *unit = called(given, "pandas.Timestamp", 3, 4)
    check(
        are(int, (value, *unit)) and freq is None and (zone is None or _is_zone(zone)), "pandas.Timestamp", "its parts"
    )
    return value_of("pandas._libs.tslibs.timestamps", "_unpickle_timestamp")()(value, freq, zone, *unit)


def _timedelta(given: Given) -> Any:
    args = called(given, "pandas.Timedelta", 2, 2)
    check(are(int, args), "pandas.Timedelta", "no numbers")
    return value_of("pandas._libs.tslibs.timedeltas", "_timedelta_unpickle")()(*args)


def _not_a_time(given: Given) -> Any:
    called(given, "pandas.NaT", 0, 1)
    return _pd().NaT


def _period(given: Given) -> Any:
    nothing, freq, ordinal = called(given, "pandas.Period", 3, 3)
    check(nothing is None and _is_offset(freq) and type(ordinal) is int, "pandas.Period", "its parts")
    return _pd().Period(None, freq, ordinal)


def _interval(given: Given) -> Any:
    left, right, closed = called(given, "pandas.Interval", 3, 3)
    check(type(closed) is str, "pandas.Interval", "its sides")
    return _pd().Interval(left, right, closed)


def _offset(name: str) -> Any:
    def make(given: Given) -> Any:
        args = called(given, f"pandas.offsets.{name}", 0, 4)
        check(are((int, bool, type(None), str), args), f"pandas.offsets.{name}", "no numbers")
        return getattr(_pd().offsets, name)(*args)

    return make


_OFFSETS = (
    "Day", "Hour", "Minute", "Second", "Milli", "Micro", "Nano", "Week", "MonthBegin", "MonthEnd", "BMonthBegin",
    "BMonthEnd", "BusinessMonthBegin", "BusinessMonthEnd", "SemiMonthBegin", "SemiMonthEnd", "QuarterBegin",
    "QuarterEnd", "BQuarterBegin", "BQuarterEnd", "YearBegin", "YearEnd", "BYearBegin", "BYearEnd",
)  # fmt: skip


def _under(name: str, *modules: str) -> list[str]:
    """A class as pandas 3 calls it, and as those before do, after the module that it is in."""
    return [f"{module}.{name}" for module in ("pandas", *modules)]


def _all(places: list[str], rule: Rule) -> dict[str, Rule]:
    return dict.fromkeys(places, rule)


def _classes() -> dict[str, Rule]:
    """Classes that stand as values: what something is an instance of."""
    found: dict[str, Rule] = {}
    indexes = {"Index": "base", "RangeIndex": "range", "MultiIndex": "multi", "CategoricalIndex": "category",
               "PeriodIndex": "period", "DatetimeIndex": "datetimes", "TimedeltaIndex": "timedeltas",
               "IntervalIndex": "interval"}  # fmt: skip
    for name, module in indexes.items():
        found |= _all(_under(name, f"pandas.core.indexes.{module}"), Rule(value=value_of("pandas", name)))
    arrays = {"DatetimeArray": "datetimes", "TimedeltaArray": "timedeltas", "PeriodArray": "period",
              "StringArray": "string_", "IntervalArray": "interval", "NumpyExtensionArray": "numpy_",
              "PandasArray": "numpy_"}  # fmt: skip
    for name, module in arrays.items():
        places = [f"pandas.arrays.{name}", f"pandas.core.arrays.{module}.{name}"]
        found |= _all(places, Rule(value=value_of("pandas.arrays", name)))
    found |= _all(
        _under("Categorical", "pandas.core.arrays.categorical"), Rule(value=value_of("pandas", "Categorical"))
    )
    return found


RULES: dict[str, Rule] = {
    **_classes(),
    **_all(_under("NA", "pandas._libs.missing"), Rule(value=value_of("pandas", "NA"))),
    **_all(_under("NaT", "pandas._libs.tslibs.nattype"), Rule(value=value_of("pandas", "NaT"))),
    **_all(_under("StringDtype", "pandas.core.arrays.string_"), whole(_texts)),
    **_all(_under("CategoricalDtype", "pandas.core.dtypes.dtypes"), whole(_categories)),
    **_all(_under("DatetimeTZDtype", "pandas.core.dtypes.dtypes"), whole(_zoned)),
    **_all(_under("PeriodDtype", "pandas.core.dtypes.dtypes"), whole(_periods)),
    **_all(_under("IntervalDtype", "pandas.core.dtypes.dtypes"), whole(_intervals)),
    **_all(_under("ArrowDtype", "pandas.core.dtypes.dtypes", "pandas.core.arrays.arrow.dtype"), whole(_arrow_type)),
    **{
        place: whole(_masked_type(name))
        for name in _MASKED
        for place in _under(name, *(f"pandas.core.arrays.{module}" for module in ("integer", "floating", "boolean")))
    },
    **{
        place: whole(_masked_array(name, kinds))
        for name, module, kinds in (
            ("IntegerArray", "integer", "iu"), ("FloatingArray", "floating", "f"), ("BooleanArray", "boolean", "b"))
        for place in (f"pandas.arrays.{name}", f"pandas.core.arrays.{module}.{name}")
    },
    **{
        place: whole(_arrow_array(name))
        for name, module in (
            ("ArrowStringArray", "string_arrow"), ("ArrowStringArrayNumpySemantics", "string_arrow"),
            ("ArrowExtensionArray", "arrow.array"))
        for place in (f"pandas.arrays.{name}", f"pandas.core.arrays.{module}.{name}")
    },
    "pandas._libs.arrays.__pyx_unpickle_NDArrayBacked": whole(_backed),
    "pandas._libs.interval.__pyx_unpickle_IntervalMixin": whole(_interval_array),
    "pandas.core.indexes.base._new_Index": whole(_index),
    "pandas.core.indexes.datetimes._new_DatetimeIndex": whole(
        _time_index("pandas.core.indexes.datetimes", "_new_DatetimeIndex", "DatetimeIndex")),
    "pandas.core.indexes.timedeltas._new_TimedeltaIndex": whole(
        _time_index("pandas.core.indexes.timedeltas", "_new_TimedeltaIndex", "TimedeltaIndex")),
    "pandas.core.indexes.interval._new_IntervalIndex": whole(_interval_index),
    "pandas._libs.internals._unpickle_block": whole(_block),
    "pandas.core.internals.managers.BlockManager": whole(_manager),
    "pandas.core.internals.managers.SingleBlockManager": whole(_one_manager),
    **_all(_under("DataFrame", "pandas.core.frame"), whole(_filled("DataFrame", "BlockManager"))),
    **_all(_under("Series", "pandas.core.series"), whole(_filled("Series", "SingleBlockManager"))),
    "pandas._libs.tslibs.timestamps._unpickle_timestamp": whole(_timestamp),
    "pandas._libs.tslibs.timedeltas._timedelta_unpickle": whole(_timedelta),
    "pandas._libs.tslibs.nattype._nat_unpickle": whole(_not_a_time),
    **_all(_under("Period", "pandas._libs.tslibs.period"), whole(_period)),
    **_all(_under("Interval", "pandas._libs.interval"), whole(_interval)),
    **{f"pandas._libs.tslibs.offsets.{name}": whole(_offset(name)) for name in _OFFSETS},
}  # fmt: skip
"""By name, with the module."""
