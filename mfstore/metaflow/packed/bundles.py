"""The packed profile: a task's artifacts as one bundle of an mfstore store below the datastore root."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from mfstore.format.digests import BLAKE3, Key, digest_function
from mfstore.format.recipes import BUNDLE
from mfstore.metaflow.packed.plain import load_inline
from mfstore.metaflow.packed.previous import WORTH, PreviousBundle
from mfstore.metaflow.process_state import process_state
from mfstore.metaflow.roots.packed_keys import (
    INLINE_PICKLE_BYTES,
    PackedArtifact,
    encoding_in,
    inline_key,
    is_inline,
)
from mfstore.records import NamedTuple
from mfstore.saving.drafts import Draft, draft_of, hashed_draft

if TYPE_CHECKING:
    from mfstore.format.recipes import Artifact
    from mfstore.saving.ingest import Ingest
    from mfstore.store import Store


class Saved(NamedTuple):
    """What ``data.json`` says of one artifact."""

    key: str
    info: dict[str, Any]


def save(
    store: Callable[[], Store], artifacts: Iterable[tuple[str, object]], known: Mapping[str, dict[str, Any]],
    previous: PreviousBundle | None = None,
) -> dict[str, Saved]:  # fmt: skip
    """Store artifacts, durably when it returns; ``known`` are keys already stored, with their infos. Artifacts are
    compared with those of the same names in ``previous``, which learns what this has become.

    The store is not asked for when nothing needs storing. NotSerializable names the artifact and the part of it.
    """
    drafts: list[Draft] = []
    types: dict[str, str] = {}
    saved: dict[str, Saved] = {}
    with ExitStack() as stack:
        opened: list[Ingest] = []

        def ingest() -> Ingest:
            if not opened:
                into = store()
                find = partial(previous.recipe, into) if previous is not None and into.knobs.builds else None
                opened.append(stack.enter_context(into.handle.saving(find, WORTH)))
            return opened[0]

        for name, obj in artifacts:
            types[name] = str(type(obj))
            draft = draft_of(name, obj, lambda run: ingest().take(run))
            del obj
            key = _early_key(draft)
            if key is not None and (is_inline(key) or key in known):
                saved[name] = Saved(key, known[key] if key in known else _info(draft, types[name], None))
            else:
                drafts.append(draft)
        if not drafts:
            return saved
        writer = ingest()
        left = writer.withdraw(drafts, known)
        left.sort(key=lambda draft: draft.name.encode("utf-8", "surrogatepass"))
        bundle: list[str] = []
        if left:
            for draft in left:
                writer.drafted(draft)
            writer.recipe(BUNDLE, left, bundle.append)
            store().handle.count(writer.commit())
            if previous is not None:
                previous.saved(bundle[0])
        stored = {draft.name for draft in left}
        for draft in drafts:
            key = writer.key_of(draft)
            there = None if draft.name in stored else known.get(key)
            saved[draft.name] = Saved(key, there or _info(draft, types[draft.name], bundle[0]))
    return saved


def _early_key(draft: Draft) -> str | None:
    """The key, where it can be told without a store."""
    if draft.literal is None:
        return None
    if len(draft.literal) <= INLINE_PICKLE_BYTES:
        return inline_key(draft.literal)
    return draft.key(digest_function(BLAKE3), BLAKE3)


def _info(draft: Draft, kind: str, bundle: str | None) -> dict[str, Any]:
    source = {"source": "mfstore"}
    return {"size": draft.size, "type": kind, "encoding": encoding_in(bundle), "serializer_info": source}


def key_of(obj: object) -> str:
    """The key an object has in this format; nothing is stored. NotSerializable as ``save``."""
    digest = digest_function(BLAKE3)
    draft = hashed_draft(obj, digest)
    early = _early_key(draft)
    return draft.key(digest, BLAKE3) if early is None else early


def load(store: Callable[[], Store], wanted: Sequence[PackedArtifact]) -> Iterator[tuple[str, Any]]:
    """The objects; the store is asked for when one does not lie in its key. NotFound,
    CorruptObject and so on as ``Store.load``."""
    bundles: dict[str, list[str]] = {}
    for name, key, bundle in wanted:
        if is_inline(key):
            yield name, load_inline(key, process_state().knobs.safe)
        else:
            assert bundle is not None
            bundles.setdefault(bundle, []).append(name)
    for bundle, names in bundles.items():
        try:
            found = _load(store(), bundle, names)
        except Exception:
            # One of them cannot be unpickled here: the others before it can.
            from mfstore.errors import NotLoadable

            found = {}
            for name in names:
                try:
                    loaded = _load(store(), bundle, [name])
                except NotLoadable as error:
                    # As Metaflow's own datastore raises it, for those who catch it.
                    cause = error.__cause__ or error
                    raise cause from cause.__cause__
                yield from loaded.items()
        yield from found.items()


def _load(store: Store, bundle: str, names: Sequence[str]) -> dict[str, Any]:
    """As ``Store.load``, of a bundle that is decoded once. What its recipe says may have been moved since: an error
    forgets it."""
    # Who saves need not import them.
    from mfstore.getting import in_bundle
    from mfstore.handle import Wishes
    from mfstore.metaflow.packed.decoded import DECODED

    key, handle = Key(bundle), store.handle
    decoded = DECODED.get(handle, bundle)
    try:
        known = decoded.artifacts
        if known.keys() >= {*names}:
            wanted: Sequence[Artifact] = [known[name] for name in names]
        else:
            wanted = in_bundle(names).artifacts(key, bundle, decoded.recipe)  # says what it has not
        found: dict[str, Any] = handle.load(key, decoded.recipe, wanted, Wishes(), named=True, first=decoded.first)
    except Exception:
        DECODED.forget()
        raise
    return found
