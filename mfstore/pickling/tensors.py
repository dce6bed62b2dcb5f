"""Tensors and storages of torch as the pickler writes them: one buffer for each storage, which tensors share."""

from __future__ import annotations

import operator
from copyreg import dispatch_table
from functools import partial
from typing import TYPE_CHECKING, Any

from mfstore._core.pickler import Payload, Reduced

if TYPE_CHECKING:
    from collections.abc import Callable


def storage_reducers(torch: Any) -> dict[type, Callable[[Any], Any]]:
    """What the pickler is given for the classes of storages."""
    return {
        torch.UntypedStorage: partial(_reduce_storage, torch),
        torch.storage.TypedStorage: partial(_reduce_typed_storage, torch),
    }


def reduce_tensor(torch: Any, tensor: Any) -> Any:
    """A tensor as torch pickles it, of one of its subclasses too, in a form that can be read.

    For the types that came after typed storages (float8, uint16 to uint64) torch's pickle names an untyped storage,
    where what rebuilds the tensor wants a typed one.
    """
    if type(tensor) in dispatch_table:
        return NotImplemented
    reduced = tensor.__reduce_ex__(5)
    if type(reduced) is not tuple:
        return reduced
    build, args, *rest = reduced
    if build is torch._tensor._rebuild_from_type_v2:
        # A subclass, or a tensor with attributes: the way to build it comes within the arguments.
        inner, kind, inner_args, state = args
        return build, (inner, kind, _typed(torch, inner, inner_args), state), *rest
    return build, _typed(torch, build, args), *rest


def _typed(torch: Any, build: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    if build is not getattr(torch._utils, "_rebuild_tensor_v3", None) or type(args[0]) is not torch.UntypedStorage:
        return args
    kind = torch.storage.TypedStorage
    return kind(wrap_storage=args[0], dtype=torch.uint8, _internal=True), *args[1:]


def _reduce_storage(torch: Any, storage: Any) -> Any:
    """A CPU storage as ``torch.frombuffer`` over one buffer; other devices as torch does it.

    torch's own form embeds a whole torch.save archive whose header carries a process-local key, so equal
    tensors would get different keys. The element size is not known here: 0.
    """
    if storage.device.type != "cpu":
        return NotImplemented
    if storage.nbytes() == 0:
        return Reduced(torch.UntypedStorage, (0,))
    raw = torch.empty(0, dtype=torch.uint8).set_(storage).numpy()
    as_bytes = partial(torch.frombuffer, dtype=torch.uint8)
    return Reduced(operator.methodcaller("untyped_storage"), (Reduced(as_bytes, (Payload(raw, 0, 0),)),))


def _reduce_typed_storage(torch: Any, storage: Any) -> Any:
    """A typed view of an untyped storage, which is what tensors share."""
    untyped = storage._untyped_storage
    if untyped.device.type != "cpu":
        return NotImplemented
    kind = torch.storage.TypedStorage
    return Reduced(partial(kind, wrap_storage=untyped, dtype=storage.dtype, _internal=True), ())
