"""Numbers in the text form of Prometheus (https://prometheus.io/docs/instrumenting/exposition_formats/)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from mfstore.records import NamedTuple

Kind = Literal["counter", "gauge"]


class Family(NamedTuple):
    """A metric: what it is, and its values by labels."""

    name: str
    """Of a counter it ends in ``_total``; bytes and seconds say so."""
    kind: Kind
    help: str
    """A sentence."""
    samples: Sequence[tuple[Mapping[str, str], float]]


def counter(name: str, told: str, value: float) -> Family:
    """A counter with one value, without labels."""
    return Family(name, "counter", told, [({}, value)])


def gauge(name: str, told: str, value: float) -> Family:
    """A gauge with one value, without labels."""
    return Family(name, "gauge", told, [({}, value)])


def labelled(families: Iterable[Family], labels: Mapping[str, str]) -> list[Family]:
    """The same with more labels for each value, which come first."""
    return [
        family._replace(samples=[({**labels, **own}, value) for own, value in family.samples]) for family in families
    ]


def text_of(families: Iterable[Family]) -> str:
    """The text: of a name each value, also where it comes several times."""
    together: dict[str, list[Family]] = {}
    for family in families:
        together.setdefault(family.name, []).append(family)
    lines = []
    for name, same in together.items():
        lines += [f"# HELP {name} {_escaped(same[0].help)}", f"# TYPE {name} {same[0].kind}"]
        for family in same:
            lines += [f"{name}{_labels(labels)} {_number(value)}" for labels, value in family.samples]
    return "".join(f"{line}\n" for line in lines)


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    parts = [f'{name}="{_escaped(value, quoted=True)}"' for name, value in labels.items()]
    return "{" + ",".join(parts) + "}"


def _escaped(text: str, *, quoted: bool = False) -> str:
    found = text.encode("utf-8", "replace").decode().replace("\\", "\\\\").replace("\n", "\\n")
    return found.replace('"', '\\"') if quoted else found


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))
