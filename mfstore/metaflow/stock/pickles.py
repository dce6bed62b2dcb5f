"""How Metaflow pickles artifacts: by a serializer, or in releases before 2.19.26 by itself."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

SERIALIZERS = "metaflow.plugins.datastores.serializers"


@cache
def has_serializers() -> bool:
    """Whether this Metaflow asks serializers, of its own and of extensions, who stores an artifact."""
    return find_spec(SERIALIZERS) is not None


def pickle_of(obj: Any) -> tuple[bytes, dict[str, Any]]:
    """The pickle that Metaflow stores, and what ``data.json`` says of it. What pickling raises."""
    if has_serializers():
        from metaflow.plugins.datastores.serializers.pickle_serializer import PickleSerializer

        blobs, _ = PickleSerializer.serialize(obj)
        data = blobs[0].value
    else:
        import pickle

        data = pickle.dumps(obj, protocol=4)
    return data, pickle_info(len(data), str(type(obj)))


def pickle_info(size: int, kind: Any) -> dict[str, Any]:
    """What ``data.json`` says of a pickle of ``size`` bytes, of an object of the type ``kind``."""
    if has_serializers():
        return {"size": size, "type": kind, "encoding": "pickle-v4", "serializer_info": {"source": "metaflow"}}
    return {"size": size, "type": kind, "encoding": "gzip+pickle-v4"}
