"""One item of a sequence, loaded alone where that spares enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mfstore.format.digests import Key
from mfstore.pickling.evaluation import slots_of
from mfstore.views.parts import ArtifactParts

if TYPE_CHECKING:
    from mfstore.handle import Handle


def load_item(handle: Handle, key: str, name: str, index: int, spared: int) -> tuple[Any] | None:
    """Item ``index`` of the list or tuple that an artifact of a bundle is, in a tuple; None where it is none, has no
    such item, or loading it alone spares less than so many bytes of segments. NotFound, CorruptObject, NotLoadable and
    so on as of a view."""
    handle.require_signed([Key(key)])
    recipe = handle.recipe(Key(key))
    number = next((at for at, artifact in enumerate(recipe.artifacts) if artifact.name == name), None)
    if number is None or recipe.artifacts[number].size - recipe.artifacts[number].body_length < spared:
        return None
    parts = ArtifactParts(handle.loading(None, True), recipe, number)
    root = parts.root
    if not isinstance(root, (list, tuple)) or not 0 <= index < len(root):
        return None
    needed = sum(map(len, slots_of(root[index])))
    if parts.artifact.size - parts.artifact.body_length - needed < spared:
        return None
    (item,) = parts.objects([root[index]])
    handle.count(needed + parts.artifact.body_length)
    return (item,)
