"""A bulk result as somebody at a prompt or in a notebook meets it."""

import io
import json

import pytest

from mfstore.errors import InvalidKey
from mfstore.s3 import PutItem
from tests.rigs.html import Page, harmless
from tests.rigs.simulated_s3 import SimulatedS3, simulated_client

OBJECTS = {f"k{i}": b"x" * i for i in range(30)}


@pytest.fixture
def client():
    return simulated_client(SimulatedS3(OBJECTS))


@pytest.mark.parametrize("one", ["k1", b"k1", PutItem("k1", b"1")])
@pytest.mark.parametrize("work", ["get_many", "get_ranges", "head_many", "put_many", "delete_many", "copy"])
def test_one_item_is_not_many(client, work, one):
    """Of a string each character would be a key."""
    with pytest.raises(InvalidKey, match=r"this is one.*Give a list"):
        getattr(client, work)(one)
    assert client.engine.objects == OBJECTS


@pytest.mark.parametrize("lazily", [False, True])
def test_what_was_not_asked_for_says_so(client, lazily):
    result = client.get_many(iter(OBJECTS) if lazily else OBJECTS)
    assert "iterate over it" in repr(result) and "iterate over it" in result._repr_html_()
    next(iter(result))
    assert "1 item, 0 failed" in repr(result)


@pytest.mark.parametrize("missing", [0, 2, 37])
def test_the_table(client, missing):
    names = [f"<script>none {number}</script> & co" for number in range(missing)]
    result = client.get_many([*OBJECTS, *names], on_error="return").wait()
    page = Page(result._repr_html_())
    assert f"{30 + missing} items" + (f", {missing} failed" if missing else "") in page.texts
    assert page.text.count("no such object") == min(missing, 10) == sum(name in page.texts for name in names)
    assert ("and 27 more" in page.texts) == (missing == 37)
    if missing == 0:
        page, text = harmless(result.stats)
        assert "30 items" in page.texts and "435 B in" in text and "per item" in text


def test_of_few_items_each_is_shown(client):
    page = Page(client.get_many(["k3", "k7"]).wait()._repr_html_())
    assert "k3" in page.texts and "7 B" in page.texts


@pytest.mark.parametrize("work", ["get_many", "head_many"])
def test_a_speed_is_told_of_what_moves_bytes(client, work):
    """The objects that are asked for may be large; nothing of them comes."""
    result = getattr(client, work)(OBJECTS).wait()
    told = (repr(result), repr(result.stats), Page(result._repr_html_()).text)
    assert all(("/s" in text) == (work == "get_many") for text in told)
    assert (result.stats.speed > 0) == (work == "get_many") == (result.stats.to_dict()["bytes_per_second"] > 0)


def test_statistics_are_short(client):
    """The latencies of thousands of items are among them."""
    result = client.get_many([*OBJECTS] * 100).wait()
    assert len(result.stats.latencies) == 3000 and len(repr(result.stats)) < 600


def test_for_json(client):
    result = client.get_many(["k3", "none"], on_error="return").wait()
    told = json.loads(json.dumps(result.to_dict()))
    assert told["stats"]["items"] == 2 and told["stats"]["failed"] == 1
    assert [outcome["error_code"] for outcome in told["outcomes"]] == [None, "not-found"]


@pytest.mark.parametrize(
    ("progress", "lazily", "shown"),
    [
        ("tqdm", False, "30/30"),
        ("tqdm", True, "30obj"),
        ("rich", False, "30/30"),
        ("rich", True, "30 · "),
    ],
)
def test_bars(client, progress, lazily, shown, capsys):
    client.get_many(iter(OBJECTS) if lazily else OBJECTS, progress=progress).wait()
    told = capsys.readouterr().err
    assert shown in told and "get_many" in told


def test_nothing_is_shown_where_nobody_looks(client, capsys):
    client.get_many(OBJECTS, progress=True).wait()
    assert capsys.readouterr() == ("", "")


def test_bytes_are_shown_of_what_moves_them_alone(client, capsys):
    client.get_many(OBJECTS, progress="rich").wait()
    assert " B · " in capsys.readouterr().err
    client.head_many(OBJECTS, progress="rich").wait()
    told = capsys.readouterr().err
    assert "30/30 · " in told and "B" not in told


def test_what_moved_is_counted(client):
    got = client.get_many(OBJECTS).wait()
    assert got.stats.moved == got.stats.bytes > 0
    assert client.head_many(OBJECTS).wait().stats.moved == 0
    put = client.put_many({"a": b"123", "b": bytes(70_000), "c": io.BytesIO(b"45")})
    assert put.stats.moved == 70_005


def test_a_function_is_told(client):
    told = []
    client.get_many([*OBJECTS, "none"], progress=told.append, on_error="omit").wait()
    assert sum(told) == 31


def test_progress_that_is_none(client):
    with pytest.raises(ValueError, match="rich"):
        client.get_many(OBJECTS, progress="loud")


def test_a_function_that_fails_ends_it(client):
    with pytest.raises(ZeroDivisionError):
        client.get_many(OBJECTS, progress=lambda count: count / 0).wait()
    assert [outcome.data for outcome in client.get_many(["k3"])] == [b"xxx"]
