"""Where Metaflow keeps what below a datastore root, and what its small JSON files say. Without I/O, without Metaflow.

The layout is that of Metaflow 2.x (``metaflow/datastore``, ``plugins/cards/card_datastore.py``, ``includefile.py`` and
``plugins/metadata_providers/local.py`` of release 2.19).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mfstore.errors import CorruptObject
from mfstore.metaflow.roots.attempts import BEGAN, DATA, DONE, RESUMED, STARTED
from mfstore.metaflow.roots.migration_record import FIELD, earlier_forms, is_recorded
from mfstore.metaflow.roots.packed_keys import PackedArtifact, bundle_of, is_packed_by_any_version
from mfstore.records import NamedTuple, dataclass, field

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.backends.base import ObjectInfo

MAINTENANCE_FOLDER = "mf.maintenance"
"""Of what verify, repair and garbage collection keep below the root."""
LOG_FOLDER = f"{MAINTENANCE_FOLDER}/log/"
"""Of the log of collections."""
CAS_VERSIONS = (1,)
"""Versions of the encoding of blobs (``cas_version``) there are."""

_FLOW = r"(?P<flow>[^\W\d]\w*)"
"""The name of a class, so of letters of any script. Steps are of ASCII: Metaflow sees to that."""
_BLOB = re.compile(r"((?:r_)?([0-9a-f]{2})[0-9a-f]{38,62})(_meta)?")
_NAME = re.compile(_FLOW)
_STEP = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OF_ATTEMPT = (
    STARTED, DATA, DONE, BEGAN, "task_end", "runtime", "local_metadata",
    *(f"{of}std{stream}.log" for of in ("", "runtime_", "task_") for stream in ("out", "err")),
)  # fmt: skip
TASK_FILES: dict[str, tuple[int | None, str]] = {
    **{f"{attempt}.{name}": (attempt, name) for attempt in range(10) for name in _OF_ATTEMPT},
    **{name: (None, name) for name in RESUMED},
}
"""The names that files of a task have, and the attempt and the name without it of each."""
_METADATA = re.compile(
    _FLOW + r"/(?:(?P<run>[^/]+)/)?(?:[^/]+/){0,2}_meta/(?:_self|sysmeta_[^/]+|(?:\d+_)?artifact_[^/]+)\.json"
)
_LOCAL = re.compile(_FLOW + r"/(?:latest_run|conda[\w.]*)")
"""What Metaflow notes beside a flow's runs on one machine: the latest one, and solved environments."""
_INCLUDE = re.compile(r"data/" + _FLOW + r"/(?P<key>[0-9a-f]{40})")
_OF_RUN = re.compile(r"data/" + _FLOW + r"/(?P<run>[^/]+)/.+")
_CARD = re.compile(
    r"mf\.cards/" + _FLOW + r"/runs/(?P<run>[^/]+)/(?:steps/[^/]+/)?tasks/[^/]+/"
    r"(?:cards/[^/]+\.html|runtime/[^/]+\.json)"
)
_BELOW = re.compile(
    r"(?P<root>.+?)/(?!data/|conda/)" + _FLOW + r"/(?:data/(?P<start>[0-9a-f]{2})/(?:r_)?(?P=start)[0-9a-f]{38,62}"
    r"|[^/]+/[A-Za-z_]\w*/[^/]+/\d\.(?:attempt\.json|DONE\.lock|task_begin))"
)
_HEX40 = re.compile(r"[0-9a-f]{40}")
_NOT_FLOWS = frozenset(("data", "conda"))


class ParsedPath(NamedTuple):
    """What a path below the root is. Names that Metaflow does not give are ``other``, wherever they are."""

    kind: str
    """``blob``, ``blob_meta``, ``task``, ``metadata``, ``include``, ``user`` (S3(run=self)), ``card`` or ``other``."""
    flow: str = ""
    run: str = ""
    step: str = ""
    task: str = ""
    attempt: int | None = None
    name: str = ""
    """Of a task's file without the attempt; of a blob or IncludeFile its key."""


OTHER = ParsedPath("other")


def parse(path: str) -> ParsedPath:
    """What an object below the root is, by its path."""
    parts = path.split("/")
    top = parts[0]
    if _is_flow_name(top):
        if len(parts) == 5:
            _, run, step, task, last = parts
            file = TASK_FILES.get(last)
            if file is not None and run and task and run != "data" and _is_step_name(step):
                return ParsedPath("task", top, run, step, task, *file)
        elif len(parts) == 4 and parts[1] == "data":
            if (found := _BLOB.fullmatch(parts[3])) and found[2] == parts[2]:
                return ParsedPath("blob_meta" if found[3] else "blob", top, name=found[1])
        elif len(parts) == 2 and _LOCAL.fullmatch(path):
            return ParsedPath("metadata", top)
        if found := _METADATA.fullmatch(path):
            return ParsedPath("metadata", top, found["run"] or "")
    elif top == "data":
        if found := _INCLUDE.fullmatch(path):
            return ParsedPath("include", found["flow"], name=found["key"])
        if found := _OF_RUN.fullmatch(path):
            return ParsedPath("user", found["flow"], found["run"])
    elif top == "mf.cards" and (found := _CARD.fullmatch(path)):
        return ParsedPath("card", found["flow"], found["run"])
    return OTHER


def task_of(folder: str) -> tuple[str, str, str, str] | None:
    """The flow, run, step and task whose files with the names ``TASK_FILES`` lie in a folder; None: those of none do.
    As ``parse`` has it."""
    parts = folder.split("/")
    if len(parts) != 4:
        return None
    flow, run, step, task = parts
    is_task = run and task and run != "data" and _is_flow_name(flow) and _is_step_name(step)
    return (flow, run, step, task) if is_task else None


def blobs_of(folder: str) -> tuple[str, str] | None:
    """The flow whose blobs lie in a folder, and what their keys begin with if they are digests; None: it is none of
    these folders. As ``parse`` has it."""
    flow, _, rest = folder.partition("/")
    data, _, start = rest.partition("/")
    return (flow, start) if data == "data" and len(start) == 2 and _is_flow_name(flow) else None


@lru_cache(maxsize=4096)
def _is_flow_name(name: str) -> bool:
    return is_flow(name) and _NAME.fullmatch(name) is not None


@lru_cache(maxsize=4096)
def _is_step_name(name: str) -> bool:
    return _STEP.fullmatch(name) is not None


def root_below(path: str) -> str | None:
    """The folder that looks like another datastore root, by an object that ``parse`` calls ``other``; None: nothing of
    Metaflow's."""
    if path.startswith("mf."):
        return None
    found = _BELOW.match(path)
    return found["root"] if found else None


def is_flow(name: str) -> bool:
    """Whether a name directly below the root can be a flow's."""
    return "." not in name and name not in _NOT_FLOWS


def blob_path(flow: str, key: str) -> str:
    """Where a blob is stored."""
    start = key.removeprefix("r_")[:2]
    return f"{flow}/data/{start}/{key}"


@dataclass(slots=True)
class Task:
    """What a listing shows of one task."""

    started: dict[int, float] = field(default_factory=dict)
    """When each attempt's ``attempt.json`` was written, on the storage's clock."""
    done: set[int] = field(default_factory=set)
    files: dict[tuple[int | None, str], ObjectInfo] = field(default_factory=dict)

    @property
    def marked(self) -> bool:
        """Whether an attempt of Metaflow's left its mark. Without one the folder is somebody else's, whose files have
        such names: ``0.data.json`` alone may be anybody's."""
        return any(name in MARKERS for _, name in self.files)

    @property
    def latest(self) -> int | None:
        """The latest attempt that started: the only one that is read."""
        return max(self.started, default=None)

    @property
    def readable(self) -> int | None:
        """The attempt that readers use: the latest that started, if it is done."""
        return self.latest if self.latest in self.done else None

    def running(self, now: float, window: float) -> list[int]:
        """The attempts that began within ``window`` seconds and have not ended. A terminal's scheduler notes when one
        failed."""
        return [
            attempt for attempt, began in self.started.items()
            if attempt not in self.done and (attempt, "runtime") not in self.files and now - began <= window
        ]  # fmt: skip

    def add(self, attempt: int | None, name: str, info: ObjectInfo) -> None:
        """Count one file of the task, by its name without the attempt."""
        self.files[attempt, name] = info
        if attempt is not None:
            if name == STARTED:
                self.started[attempt] = info.modified
            elif name == DONE:
                self.done.add(attempt)


MARKERS = (STARTED, DONE, BEGAN, "runtime", *RESUMED)
"""The files of a task that tell that an attempt or a resumed run was here."""
CODE = "<code package>"


class References(NamedTuple):
    """What one small file refers to."""

    artifacts: dict[str, str]
    """Keys by name. Other blobs have a name in angle brackets."""
    included: frozenset[str]
    """Names of those among them that are IncludeFiles: their pickles name an object elsewhere."""
    bundles: frozenset[str]
    """Bundles of the packed profile."""
    packed_included: frozenset[PackedArtifact] = frozenset()
    """IncludeFiles of the packed profile."""
    left: frozenset[str] = frozenset()
    """Blobs that these artifacts were before they were migrated."""
    recorded: bool = False
    """Whether no record names those blobs any more."""

    @property
    def of_deployment(self) -> References:
        """What among it the next run of a deployment needs that takes it from a scheduler's template."""
        names = {CODE, *self.included}
        artifacts = {name: key for name, key in self.artifacts.items() if name in names}
        return References(artifacts, self.included, frozenset(), self.packed_included)


REFERRING = (DATA, BEGAN, "local_metadata")
"""The files of an attempt that refer to blobs."""


def references(name: str, data: Buffer) -> References:
    """What the file ``name`` of an attempt refers to. CorruptObject when it is not what Metaflow writes."""
    try:
        text = bytes(data)
        document = _decoded(text)
        if name == DATA:
            return _of_stock(document) if _is_stock(text, document) else _of_data(document)
        if name == BEGAN:
            key = document.get("code_package_sha")
            return References({CODE: str(key)} if key else {}, frozenset(), frozenset())
        return References({"<local metadata>": str(document)} if document else {}, frozenset(), frozenset())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CorruptObject(f"{name} is not what Metaflow writes") from None


_JSON = json.JSONDecoder()


def _decoded(text: bytes) -> Any:
    """As ``json.loads``, half of whose time goes into looking for what these files do not have: other encodings than
    UTF-8, and spaces around."""
    if text.startswith(b'{"'):
        with suppress(ValueError):
            words = text.decode()
            document, end = _JSON.raw_decode(words)
            if end == len(words):
                return document
    return json.loads(text)


_NOT_STOCK = (b"mfstore", b"IncludedFile", rb"\u", b"\0")
"""One of these is in each ``data.json`` with more than blobs of stock Metaflow: with packed artifacts, a migration's
record, IncludeFiles; or it is not known without a look, since letters are escaped, or of two bytes and more."""


def _is_stock(text: bytes, document: Any) -> bool:
    """Whether a ``data.json`` refers to blobs alone: so it is for most, and told without a look at each artifact."""
    infos = document.get("info")
    if any(map(text.__contains__, _NOT_STOCK)) or type(infos) is not dict:
        return False
    return {*map(type, infos.values())} <= {dict}


def _of_stock(document: Any) -> References:
    objects: dict[str, str] = document["objects"]
    if not {*map(type, objects.values())} <= {str}:
        raise ValueError("a key that is no text")
    return References(objects, frozenset(), frozenset())


def _of_data(document: Any) -> References:
    objects: Mapping[str, str] = document["objects"]
    infos: Mapping[str, Any] = document.get("info") or {}
    if not {*map(type, objects.values())} <= {str}:
        raise ValueError("a key that is no text")
    packed = {name for name, info in infos.items() if is_packed_by_any_version(info)}
    bundles = {bundle_of(infos[name]) for name in packed}
    included = {name for name, info in infos.items() if "IncludedFile" in str(info.get("type", ""))}
    if not packed and not included and FIELD not in document:
        return References(dict(objects), frozenset(), frozenset())
    return References(
        {name: key for name, key in objects.items() if name not in packed},
        frozenset(included - packed),
        frozenset(bundle for bundle in bundles if bundle),
        frozenset(
            PackedArtifact(name, objects[name], bundle_of(infos[name])) for name in included & packed & objects.keys()
        ),
        frozenset(
            key
            for forms in earlier_forms(document).values()
            for key, info in forms
            if not is_packed_by_any_version(info)
        ),
        is_recorded(document),
    )


def hashes_in(pickled: bytes) -> Iterator[str]:
    """Every SHA-1 in hexadecimal that a pickle mentions: among them the object an IncludeFile is stored as. Nothing is
    unpickled."""
    for found in _HEX40.finditer(pickled.decode("latin-1")):
        yield found[0]


_INCLUDE_URL = re.compile(r"(s3|gs|local)://([^\x00-\x1f\"]*?)/([^\W\d]\w*)/([0-9a-f]{40})(?![0-9a-f])")


def includes_in(pickled: bytes) -> Iterator[tuple[str, str, str, str]]:
    """Every URL in a pickle that can be an IncludeFile's: scheme, place, flow and SHA-1. Nothing is unpickled."""
    for found in _INCLUDE_URL.finditer(pickled.decode("utf-8", "replace")):
        yield found[1], found[2], found[3], found[4]


def include_path(flow: str, key: str) -> str:
    """Where an IncludeFile is stored."""
    return f"data/{flow}/{key}"


CARD_TASK = re.compile(r"/runs/[^/]+/(?:steps/(?P<step>[^/]+)/)?tasks/(?P<task>[^/]+)/")
"""In the path of a card."""
ARTIFACT_RECORD = re.compile(r"[^/]+/[^/]+/(?P<step>[^/]+)/(?P<task>[^/]+)/_meta/(?P<attempt>\d+)_artifact_[^/]+\.json")
"""Local metadata of an artifact."""
ORIGIN = re.compile(r"(?P<flow>[^/]+)/(?P<run>[^/]+)/[^/]+/[^/]+/_meta/sysmeta_origin-run-id_\d+\.json")
"""Local metadata of a task that tells which run was resumed."""


def origin_run(document: Buffer) -> str | None:
    """The run that was resumed, from a file that ``ORIGIN`` matches; None for none."""
    try:
        value = json.loads(bytes(document))["value"]
        return str(value) if value not in (None, "", "None") else None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CorruptObject("not the metadata of a task") from None


class RunDocument(NamedTuple):
    """What ``<run>/_meta/_self.json`` of local metadata says."""

    flow: str
    run: str
    began: float
    """In seconds since the epoch. A run that is tagged later says when that was."""
    tags: frozenset[str]
    system_tags: frozenset[str]
    user: str


def run_document(document: Buffer) -> RunDocument:
    """What local metadata says of a run. CorruptObject when it is not what Metaflow writes."""
    try:
        found = json.loads(bytes(document))
        return RunDocument(
            str(found.get("flow_id")), str(found.get("run_number")), found["ts_epoch"] / 1000,
            frozenset(map(str, found.get("tags") or ())), frozenset(map(str, found.get("system_tags") or ())),
            str(found.get("user_name") or ""),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise CorruptObject("not the metadata of a run") from None
