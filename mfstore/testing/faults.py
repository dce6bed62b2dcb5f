"""A backend that fails when told to: before or after the effect, on the n-th call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mfstore.backends.base import Backend, Batch, ObjectInfo
from mfstore.errors import BackendError, MfstoreError

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from mfstore.backends.base import Answers


@dataclass(frozen=True, slots=True)
class Fault:
    """Fail one call of a ``FaultyBackend``, or all from one on."""

    at: int
    """Which call, counting from 1 over all operations."""
    after: bool = False
    """Fail after the effect, as when a response is lost, instead of before it."""
    error: Callable[[], MfstoreError] = lambda: BackendError("injected fault")
    """Makes what is raised. Key and backend are filled in."""
    forever: bool = False
    """Every later call fails too, as when the process or the network is gone."""


class FaultyBackend(Backend):
    """Wraps a backend and fails calls; ``calls`` counts them and ``log`` names them.

    The SQLite habit: run a workload with ``Fault(at=n)`` for n = 1, 2, … until a run completes, and check the store
    after each.

    Methods that a backend need not have are ``Backend``'s own here, made of the counted calls: ``get_many`` of ``get``,
    ``read_many`` of ``get_range`` and ``read_into``, and so on. Nothing is vouched for. ``close`` leaves the wrapped
    backend open. Counting is for one thread.

    Args:
        inner: The backend that does the work. It stays its owner's.
        fault: The call to fail, which may be replaced at any time as the attribute ``fault``; None: none.
    """

    def __init__(self, inner: Backend, fault: Fault | None = None) -> None:
        self.inner = inner
        self.fault = fault
        self.url = inner.url
        self.capabilities = inner.capabilities
        self.calls = 0
        self.log: list[tuple[str, str]] = []

    def _run(self, operation: str, key: str, work: Callable[[], Any]) -> Any:
        self.calls += 1
        self.log.append((operation, key))
        fault = self.fault
        hit = fault is not None and (self.calls == fault.at or (fault.forever and self.calls > fault.at))
        if fault is not None and hit and not (fault.after and self.calls == fault.at):
            raise fault.error().where(key=key, backend=self.url)
        result = work()
        if fault is not None and hit:
            raise fault.error().where(key=key, backend=self.url)
        return result

    def get(self, key: str) -> bytes:
        return self._run("get", key, lambda: self.inner.get(key))  # type: ignore[no-any-return]

    def get_range(self, key: str, start: int, length: int) -> Buffer:
        return self._run("get_range", key, lambda: self.inner.get_range(key, start, length))  # type: ignore[no-any-return]

    def read_into(self, key: str, start: int, target: memoryview) -> None:
        self._run("read_into", key, lambda: self.inner.read_into(key, start, target))

    def map(self, key: str, start: int, length: int) -> Buffer:
        return self._run("map", key, lambda: self.inner.map(key, start, length))  # type: ignore[no-any-return]

    def identity(self, key: str) -> Any:
        return self._run("identity", key, lambda: self.inner.identity(key))

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        self._run("put", key, lambda: self.inner.put(key, parts))

    def put_if(self, key: str, data: Buffer, etag: str | None) -> str:
        return self._run("put_if", key, lambda: self.inner.put_if(key, data, etag))  # type: ignore[no-any-return]

    def delete(self, key: str) -> None:
        self._run("delete", key, lambda: self.inner.delete(key))

    def delete_unchanged(self, objects: Mapping[str, str]) -> Answers:
        label = ",".join([*objects][:1])
        return self._run("delete_unchanged", label, lambda: self.inner.delete_unchanged(objects))  # type: ignore[no-any-return]

    def deletes_conditionally(self) -> bool:
        return self.inner.deletes_conditionally()

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._run("list", prefix, lambda: iter(list(self.inner.list(prefix))))  # type: ignore[no-any-return]

    def head(self, key: str) -> ObjectInfo:
        return self._run("head", key, lambda: self.inner.head(key))  # type: ignore[no-any-return]

    def exists_many(self, keys: Sequence[str]) -> Answers:
        label = ",".join(keys[:1])
        return self._run("exists_many", label, lambda: self.inner.exists_many(keys))  # type: ignore[no-any-return]

    def batch(self) -> Batch:
        return _FaultyBatch(self, self.inner.batch())


class _FaultyBatch(Batch):
    def __init__(self, backend: FaultyBackend, inner: Batch) -> None:
        super().__init__(backend)
        self._faulty = backend
        self._inner = inner

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        self._faulty._run("batch.put", key, lambda: self._inner.put(key, parts))

    def ensure(self, keys: Iterable[str]) -> None:
        self._inner.ensure(keys)

    def commit(self) -> None:
        self._faulty._run("batch.commit", "", self._inner.commit)

    def abort(self) -> None:
        self._inner.abort()
