"""Which ranges of an object are cheaper to fetch together. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from mfstore.s3.bulk.items import Address


def plan_ranges(
    wanted: Iterable[tuple[int, Any, Address]], gap: int, span: int
) -> Iterator[tuple[str, str, list[tuple[int, Any, int, int]]]]:
    """Group ``(index, item, address)`` into fetches ``(bucket, key, [(index, item, start, length), …])``.

    Ranges of one object join when at most ``gap`` bytes lie between them and the whole stays within ``span`` bytes
    (one range alone may be longer). The order of fetches is that of the smallest index in each.
    """
    objects: dict[tuple[str, str], list[tuple[int, int, int, Any]]] = {}
    for index, item, place in wanted:
        assert place.start is not None and place.stop is not None
        objects.setdefault((place.bucket, place.key), []).append((place.start, place.stop, index, item))
    groups = []
    for (bucket, key), ranges in objects.items():
        ranges.sort(key=lambda entry: entry[:3])
        group: list[tuple[int, Any, int, int]] = []
        first = end = 0
        for start, stop, index, item in ranges:
            if group and (start > end + gap or max(stop, end) - first > span):
                groups.append((min(entry[0] for entry in group), bucket, key, group))
                group = []
            if not group:
                first, end = start, stop
            end = max(end, stop)
            group.append((index, item, start, stop - start))
        groups.append((min(entry[0] for entry in group), bucket, key, group))
    groups.sort(key=lambda entry: entry[0])
    for _, bucket, key, group in groups:
        yield bucket, key, group
