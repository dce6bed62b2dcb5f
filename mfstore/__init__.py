"""mfstore: the fastest, safest place for a workflow's artifacts.

The words, used everywhere and without synonyms:

* **artifact**: a named Python object a task persists
* **segment**: one contiguous payload of it (its body, an array buffer, raw bytes)
* **chunk**: the unit of deduplication and compression
* **pack**: one stored object holding many chunks
* **recipe**: what an artifact or a bundle is made of, and where it lies
* **bundle**: the named artifacts of one task
* **key**: the content digest that names an artifact
* **index fragment**: an immutable list "chunk is in pack", used only for deduplication
* **ref**: a mutable name for a key
* **backend**: bytes by key
* **store**: the front door

Data flows one way down, store -> pickling -> saving -> format -> backends -> s3, and back up through loading.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0.dev1"

if TYPE_CHECKING:
    import os

    from mfstore import errors
    from mfstore.allow import Allow
    from mfstore.format.digests import Key
    from mfstore.metrics import write_metrics
    from mfstore.opening import open_store as open  # noqa: A004
    from mfstore.page.writing import write_page
    from mfstore.s3.datatools.s3 import S3
    from mfstore.store import Store, sign

__all__ = [
    "S3", "Allow", "Key", "Store", "__version__", "aopen", "errors", "open", "sign", "write_metrics", "write_page",
]  # fmt: skip

_LATER: dict[str, tuple[str, str | None]] = {
    "Allow": ("mfstore.allow", "Allow"),
    "Key": ("mfstore.format.digests", "Key"),
    "S3": ("mfstore.s3.datatools.s3", "S3"),
    "Store": ("mfstore.store", "Store"),
    "errors": ("mfstore.errors", None),
    "open": ("mfstore.opening", "open_store"),
    "sign": ("mfstore.store", "sign"),
    "write_metrics": ("mfstore.metrics", "write_metrics"),
    "write_page": ("mfstore.page.writing", "write_page"),
}
"""Imported at their first use: who needs one of them does not wait for the others."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mfstore.host.forks import IMPORTING

    module, member = _LATER[name]
    with IMPORTING:
        found: Any = import_module(module)
        if member is not None:
            found = getattr(found, member)
        globals()[name] = found
    return found


async def aopen(url: "str | os.PathLike[str]", **options: Any) -> "Store":
    """As ``open``, with the same parameters, result and errors, without blocking the event loop: what is imported at a
    first use, and what the storage is asked, is in another thread."""
    # Here, since asking for something that is imported later would import it in the loop's thread.
    from asyncio import to_thread

    return await to_thread(lambda: __getattr__("open")(url, **options))


def __dir__() -> list[str]:
    # What is public, also what is imported later; and nothing that is only imported here.
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
