"""What is rebound of Metaflow's ``FlowSpec``: a task of a foreach gets its item without the rest of the list."""

from __future__ import annotations

from functools import wraps
from typing import Any

from mfstore.metaflow.roots.packed_keys import bundle_of, is_packed

SPARED = 1 << 20
"""Loading an item alone has to spare so many bytes: it may take a request more, and what it spares of less than 1 MiB
takes no longer than that."""


def find_input(original: Any) -> Any:
    """``FlowSpec._find_input`` that loads one item of a list or tuple of the packed profile, where that spares much.
    ``self.<list>`` is loaded when the task asks for it."""

    @wraps(original)
    def _find_input(self: Any, stack_index: int | None = None) -> Any:
        frames = self._foreach_stack
        number = len(frames) - 1 if stack_index is None else stack_index
        if frames and number not in self._cached_input and not _is_there(self, frames[number].var):
            item = _item(self._datastore, frames[number].var, frames[number].index)
            if item is not None:
                self._cached_input[number] = item[0]
        return original(self, stack_index)

    return _find_input


def _is_there(flow: Any, name: str) -> bool:
    """Whether a flow has an attribute without loading it."""
    return name in flow.__dict__ or hasattr(type(flow), name)


def _item(task: Any, name: str, index: Any) -> tuple[Any] | None:
    """The item, in a tuple, or None where the whole list is to be asked: also where something is wrong, which it then
    meets and tells."""
    info: dict[str, Any] = (getattr(task, "_info", None) or {}).get(name) or {}
    if not is_packed(info) or type(index) is not int or info.get("size", 0) < SPARED:
        return None
    bundle = bundle_of(info)
    if bundle is None:
        return None
    from mfstore.metaflow.packed.store import packed_store
    from mfstore.views.items import load_item

    try:
        store = packed_store(task._storage_impl.url)
        return load_item(store.handle, bundle, name, index, SPARED)
    except Exception:
        return None
