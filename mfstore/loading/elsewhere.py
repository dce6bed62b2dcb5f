"""Chunks that are not whole where they should lie: read there by another way, or found elsewhere. Those of one group
are looked for together, as they are read, so that a damaged group costs no more than one chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from mfstore.errors import AccessDenied, NotFound
from mfstore.format.packs import pack_path, place_of
from mfstore.loading.reads import ChunkRead, by_place, in_order

if TYPE_CHECKING:
    from mfstore.format.fragments import Location
    from mfstore.loading.pack_reader import Failure, PackReader
    from mfstore.loading.verified import VerifiedRanges

    Healed = tuple[str, bool]
    """An object in which something could not be read, and whether it is gone."""
    FindCopies = Callable[[bytes, bool], Sequence[Location]]


class Elsewhere:
    """Finds what is not whole where it should lie. ``find_copies(id, reload)`` tells every place of a chunk that the
    index knows, read anew or not; ``verified`` forgets the packs that are found damaged."""

    def __init__(self, reader: PackReader, find_copies: FindCopies, verified: VerifiedRanges) -> None:
        self._reader = reader
        self._find_copies = find_copies
        self._verified = verified

    def find(self, together: Sequence[ChunkRead], verify: bool, healed: list[Healed]) -> list[Failure]:
        """Read chunks of one place: from where they should lie, by another way, from other copies. Those that are not
        to be had, with what is wrong. Of what is fetched for deltas alone that is only noted, as there may be other
        ways."""
        failed = []
        for wanted, error in self._reader.read_each(together, verify):
            if wanted.scratch is not None:
                wanted.scratch.failure = error
            elif isinstance(error, AccessDenied):
                raise error
            else:
                failed.append((wanted, error))
        if failed and not isinstance(failed[0][1], NotFound):
            # The reads before may have been bad, and not what is stored.
            again = {id(wanted) for wanted, _ in self._reader.read_each_again([wanted for wanted, _ in failed])}
            failed = [(wanted, error) for wanted, error in failed if id(wanted) in again]
        if not failed:
            return []
        pack, first = failed[0][0].pack, failed[0][1]
        self._verified.forget(pack)
        left = {id(wanted) for wanted in self.read_copies([wanted for wanted, _ in failed])}
        if len(left) < len(failed):
            healed.append((pack_path(pack), isinstance(first, NotFound)))
        return [(wanted, error) for wanted, error in failed if id(wanted) in left]

    def read_copies(self, wanted: Iterable[ChunkRead]) -> list[ChunkRead]:
        """Read copies of chunks that lie elsewhere. Those of which there is none that is whole."""
        left = dict(enumerate(wanted))
        tried = {
            number: {(one.pack, place_of(one.placement.offset, one.placement.codec, one.placement.width))}
            for number, one in left.items()
        }
        for reload in (False, True):
            copies: dict[int, Iterator[ChunkRead]] = {}
            for number, one in left.items():
                # Once for all of them: an index read anew is requests.
                copies[number] = self._untried(one, tried[number], reload and not copies)
            while moved := {number: copy for number in left for copy in islice(copies[number], 1)}:
                numbers = {id(copy): number for number, copy in moved.items()}
                for together in by_place(in_order(moved.values())):
                    # Always checked: an index entry is a hint.
                    failed = self._reader.read_each(together, True)
                    for _, error in failed:
                        if isinstance(error, AccessDenied):
                            raise error
                    bad = {id(one) for one, _ in failed}
                    for one in together:
                        if id(one) not in bad:
                            del left[numbers[id(one)]]
            if not left:
                break
        return list(left.values())

    def _untried(self, wanted: ChunkRead, tried: set[tuple[str, int]], reload: bool) -> Iterator[ChunkRead]:
        """The copies of a chunk that are not ``tried``, which learns them."""
        found = []
        for copy in self._find_copies(wanted.chunk.id, reload):
            name = copy.pack.value.hex()
            place = name, place_of(copy.offset, copy.codec, copy.width)
            if place not in tried and copy.usize == wanted.chunk.usize:
                tried.add(place)
                found.append(wanted._replace(pack=name, placement=copy.placement()))
        return iter(found)
