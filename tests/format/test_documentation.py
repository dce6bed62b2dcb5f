"""docs/format.md states the constants the code uses."""

import re

import pytest

from mfstore._core import chunk, codec, pickler
from mfstore.format import collection, fragments, packs, recipes
from mfstore.format import description as description_format
from mfstore.format import refs as ref_format
from mfstore.format.digests import NAMES
from mfstore.loading import segments
from mfstore.saving import guard, index
from tests import ROOT

TEXT = (ROOT / "docs" / "format.md").read_text()


def section(title):
    return re.split(r"\n##+ ", TEXT.split(f" {title}\n", 1)[1])[0]


def rows(title):
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section(title).splitlines()
        if line.startswith("|") and not line.startswith("|---")
    ]


@pytest.mark.parametrize(
    ("title", "header", "magic"),
    [
        ("Recipe", recipes.HEADER, recipes.MAGIC),
        ("Content section", recipes.CONTENT, recipes.CONTENT_MAGIC),
        ("Index fragment", fragments.HEADER, fragments.MAGIC),
        ("Garbage collection", collection.HEADER, collection.MAGIC),
        ("Pack", packs.HEADER, packs.MAGIC),
    ],
)
def test_header_tables_add_up_to_the_struct(title, header, magic):
    at = 0
    for row in rows(title):
        if row[0].isdigit() and row[1].isdigit():
            assert int(row[0]) == at, row
            at += int(row[1])
        elif row[0].isdigit():
            assert int(row[0]) == at
            break
    assert at == header.size
    assert f"magic `{magic.decode()}`" in section(title)


def test_pack_footer_table_adds_up():
    sizes = [(int(row[0].split("−")[1]), int(row[1])) for row in rows("Pack") if row[0].startswith("end")]
    assert sizes[0][0] == packs.FOOTER.size == 64
    left = 64
    for offset, size in sizes:
        assert offset == left
        left -= size
    assert left == 0
    assert f"magic `{packs.END_MAGIC.decode()}`" in section("Pack")


@pytest.mark.parametrize(
    ("title", "size", "struct"),
    [
        ("Content section", "32 each | segments", recipes.SEGMENT),
        ("Content section", "36 each | chunks", recipes.CHUNK),
        ("Recipe", "one placement of 24 bytes", recipes.PLACEMENT),
        ("Deltas", "56 each | base chunks", recipes.BASE_CHUNK),
        ("Deltas", "12 each | pieces", recipes.PIECE),
        ("Pack", "56 each | trailer", packs.ENTRY),
        ("Index fragment", "56 each | entries", fragments.ENTRY),
        ("Garbage collection", "40 each | recipes", collection.ENTRY),
    ],
)
def test_entry_sizes(title, size, struct):
    assert size in section(title)
    assert struct.size == int(re.search(r"\d+", size)[0])
    # The sizes listed in parentheses add up too.
    text = re.split(r"\||\.\s", section(title).replace("\n", " ").split(size, 1)[1])[0]
    listed = [int(number) for number in re.findall(r"\((\d+)\)", text)]
    assert sum(listed) == struct.size


def test_artifact_entry():
    sizes = [int(row[0]) for row in rows("Content section")[8:] if row[0].isdigit()]
    assert sum(sizes) == recipes.ARTIFACT.size


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("*normal* {},", chunk.CUT_NORMAL),
        ("*least* {} (normal / 4)", chunk.CUT_MIN),
        ("*most* {} (4 normal)", chunk.CUT_MAX),
        ("*long row* {} (normal / 2)", chunk.LONG_ROW),
        ("A body of at most {} bytes", recipes.LITERAL_LIMIT),
        ("single artifact of at most {} bytes", recipes.INLINE_LIMIT),
        ("raw runs of {} bytes", packs.ALIGN_FROM),
        ("multiple of {} and", packs.PAGE),
        ("take more than {} bytes", recipes.BASE_LIMIT),
        ("No chunk is longer than {} bytes", codec.CHUNK_LIMIT),
        ("content, which is at most {} bytes", codec.GROUP_LIMIT),
        ("at most {}; the last one", ref_format.HISTORY),
        ("When there are {} fragments", index.FAN_IN),
        ("0x{:X} for", recipes.INLINE),
        ("no earlier than {:.0f} seconds before", guard.KNOWLEDGE_SECONDS),
        ("at least {:.0f} seconds, unless", 2 * guard.KNOWLEDGE_SECONDS),
        ("`{}` (of `write`)", collection.FEATURE),
    ],
)
def test_constants(text, value):
    assert text.format(value) in TEXT.replace("\n  ", " ").replace("\n", " ")


def test_versions_and_numbers():
    assert {recipes.VERSION, packs.VERSION, fragments.VERSION, description_format.VERSION, collection.VERSION} == {1}
    assert NAMES == {"blake3": 1, "sha256": 2}
    assert (codec.NONE, codec.LZ4, codec.ZSTD, codec.PREFIX, codec.DIFFERENCE) == (0, 1, 2, 3, 4)
    assert (codec.PLANES, codec.PCODEC) == (5, 6)
    assert (pickler.BUFFER, pickler.BYTES, pickler.TEXT, pickler.BYTEARRAY) == (1, 2, 3, 4)
    assert (recipes.ONE, recipes.BUNDLE, recipes.LITERAL) == (1, 2, 1)
    assert (recipes.COMPRESSED, recipes.BASES) == (1, 2)


def test_maps_start_where_raw_runs_are_aligned():
    assert segments.MAP_FROM >= packs.ALIGN_FROM
