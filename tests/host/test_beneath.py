"""What is opened below a directory is never reached by a link."""

import os

import pytest

from mfstore.host.beneath import open_beneath


@pytest.mark.parametrize(
    ("plainly", "longest"), [(None, 4000), (None, 1), (False, 4000)], ids=["at once", "long", "stepwise"]
)
def test_no_link_is_followed(tmp_path, monkeypatch, plainly, longest):
    if plainly is not None:
        monkeypatch.setattr("mfstore.host.beneath.OPENS_PLAINLY", plainly)
    monkeypatch.setattr("mfstore.host.beneath.LONGEST", longest)
    inner = tmp_path / "top" / "d" / "e"
    inner.mkdir(parents=True)
    (inner / "file").write_bytes(b"x")
    (tmp_path / "top" / "to directory").symlink_to("d")
    (inner / "to file").symlink_to("file")
    top = os.open(tmp_path / "top", os.O_RDONLY)
    try:
        for path in (b"", b"d", b"d/e", b"d/e/file"):
            with open_beneath(top, path, os.O_RDONLY) as fd:
                assert os.fstat(fd).st_ino == os.stat(tmp_path / "top" / os.fsdecode(path)).st_ino
                assert not os.get_inheritable(fd)
        for path in (b"to directory", b"to directory/e", b"to directory/e/file", b"d/e/to file"):
            for flags in (os.O_RDONLY, os.O_RDONLY | os.O_DIRECTORY, os.O_WRONLY | os.O_CREAT):
                with pytest.raises(OSError):
                    open_beneath(top, path, flags)
    finally:
        os.close(top)
