"""Manifests: what is written is read, and what leads out of a tree, or is damaged, is refused."""

import struct

import pytest

from mfstore.errors import CorruptObject, Unsupported
from mfstore.format import manifest
from mfstore.format.manifest import Omitted, TreeEntry, decode, encode
from tests import ROOT

GOLDEN = ROOT / "tests" / "golden" / "manifests" / "1.bin"
"""What the first version of the format wrote of these. Never written again."""
TOP = TreeEntry("", "directory", 0o755, 1_700_000_000_123_456_789)
ENTRIES = [
    TOP,
    TreeEntry("d", "directory", 0o2750, -1),
    TreeEntry("d/e", "directory", 0, 0),
    TreeEntry("link", "link", 0o777, 5, target="../away/\udcff"),
    TreeEntry("d/a \n\udcfe", "file", 0o600, 2**62, 3, b"a" * 32),
    TreeEntry("d/empty", "file", 0o644, 0, 0, b"e" * 32),
    TreeEntry("d/same", "file", 0o4755, 1, 3, b"a" * 32),
    TreeEntry("big", "file", 0o644, 1, 1 << 40, b"b" * 32),
]
OMITTED = [Omitted("d/socket", "socket"), Omitted("gone", "vanished")]


def test_what_is_written_is_read():
    found = decode(encode(ENTRIES, OMITTED))
    assert [entry._replace(offset=0) for entry in found.entries] == ENTRIES
    assert [entry.offset for entry in found.entries] == [0, 0, 0, 0, 0, 3, 0, 3]
    assert list(found.omitted) == OMITTED
    assert found.size == 3 + (1 << 40)


def test_the_first_manifest_is_read_and_written_for_ever():
    data = GOLDEN.read_bytes()
    assert encode(ENTRIES, OMITTED) == data
    assert decode(data) == decode(encode(ENTRIES, OMITTED))


PATHS = [b"..", b"../a", b"a/..", b"a/../../b", b"/", b"/etc/passwd", b"a//b", b"./a", b"a/.", b"a\0b", b"a/"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_no_path_leads_out_of_a_tree(path, kind):
    target = {"target": "x"} if kind == "link" else {"digest": b"d" * 32} if kind == "file" else {}
    above = TreeEntry("a", "directory")
    with pytest.raises(CorruptObject):
        decode(encode([TOP, above, TreeEntry(path.decode(), kind, **target)], []))


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [TreeEntry("a", "directory")],
        [TOP, TOP],
        [TOP, TreeEntry("a/b", "directory")],
        [TOP, TreeEntry("a", "link", target="/etc"), TreeEntry("a/b", "file", digest=b"d" * 32)],
        [TOP, TreeEntry("a", "directory"), TreeEntry("a", "link", target="/etc")],
        [TreeEntry("", "link", target="/etc")],
        [TOP, TreeEntry("a", "link", target="")],
        [TOP, TreeEntry("a", "link", target="a\0b")],
        [TOP, TreeEntry("a", "file", digest=b"short")],
    ],
)
def test_what_is_no_tree_is_refused(entries):
    """Among others: nothing lies below a link, or comes twice, so that a link that was made is never written through."""
    with pytest.raises(CorruptObject):
        decode(encode(entries, []))


def test_every_cut_and_every_flipped_byte_is_refused_or_read_as_a_tree():
    data = encode(ENTRIES, OMITTED)
    for end in range(len(data)):
        with pytest.raises(CorruptObject):
            decode(data[:end])
    for at in range(len(data)):
        try:
            found = decode(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        except (CorruptObject, Unsupported):
            continue
        assert all(".." not in entry.path.split("/") for entry in found.entries)


def test_a_manifest_of_a_newer_version_and_claims_of_more_are_refused():
    data = encode(ENTRIES, OMITTED)
    with pytest.raises(Unsupported, match="Upgrade"):
        decode(data[:4] + b"\2" + data[5:])
    many = struct.pack("<4sBBHIIQ", manifest.MAGIC, 1, 0, 0, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    with pytest.raises(CorruptObject):
        decode(many)
