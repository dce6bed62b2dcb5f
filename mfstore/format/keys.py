"""Keys: the content digests that name artifacts."""

from __future__ import annotations

from mfstore.errors import InvalidKey

_DIGITS = frozenset("0123456789abcdef")


class Key(str):
    """64 lower-case hexadecimal digits. Equal keys mean equal content. InvalidKey for anything else."""

    __slots__ = ()

    def __new__(cls, text: str) -> Key:
        if isinstance(text, Key):
            return text
        if not isinstance(text, str) or len(text) != 64 or not _DIGITS.issuperset(text):
            raise InvalidKey("not a key", expected="64 lower-case hexadecimal digits", found=f"{text!r:.80}")
        return super().__new__(cls, text)

    def __getnewargs__(self) -> tuple[str]:
        return (str.__str__(self),)
