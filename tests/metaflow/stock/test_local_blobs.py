"""Blobs in a directory, written and read without the backend."""

import sys
from functools import partial
from itertools import count

import pytest

from mfstore.errors import BackendError
from mfstore.metaflow.stock import local_blobs
from mfstore.metaflow.stock.blob_storage import NewBlob
from mfstore.metaflow.stock.local_blobs import LocalBlobs

BLOB = NewBlob("F/data/ab/one", [b"one", b"", b"two"], {"cas_raw": True})


def interrupted_at(step, call):
    """Run ``call``, with Ctrl-C before the so manieth line of the module under test; whether it came to that."""
    lines = count(1)

    def trace(frame, event, _arg):
        if event == "line" and next(lines) == step:
            raise KeyboardInterrupt
        return trace

    sys.settrace(lambda frame, *_: trace if frame.f_code.co_filename == local_blobs.__file__ else None)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
    return False


# An interrupt on the way out of a ``with`` leaves it to Python to close the file.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_leaves_no_file_behind(tmp_path):
    for step in count(1):
        root = tmp_path / str(step)
        blobs = LocalBlobs(lambda root=root: str(root), "none")
        if not interrupted_at(step, partial(blobs.put, [BLOB])):
            break
        assert not [*root.rglob(".tmp-*")], step
        found = dict(blobs.read([BLOB.path]))[BLOB.path]
        assert found is None or (found.data, found.metadata) == (b"onetwo", BLOB.metadata)
    assert step > 20


@pytest.mark.parametrize("path", ["../one", "/one", "F/../../one", "F/a\0b"])
@pytest.mark.parametrize("fsync", ["none", "batch"])
def test_no_path_leaves_the_root(tmp_path, path, fsync):
    blobs = LocalBlobs(lambda: str(tmp_path / "root"), fsync)
    for act in (
        lambda: blobs.put([NewBlob(path, [b"new"], None)]),
        lambda: list(blobs.read([path])),
        lambda: blobs.tails([path]),
    ):
        with pytest.raises(BackendError, match="leave the store"):
            act()
    assert [found for found in tmp_path.rglob("*") if found.is_file()] == []
