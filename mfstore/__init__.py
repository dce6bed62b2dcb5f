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

Data flows one way down: store -> serialize -> segments -> chunking -> packs -> backends.
"""

from typing import TYPE_CHECKING, Any

from mfstore import errors
from mfstore.keys import Key
from mfstore.store import Store
from mfstore.store import open_store as open  # noqa: A004

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mfstore.s3.helper import S3

__all__ = ["S3", "Key", "Store", "__version__", "errors", "open"]


def __getattr__(name: str) -> Any:
    # S3 brings in what stores without S3 do not need.
    if name != "S3":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mfstore.s3.helper import S3

    return S3
