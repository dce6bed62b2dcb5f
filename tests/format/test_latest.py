"""Hints that name the latest bundle of a step."""

from hypothesis import given
from hypothesis import strategies as st

from mfstore.format.digests import Key
from mfstore.format.latest import PREFIX, decode_latest, encode_latest, latest_path


@given(st.binary(min_size=32, max_size=32))
def test_a_hint_says_what_it_was_given(digest):
    assert decode_latest(encode_latest(digest.hex())) == digest.hex()


@given(st.binary(max_size=80))
def test_anything_else_names_nothing(data):
    found = decode_latest(data)
    assert found is None or (isinstance(found, Key) and found.encode() == data)


def test_each_step_has_a_path_that_any_file_system_takes():
    paths = [latest_path(flow, step) for flow in ("Flow", "Flöw", "Ж" * 100, "F" * 300) for step in ("a", "b")]
    assert paths[0] == "latest/Flow.a"
    assert len(set(paths[:4])) == 4
    assert all(path.isascii() and len(path) < 255 and path.startswith(PREFIX) and "/" not in path[7:] for path in paths)
