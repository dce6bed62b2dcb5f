"""Which keys of a store are signed, and by whom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mfstore.errors import MfstoreError
from mfstore.format.digests import name_of
from mfstore.format.signatures import PREFIX, fingerprint, signed_key
from mfstore.maintenance.store.collecting.object_table import list_objects
from mfstore.records import dataclass
from mfstore.ref_objects import read_all_refs
from mfstore.trust import judged

if TYPE_CHECKING:
    from mfstore.handle import StoreAccess

UNSIGNED, BAD, UNKNOWN = "unsigned", "bad", "unknown"


@dataclass(frozen=True, slots=True)
class SignatureFinding:
    """A key that nobody who is trusted has signed, or beside whose signatures lies what is none."""

    kind: str
    """unsigned: nobody has; unknown: only others have; bad: what lies there is no signature of this key."""
    key: str
    signers: tuple[str, ...] = ()
    """Fingerprints of public keys: of the others, or those in whose place it lies."""
    refs: tuple[str, ...] = ()
    """What names the key now."""


@dataclass(frozen=True, slots=True)
class SignatureReport:
    """What the signatures in a store say."""

    url: str
    trusted: tuple[str, ...]
    """Fingerprints of the public keys that were given."""
    keys: int
    """Keys that are stored."""
    signed: int
    """Those that one who is trusted has signed."""
    findings: tuple[SignatureFinding, ...]

    @property
    def clean(self) -> bool:
        """Whether every key is signed by one who is trusted, and no signature is bad."""
        return not self.findings


def verify_signatures(access: StoreAccess, trusted: Sequence[bytes]) -> SignatureReport:
    """The report. AccessDenied, and whatever else reading raises: what was not read is no signature, and no lack of
    one."""
    backend = access.backend
    algorithm = name_of(access.algorithm)
    # Before signatures: of each key that is listed here those that came with it are seen.
    keys = sorted(name.hex() for name, *_ in list_objects(backend, "recipes"))
    paths = sorted(info.key for info in backend.list(PREFIX) if signed_key(info.key) is not None)
    stored: dict[str, list[tuple[str, object]]] = {}
    for path, data in backend.get_many(paths) if paths else ():
        place = signed_key(path)
        assert place is not None
        stored.setdefault(place[0], []).append((path, data))
    refs: dict[str, list[str]] = {}
    for name, stored_ref in read_all_refs(backend):
        if not isinstance(stored_ref, MfstoreError) and stored_ref.entries:  # what is wrong with a ref verify tells
            refs.setdefault(stored_ref.entries[-1].key, []).append(name)
    found: list[SignatureFinding] = []
    signed = 0
    for key in keys:
        try:
            told = judged(key, stored.get(key, ()), algorithm, trusted)
        except MfstoreError as error:
            raise error.where(backend=backend.url) from None
        names = tuple(sorted(refs.get(key, ())))
        signed += bool(told.trusted)
        if told.bad:
            found.append(SignatureFinding(BAD, key, told.bad, names))
        if not told.trusted and not told.bad:
            found.append(SignatureFinding(UNKNOWN if told.unknown else UNSIGNED, key, told.unknown, names))
    return SignatureReport(backend.url, tuple(map(fingerprint, trusted)), len(keys), signed, tuple(found))
