"""OpenTelemetry, through its API alone: counters of what stores and clients do, and spans around operations of stores.

With ``MFSTORE_OTEL=1`` each store that is opened is observed and traced; without, this module is not imported, nothing
is wrapped, and ``opentelemetry`` is not looked for. Where no provider is set, its API does nothing.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, wraps
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

from mfstore.display.prometheus import Family
from mfstore.errors import Unsupported
from mfstore.host.callers import warn_caller
from mfstore.metrics import ReadCounts, store_metrics
from mfstore.store import Store

if TYPE_CHECKING:
    from mfstore.backends.base import Backend
    from mfstore.s3.bulk.client import BulkClient
    from mfstore.settings import Knobs

Method = TypeVar("Method", bound=Callable[..., Any])
TRACED = (
    "put", "get", "put_many", "save", "load", "put_bytes", "put_file", "get_bytes", "get_file", "diff", "copy_to",
    "delete", "find", "usage", "verify", "repair", "plan_gc",
)  # fmt: skip
"""Operations of a store that are a span while they run."""
TRACED_STEPS = ("get_many", "load_many", "iter_bytes", "stat_many")
"""Those that return an iterator: a span from its first step to its end."""
_UNITS = (("_bytes", "By"), ("_seconds", "s"))
_Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Source:
    """A store or a client that is observed."""

    families: Callable[[], Iterable[Family]]
    lives: Callable[[], object]
    """What does the work, or None once it is gone."""

    def samples(self) -> Iterator[tuple[str, _Labels, float]]:
        """Metric, labels and value of all it counts."""
        for family in self.families():
            for labels, value in family.samples:
                yield family.name, tuple(sorted(labels.items())), value


_sources: list[_Source] = []
"""What the counters add up."""
_gone: dict[tuple[str, _Labels], float] = {}
"""What sources counted that are gone, since a counter never falls: sums, as a process may open any number of stores."""
_folding = Lock()


class TracedStore(Store):
    """A store that is observed, and whose operations are spans. Without OpenTelemetry's API it is one like any
    other, with a warning."""

    def __init__(
        self, url: str, backend: Backend | None = None, knobs: Knobs | None = None, *, create: bool = True,
        algorithm: str = "blake3", trusted: tuple[bytes, ...] = (),
    ) -> None:  # fmt: skip
        super().__init__(url, backend, knobs, create=create, algorithm=algorithm, trusted=trusted)
        try:
            observe(self)
        except Unsupported as error:
            warn_caller(str(error))


def observe(source: Store | BulkClient) -> None:
    """Add what a store or a client does, from its making on, to the counters of OpenTelemetry. For clients: stores are
    observed as they are opened, with ``MFSTORE_OTEL=1``.

    Raises:
        Unsupported: ``opentelemetry-api`` is not installed.
    """
    meter = _meter()
    observed = _of_store(source) if isinstance(source, Store) else _of_client(source)
    with _folding:
        _fold()
        _sources.append(observed)
    for family in observed.families():
        _counter(meter, family.name, family.help)


def _fold() -> None:
    ended = [source for source in _sources if source.lives() is None]
    for source in ended:
        _sources.remove(source)
        for name, labels, value in source.samples():
            _gone[name, labels] = _gone.get((name, labels), 0) + value


def _of_store(store: Store) -> _Source:
    # Neither the store nor its connections: whoever lets go of it has them closed.
    session, traffic, handle = store.session, store.backend.traffic, weakref.ref(store.handle)
    url, last = store.backend.url, [ReadCounts()]

    def families() -> Iterable[Family]:
        found = handle()
        if found is not None:
            last[0] = found.read_counts
        return store_metrics(url, session, traffic, last[0]).families()

    return _Source(families, handle)


def _of_client(client: BulkClient) -> _Source:
    from mfstore.display.prometheus import labelled
    from mfstore.s3.bulk.metrics import client_metrics

    traffic, labels = client.transfers.traffic, {"bucket": client.bucket or ""}
    return _Source(lambda: labelled(client_metrics(traffic.now()).families(), labels), weakref.ref(client))


@cache
def _meter() -> Any:
    import mfstore

    try:
        from opentelemetry import metrics
    except ImportError:
        raise Unsupported(
            "OpenTelemetry's API is not installed", hint="pip install opentelemetry-api, or leave MFSTORE_OTEL unset"
        ) from None
    return metrics.get_meter("mfstore", mfstore.__version__)


@cache
def _counter(meter: Any, name: str, told: str) -> Any:
    """The counter of a metric of Prometheus, by what OpenTelemetry calls it: an exporter to Prometheus makes the former
    of the latter."""
    from opentelemetry.metrics import Observation

    plain = name.removesuffix("_total")
    unit = next((unit for ending, unit in _UNITS if plain.endswith(ending)), "1")

    def observed(_: Any) -> Iterator[Any]:
        sums: dict[_Labels, float] = {}
        with _folding:
            counted = [((of, labels), value) for source in _sources for of, labels, value in source.samples()]
            counted += _gone.items()
        for (of, labels), value in counted:
            if of == name:
                sums[labels] = sums.get(labels, 0) + value
        for key, total in sums.items():
            yield Observation(total, dict(key))

    return meter.create_observable_counter(named(plain), [observed], unit, told)


def named(name: str) -> str:
    """What OpenTelemetry calls a metric of Prometheus."""
    for begins, becomes in (("mfstore_s3_", "mfstore.s3."), ("mfstore_", "mfstore.")):
        if name.startswith(begins):
            return becomes + name.removeprefix(begins)
    return name


@cache
def _tracer() -> Any:
    import mfstore

    try:
        from opentelemetry import trace
    except ImportError:
        return None
    return trace.get_tracer("mfstore", mfstore.__version__)


def _attributes(store: Store, arguments: tuple[Any, ...], more: dict[str, Any]) -> dict[str, str]:
    found = {"mfstore.store": store.backend.url}
    if isinstance(ref := more.get("ref"), str):
        found["mfstore.ref"] = ref
    if arguments and isinstance(arguments[0], str):
        found["mfstore.name"] = arguments[0][:256]
    return found


def _with_span(method: Method) -> Method:
    name = method.__name__
    stores = name.startswith(("put", "save"))  # the argument is what is stored

    @wraps(method)
    def run(self: Store, *args: Any, **more: Any) -> Any:
        tracer = _tracer()
        if tracer is None:
            return method(self, *args, **more)
        attributes = _attributes(self, () if stores else args, more)
        with tracer.start_as_current_span(f"mfstore.{name}", attributes=attributes) as span:
            found = method(self, *args, **more)
            if stores and isinstance(found, str):
                span.set_attribute("mfstore.key", found)
            return found

    return run  # type: ignore[return-value]


def _with_span_of_steps(method: Method) -> Method:
    name = method.__name__

    @wraps(method)
    def run(self: Store, *args: Any, **more: Any) -> Iterator[Any]:
        steps = method(self, *args, **more)  # what is wrong with the arguments is told at once
        tracer = _tracer()
        if tracer is None:
            return steps  # type: ignore[no-any-return]

        def each() -> Iterator[Any]:
            # Not the current span: between two steps the caller does other things.
            span = tracer.start_span(f"mfstore.{name}", attributes=_attributes(self, (), more))
            number = 0
            try:
                for step in steps:
                    number += 1
                    yield step
            except Exception as error:
                from opentelemetry.trace import Status, StatusCode

                span.record_exception(error)
                span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
                raise
            finally:
                span.set_attribute("mfstore.steps", number)
                span.end()

        return each()

    return run  # type: ignore[return-value]


for _name in TRACED:
    setattr(TracedStore, _name, _with_span(getattr(Store, _name)))
for _name in TRACED_STEPS:
    setattr(TracedStore, _name, _with_span_of_steps(getattr(Store, _name)))
