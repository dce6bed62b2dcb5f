"""Builds up what a Dockerfile describes, without Docker: each of its few instructions is carried out in a fresh root.

Known are ARG, FROM, RUN (by the shell), COPY, ENV and WORKDIR, one stage; anything else is refused. Layers, the
builder's cache and the registry are not there, and two things are others than with Docker:

* ``FROM python:X-slim`` is Debian's own Python X, in a virtual environment at /usr/local. The image of that name is the
  same Debian with a Python at /usr/local that was compiled from source.
* pip takes wheels from a folder, not from an index.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from roots import Root

KNOWN = ("ARG", "FROM", "RUN", "COPY", "ENV", "WORKDIR")


class NotUnderstood(ValueError):
    """A Dockerfile says what is not known here."""


@dataclass(frozen=True)
class Instruction:
    """One, its continued lines joined."""

    name: str
    rest: str


@dataclass
class Image:
    """What containers of it begin with."""

    environment: dict[str, str] = field(default_factory=dict)
    directory: str = "/"


def parse(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile. Raises NotUnderstood for one that is not known."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found = []
    for line in re.sub(r"\\\s*\n", " ", "\n".join(lines)).splitlines():
        name, _, rest = line.strip().partition(" ")
        if name.upper() not in KNOWN:
            raise NotUnderstood(f"{name} is not among {', '.join(KNOWN)}")
        if "--" in rest.split(" ", 1)[0] or (name.upper() == "RUN" and rest.startswith("[")):
            raise NotUnderstood(f"options and lists of words are not known: {line}")
        found.append(Instruction(name.upper(), rest.strip()))
    stages = [number for number, instruction in enumerate(found) if instruction.name == "FROM"]
    if len(stages) != 1 or any(instruction.name != "ARG" for instruction in found[: stages[0]]):
        raise NotUnderstood("it does not begin with FROM, or has more than one")
    return found


def fill(text: str, values: Mapping[str, str]) -> str:
    """With ``$NAME`` and ``${NAME}`` replaced; what has no value is empty, as Docker has it."""
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda found: values.get(found[1] or found[2], ""), text)


def base(instructions: list[Instruction], arguments: Mapping[str, str]) -> str:
    """The name of the image it begins with, by the arguments of the build."""
    values: dict[str, str] = {}
    for instruction in instructions:
        if instruction.name == "FROM":
            return fill(instruction.rest, values)
        name, _, default = instruction.rest.partition("=")
        values[name] = arguments.get(name, default)
    raise NotUnderstood("there is no FROM")


def build(instructions: list[Instruction], context: Path, root: Root, builder: Mapping[str, str]) -> Image:
    """Carry them out in a root that is what FROM names. ``builder`` are variables of the build alone. Raises
    RuntimeError with what a command said that failed."""
    image = Image()
    begun = False
    for instruction in instructions:
        begun = begun or instruction.name == "FROM"
        if not begun or instruction.name in ("FROM", "ARG"):
            continue
        print(f"  {instruction.name} {instruction.rest}", flush=True)
        if instruction.name == "RUN":
            command = ["/bin/sh", "-c", instruction.rest]
            done = root.run(command, {**image.environment, **builder}, image.directory)
            if done.returncode:
                raise RuntimeError(f"RUN {instruction.rest} ended with {done.returncode}:\n{done.stdout}")
        elif instruction.name == "ENV":
            for assignment in shlex.split(instruction.rest):
                name, equals, value = assignment.partition("=")
                if not equals:
                    raise NotUnderstood(f"ENV {instruction.rest}: NAME=value is known alone")
                image.environment[name] = fill(value, {**root.environment, **image.environment})
        elif instruction.name == "WORKDIR":
            image.directory = str(Path(image.directory, fill(instruction.rest, image.environment)))
            root.run(["mkdir", "-p", image.directory])
        else:
            copy(instruction, context, root, image)
    return image


def copy(instruction: Instruction, context: Path, root: Root, image: Image) -> None:
    """COPY of files, or of what a folder holds."""
    *sources, target = shlex.split(instruction.rest)
    into = str(Path(image.directory, target))
    for name in sources:
        source = (context / name).resolve()
        if not source.is_relative_to(context.resolve()) or not source.exists():
            raise NotUnderstood(f"COPY {name}: there is no such file in {context}")
        if source.is_dir():
            files = {str(path.relative_to(source)): path for path in sorted(source.rglob("*")) if path.is_file()}
            for relative, path in files.items():
                root.write(f"{into}/{relative}", path.read_bytes())
        else:
            root.write(f"{into}/{source.name}" if target.endswith("/") else into, source.read_bytes())
