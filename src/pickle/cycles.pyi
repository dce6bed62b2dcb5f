from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

def without_search(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R: ...
