"""What OpenTelemetry's own SDK gets from stores that are observed; and that nobody else pays."""

import asyncio
import gc
import pickle
import subprocess
import sys
import time

import pytest

import mfstore
from mfstore.backends.s3.backend import S3Backend
from mfstore.errors import InvalidKey, NotFound
from mfstore.settings import resolve
from tests.rigs.simulated_s3 import SimulatedS3, simulated_client

sdk = pytest.importorskip("opentelemetry.sdk")


@pytest.fixture(scope="module")
def exported():
    """A provider of each kind, which a process has once."""
    from opentelemetry import metrics, trace
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    reader, spans = InMemoryMetricReader(), InMemorySpanExporter()
    metrics.set_meter_provider(MeterProvider([reader]))
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(provider)
    return reader, spans


@pytest.fixture
def on(exported, monkeypatch):
    monkeypatch.setenv("MFSTORE_OTEL", "1")
    exported[1].clear()
    return exported


def counted(reader, url):
    """The values of the counters by name and labels, for a store."""
    found = {}
    for resource in reader.get_metrics_data().resource_metrics:
        for scope in resource.scope_metrics:
            assert scope.scope.name == "mfstore" and scope.scope.version == mfstore.__version__
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    labels = dict(point.attributes)
                    if labels.pop("store", labels.get("bucket")) == url:
                        found[metric.name, tuple(sorted(labels.values()))] = point.value
                        assert metric.unit in ("By", "s", "1") and metric.data.is_monotonic
    return found


def test_counters(on, tmp_path):
    reader, _ = on
    with mfstore.open(tmp_path / "store", fsync="none") as store:
        key = store.put(list(range(10_000)))
        store.get(key)
        url, metrics = store.backend.url, store.metrics()
        found = counted(reader, url)
        assert found["mfstore.operations", ("save",)] == found["mfstore.operations", ("load",)] == 1
        assert found["mfstore.stored_bytes", ()] == metrics.stored > 0
        with mfstore.open(tmp_path / "store", fsync="none") as again:
            again.get(key)
        assert counted(reader, url)["mfstore.operations", ("load",)] == 2
    del store, again
    gc.collect()
    assert counted(reader, url)["mfstore.operations", ("load",)] == 2  # a counter never falls


def test_stores_that_are_gone_are_one_sum(on, tmp_path):
    from mfstore import telemetry

    reader, _ = on
    gc.collect()
    held = []
    for number in range(4):
        with mfstore.open(tmp_path / "store", fsync="none") as store:
            key = store.put([number])
            assert store.get(key) == [number]
            url = store.backend.url
        del store
        gc.collect()
        held.append(len(telemetry._sources))
    assert held[-1] <= held[0]
    found = counted(reader, url)
    assert found["mfstore.operations", ("save",)] == found["mfstore.operations", ("load",)] == 4


def test_counters_of_requests(on):
    reader, _ = on
    world = SimulatedS3(clock=time.time)

    class Simulated(S3Backend):
        def make_client(self, options):
            return simulated_client(world)

    from mfstore.telemetry import TracedStore, observe

    with TracedStore("s3://b/otel", Simulated("s3://b/otel"), resolve(), create=True) as store:
        store.put([1])
        found = counted(reader, store.backend.url)
        assert found["mfstore.s3.requests", ("PutObject", "ok")] == store.metrics().s3.requests["PutObject", "ok"] > 0
    with simulated_client(world) as client:
        observe(client)
        client.put_many({"k": b"x"})
        assert counted(reader, "b")["mfstore.s3.requests", ("PutObject", "b", "ok")] == 1


def test_spans(on, tmp_path):
    from opentelemetry import trace
    from opentelemetry.trace import StatusCode

    _, spans = on
    with mfstore.open(tmp_path / "store", fsync="none") as store:
        assert isinstance(store, mfstore.Store)
        with trace.get_tracer("test").start_as_current_span("mine"):
            key = store.put([1, 2], "a/ref")
            store.put([3], ref="other")
            store.get("a/ref")
            assert asyncio.run(store.aget(key)) == [1, 2]
            assert len(list(store.get_many([key, "other"]))) == 2
        with pytest.raises(NotFound):
            store.get("none")
        with pytest.raises(NotFound):
            list(store.get_many(["none"]))
    names = [span.name for span in spans.get_finished_spans()]
    assert names == [
        "mfstore.put", "mfstore.put", "mfstore.get", "mfstore.get", "mfstore.get_many", "mine", "mfstore.get",
        "mfstore.get_many",
    ]  # fmt: skip
    put, second, get, _, many, mine, failed, failed_many = spans.get_finished_spans()
    assert put.attributes["mfstore.key"] == key and put.attributes["mfstore.store"] == store.backend.url
    assert second.attributes["mfstore.ref"] == "other" and get.attributes["mfstore.name"] == "a/ref"
    assert many.attributes["mfstore.steps"] == 2
    assert all(one.parent.span_id == mine.context.span_id for one in (put, second, get, many))
    for one in (failed, failed_many):
        assert one.status.status_code is StatusCode.ERROR and one.events[0].name == "exception"


def test_what_is_left_before_its_end_is_a_span(on, tmp_path):
    _, spans = on
    with mfstore.open(tmp_path / "store", fsync="none") as store:
        keys = store.put_many([[1], [2], [3]])
        steps = store.get_many(keys)
        next(steps)
        steps.close()
    last = spans.get_finished_spans()[-1]
    assert last.name == "mfstore.get_many" and last.attributes["mfstore.steps"] == 1 and not last.events


def test_a_store_pickles_as_what_it_is(on, tmp_path):
    from mfstore.telemetry import TracedStore

    with mfstore.open(tmp_path / "store", fsync="none") as store, pickle.loads(pickle.dumps(store)) as other:
        assert type(other) is TracedStore
    assert type(store) is TracedStore


def test_only_who_asks_for_it_imports_it(tmp_path):
    program = (
        "import mfstore, sys\n"
        f"with mfstore.open({str(tmp_path / 'store')!r}, fsync='none') as store:\n"
        "    store.get(store.put([1])); store.metrics()\n"
        "assert type(store) is mfstore.Store\n"
        "assert not [name for name in sys.modules if 'opentelemetry' in name or name == 'mfstore.telemetry']\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


def test_without_the_library_it_is_told_and_goes_on(tmp_path):
    program = (
        "import sys, warnings\n"
        "sys.modules['opentelemetry'] = None\n"
        "import mfstore, os\n"
        "os.environ['MFSTORE_OTEL'] = '1'\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        f"    with mfstore.open({str(tmp_path / 'store')!r}, fsync='none') as store:\n"
        "        assert store.get(store.put([1])) == [1] and list(store.get_many([store.put([2])]))\n"
        "assert any('opentelemetry-api' in str(one.message) for one in caught), caught\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


def test_a_setting_that_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv("MFSTORE_OTEL", "maybe")
    with pytest.raises(InvalidKey, match="MFSTORE_OTEL must be 0 or 1"):
        mfstore.open(tmp_path)


def test_what_metrics_are_called():
    from mfstore.telemetry import named

    assert named("mfstore_saved_bytes") == "mfstore.saved_bytes"
    assert named("mfstore_s3_requests") == "mfstore.s3.requests"
