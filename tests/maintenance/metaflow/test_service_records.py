"""What Metaflow's metadata service tells of runs, asked through Metaflow."""

import sys
import time
from contextlib import closing
from types import SimpleNamespace

import pytest
from metaflow.plugins.metadata_providers import service as service_provider
from metaflow.plugins.metadata_providers.service import ServiceMetadataProvider

from mfstore import errors
from mfstore.maintenance.metaflow.collecting import execution
from mfstore.maintenance.metaflow.collecting.listed_runs import ListedRuns
from mfstore.maintenance.metaflow.collecting.plan import plan_metaflow_gc
from mfstore.maintenance.metaflow.collecting.policy import RunPolicy
from mfstore.maintenance.metaflow.collecting.record_sources import default_metadata, records_of
from mfstore.maintenance.metaflow.collecting.records import RunRecord
from mfstore.maintenance.metaflow.collecting.service_records import MetadataService, ServiceRecords
from mfstore.maintenance.metaflow.collecting.service_tags import REMOVED_TAG
from mfstore.maintenance.metaflow.gc import collect_metaflow
from mfstore.maintenance.metaflow.holdings import Holdings
from mfstore.maintenance.metaflow.root import Root
from mfstore.maintenance.metaflow.usage import root_usage
from tests.rigs.metaflow_trees import task

FLOW = "Flow"
DAY = 86400.0


@pytest.fixture
def service(metadata_service, monkeypatch):
    """What Metaflow is configured for in this process."""
    monkeypatch.setattr(ServiceMetadataProvider, "_INFO", metadata_service.url)
    monkeypatch.setattr(service_provider, "SERVICE_RETRY_COUNT", 1)
    yield metadata_service
    ServiceMetadataProvider._session.close()


def asked(service):
    return [path for method, path, _ in service.log if path != "/ping"]


def test_all_runs_of_a_flow_are_asked_for_together(service):
    for number in range(40):
        service.add(FLOW, str(number), tags=["keep"] if number else [], system_tags=["user:ada"], began=1000 + number)
    service.add(FLOW, "argo-flow-x", user="bo", heartbeat=7)
    found = ServiceRecords({}).read([(FLOW, "0"), (FLOW, "39"), (FLOW, "argo-flow-x"), (FLOW, "none"), ("No", "1")])
    assert found == {
        (FLOW, "0"): RunRecord("service", 1000.0, tags=frozenset(), system_tags=frozenset({"user:ada"}), user="ada"),
        (FLOW, "39"): RunRecord(
            "service", 1039.0, tags=frozenset({"keep"}), system_tags=frozenset({"user:ada"}), user="ada"
        ),
        (FLOW, "argo-flow-x"): RunRecord(
            "service", found[FLOW, "argo-flow-x"].began, tags=frozenset(), user="bo", heartbeat=7.0
        ),
    }
    assert asked(service) == ["/flows/Flow/runs", "/flows/No/runs"]


def test_signs_of_life_are_those_of_the_run_and_of_its_open_tasks(service):
    for run, of_run, of_tasks in (("1", 50, (70, 60)), ("2", 90, (70, 60)), ("3", 90, (70, None)), ("4", None, ())):
        service.add(FLOW, run, heartbeat=of_run)
        service.add(FLOW, run, "start")
        for number, sign in enumerate(of_tasks):
            service.add(FLOW, run, "start", str(number), heartbeat=sign)
    runs = [(FLOW, run) for run in "1234"]
    found = ServiceRecords({run: {"start"} for run in runs}).read(runs)
    # Of a task that never gave one nobody knows whether it lives.
    assert [found[run].heartbeat for run in runs] == [70.0, 90.0, None, None]
    assert len(asked(service)) == 5


def test_what_decides_comes_from_the_service(service, tmp_path):
    for run in ("1", "2", "3"):
        task(tmp_path, FLOW, run, "start", 1, {"x": run}, done=run != "3", age=9000)
        service.add(FLOW, run, "start", "1", heartbeat=time.time())
    service.add(FLOW, "1", tags=["release"])
    service.add(FLOW, "2")
    service.add(FLOW, "3", heartbeat=time.time())
    root = Root(str(tmp_path))
    policy = RunPolicy(last=0, tags=("release",), grace=0.0)
    told = plan_metaflow_gc(root, policy, metadata="service")
    assert told.kept == {(FLOW, "1"): "tagged", (FLOW, "3"): "running"}
    assert {entry.run: entry.heartbeat is not None for entry in told.runs} == {"1": False, "2": False, "3": True}
    assert len(plan_metaflow_gc(root, policy, metadata="none").kept) == 3, "of none the tags are known"
    with pytest.raises(errors.InvalidKey, match="not a source of metadata"):
        plan_metaflow_gc(root, policy, metadata="services")
    root.close()


LAST = RunPolicy(last=1, grace=0.0)


@pytest.fixture
def three(service, tmp_path):
    """A root with three runs that the service knows, and one that it does not."""
    for number in range(4):
        age = (30 - number) * DAY
        task(tmp_path, FLOW, str(number), "start", 1, {"own": number}, age=age)
        if number:
            service.add(FLOW, str(number), began=time.time() - age)
    root = Root(str(tmp_path))
    yield root
    root.close()


def collect(root, policy=LAST):
    return collect_metaflow(root, policy, metadata="service")


def test_removed_runs_are_listed_on_and_get_a_tag(service, three):
    collect(three)
    assert plan_metaflow_gc(three, LAST, metadata="service").listed_on == 2
    plan, result = collect(three)
    assert plan.listed_on == 2 and set(result.removed) == {"Flow/0", "Flow/1", "Flow/2"}
    assert (result.tagged, result.tags_refused) == (2, "")
    assert [service.tags(FLOW, run) for run in "123"] == [[REMOVED_TAG], [REMOVED_TAG], []]
    assert collect(three)[1].tagged == 0
    assert not service.refused


def test_what_a_killed_collection_removed_is_tagged_by_the_next(service, three, monkeypatch):
    collect(three)
    monkeypatch.setattr(execution, "tag_removed", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        collect(three)
    monkeypatch.undo()
    monkeypatch.setattr(ServiceMetadataProvider, "_INFO", service.url)
    assert [service.tags(FLOW, run) for run in "123"] == [[], [], []]
    assert collect(three, RunPolicy(last=1, grace=0.0, flows=("Other",)))[1].tagged == 0, "it looks at no other flow"
    assert collect(three)[1].tagged == 2
    assert [service.tags(FLOW, run) for run in "123"] == [[REMOVED_TAG], [REMOVED_TAG], []]


def test_a_service_that_takes_no_tags_holds_up_nothing(service, three, monkeypatch):
    monkeypatch.setattr(service_provider, "time", SimpleNamespace(sleep=lambda seconds: None))
    service.refuses_tags = True
    collect(three)
    _, result = collect(three)
    assert len(result.removed) == 3 and result.tagged == 0 and "did not take a tag" in result.tags_refused
    service.refuses_tags = False
    assert collect(three)[1].tagged == 2


def test_a_service_that_does_not_answer_is_an_error(service, monkeypatch, tmp_path):
    monkeypatch.setattr(ServiceMetadataProvider, "_INFO", "http://127.0.0.1:9")
    task(tmp_path, FLOW, "1", "start", 1, {})
    root = Root(str(tmp_path))
    with pytest.raises(errors.BackendError, match="the metadata service did not answer") as caught:
        plan_metaflow_gc(root, RunPolicy(last=1), metadata="service")
    root.close()
    assert caught.value.backend == "http://127.0.0.1:9" and "--metadata none" in str(caught.value)


def test_a_service_that_refuses_is_no_service_without_tags(service, monkeypatch):
    monkeypatch.setattr(service, "_route", lambda *request: (403, {"message": "who are you"}))
    with pytest.raises(errors.AccessDenied, match="who are you"):
        ServiceRecords({}).read([(FLOW, "1")])


def test_where_metaflow_or_its_service_is_missing(service, monkeypatch):
    monkeypatch.setattr(ServiceMetadataProvider, "_INFO", "")
    with pytest.raises(errors.InvalidKey, match="METAFLOW_SERVICE_URL"):
        MetadataService()
    monkeypatch.setitem(sys.modules, "metaflow.plugins", None)
    with pytest.raises(errors.Unsupported, match="Metaflow is needed"):
        MetadataService()


def test_which_source_is_asked_says_metaflows_configuration(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "metaflow.metaflow_config", None)
    monkeypatch.setenv("METAFLOW_HOME", str(tmp_path))
    monkeypatch.delenv("METAFLOW_SERVICE_URL", raising=False)
    monkeypatch.delenv("METAFLOW_DEFAULT_METADATA", raising=False)
    assert default_metadata() == "local"
    (tmp_path / "config.json").write_text(
        '{"METAFLOW_DEFAULT_METADATA": "service", "METAFLOW_SERVICE_URL": "http://x"}'
    )
    assert default_metadata() == "service"
    monkeypatch.setenv("METAFLOW_DEFAULT_METADATA", "local")
    assert default_metadata() == "local"


def test_sources_that_there_are(tmp_path):
    task(tmp_path, FLOW, "1", "start", 1, {})
    for name in ("", "local:", "http://x"):
        with pytest.raises(errors.InvalidKey):
            records_of(Root(str(tmp_path)), Holdings(), ListedRuns(), name)


def test_usage_is_told_by_users_and_tags_of_the_service(service, tmp_path, monkeypatch):
    """One request for each flow; an unknown run stays unknown, and a service that is away is an error."""
    for number, run in enumerate(("1", "2", "argo-x")):
        task(tmp_path, FLOW, run, "end", 1, {"x": ["x" * 100] * (number + 1)})
    service.add(FLOW, "1", tags=["prod"], system_tags=["user:ada", "project_branch:main"], began=1000)
    service.add(FLOW, "2", tags=["prod", "trial"], user="bo", began=2000)
    with closing(Root(str(tmp_path))) as root:
        found = {by: root_usage(root, by, metadata="service") for by in ("user", "tag", "branch")}
        assert asked(service) == ["/flows/Flow/runs"] * 3
        names = {by: {(group.name, group.unknown) for group in usage.groups} for by, usage in found.items()}
        assert names["user"] == {("ada", False), ("bo", False), (None, True)}
        assert names["tag"] == {("prod", False), ("trial", False), (None, True)}
        assert names["branch"] == {("main", False), (None, False), (None, True)}
        assert all(usage.notes[0].startswith("of 1 of 3 runs nothing tells") for usage in found.values())
        monkeypatch.setattr(ServiceMetadataProvider, "_INFO", "http://127.0.0.1:9")
        with pytest.raises(errors.BackendError, match="metadata service"):
            root_usage(root, "user", metadata="service")
