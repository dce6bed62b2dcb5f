"""Says what is wrong with wheels that carry their libraries: ``python packaging/check_wheel.py WHEEL...``.

Needs readelf (binutils). Of wheels for macOS only names, size and licences are looked at.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from dataclasses import dataclass
from email.parser import BytesParser
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "packaging/wheels/sources.toml"
LARGEST = 6_000_000
OF_THE_SYSTEM = re.compile(r"lib(c|m|pthread|dl|rt)\.so(\.\d+)?|ld-linux-(x86-64|aarch64)\.so\.\d")
"""What each Linux has, and no other shared library may be asked for."""
EXPORTED = re.compile(r"PyInit_\w+")


@dataclass(frozen=True)
class Binary:
    """What an extension asks of the system, and what it shows to the process."""

    needed: tuple[str, ...]
    exported: tuple[str, ...]
    glibc: tuple[int, int]
    """The newest version of which it wants a symbol; (0, 0): it wants none."""
    searches: tuple[str, ...]
    """Folders in which it has libraries looked for."""


def read_binary(text: str) -> Binary:
    """What ``readelf -dVW --dyn-syms`` says."""
    symbols = re.findall(r"^ +\d+: [0-9a-f]+ +\S+ +\w+ +(?:GLOBAL|WEAK) +\w+ +(\w+) +([^\s@]+)", text, re.MULTILINE)
    versions = re.findall(r"\bName: GLIBC_(\d+)\.(\d+)", text)
    return Binary(
        needed=tuple(re.findall(r"\(NEEDED\).*\[(.*)\]", text)),
        exported=tuple(name for section, name in symbols if section != "UND"),
        glibc=max(((int(major), int(minor)) for major, minor in versions), default=(0, 0)),
        searches=tuple(re.findall(r"\((?:RPATH|RUNPATH)\).*\[(.*)\]", text)),
    )


def wrong_with_binary(name: str, found: Binary, tag: str) -> list[str]:
    """Of one extension in a wheel with the platform ``tag``."""
    wrong = [f"{name} needs {library}" for library in found.needed if not OF_THE_SYSTEM.fullmatch(library)]
    wrong += [f"{name} exports {symbol}" for symbol in found.exported if not EXPORTED.fullmatch(symbol)]
    wrong += [f"{name} has libraries looked for in {where}" for where in found.searches]
    allowed = re.match(r"manylinux_(\d+)_(\d+)_", tag)
    if allowed and found.glibc > (int(allowed[1]), int(allowed[2])):
        wrong.append(f"{name} wants glibc {found.glibc[0]}.{found.glibc[1]}")
    if tag.startswith("musllinux") and found.glibc > (0, 0):
        wrong.append(f"{name} wants glibc")
    return wrong


def wrong_with_names(names: list[str], carried: dict[str, str]) -> list[str]:
    """Of what lies in the wheel. ``carried``: the version of each library that it carries."""
    extensions = {re.sub(r"\..*", "", Path(name).name) for name in names if name.endswith(".so")}
    stubs = {Path(name).stem for name in names if re.fullmatch(r"mfstore/_core/\w+\.pyi", name)}
    licences = {name.rpartition("/")[2] for name in names if ".dist-info/licenses/" in name}
    wanted = {"LICENSE", *(f"{library}-{version}.txt" for library, version in carried.items())}
    wrong = [f"there is no extension {name}" for name in sorted(stubs - extensions)]
    wrong += [f"there is no licence {name}" for name in sorted(wanted - licences)]
    return wrong + [
        f"{name} is no extension of mfstore"
        for name in names
        if re.search(r"\.(so|dylib)(\.|$)", name) and not name.startswith("mfstore/_core/")
    ]


def wrong_with_content(name: str, content: bytes, paths: list[str]) -> list[str]:
    """``paths``: of the machine that built it, which nobody else has."""
    return [f"{name} names {path}" for path in paths if path.encode() in content]


def wrong_with_tags(wheel: str, metadata: bytes) -> list[str]:
    """Of the name, which says of the machine what the wheel itself says (``WHEEL`` in its dist-info)."""
    python, abi, platforms = wheel.removesuffix(".whl").split("-")[-3:]
    said = set(BytesParser().parsebytes(metadata).get_all("Tag", []))
    wanted = {f"{python}-{abi}-{platform}" for platform in platforms.split(".")}
    wrong = [] if said == wanted else [f"its name says {sorted(wanted)}, and inside it is {sorted(said)}"]
    if re.match(r"(linux|any)", platforms):
        wrong.append(f"{platforms} says nothing of which systems it runs on")
    return wrong


def wrong_with(wheel: Path, paths: list[str]) -> list[str]:
    """All that is wrong with a wheel. ``paths`` of the machine that built it may stand nowhere in it."""
    size = wheel.stat().st_size
    wrong = [f"it has {size / 1e6:.1f} MB, more than {LARGEST / 1e6:.0f}"] if size > LARGEST else []
    carried = {name: library["version"] for name, library in tomllib.loads(SOURCES.read_text()).items()}
    tag = wheel.stem.rpartition("-")[2]
    with zipfile.ZipFile(wheel) as opened, tempfile.TemporaryDirectory() as folder:
        names = opened.namelist()
        wrong += wrong_with_names(names, carried)
        wrong += wrong_with_tags(wheel.name, opened.read(next(n for n in names if n.endswith(".dist-info/WHEEL"))))
        for name in names:
            wrong += wrong_with_content(name, opened.read(name), paths)
            if name.endswith(".so") and "linux" in tag:
                command = ["readelf", "-dVW", "--dyn-syms", opened.extract(name, folder)]
                said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                wrong += wrong_with_binary(Path(name).name, read_binary(said), tag)
    return wrong


def main() -> None:
    failed = False
    for wheel in map(Path, sys.argv[1:]):
        wrong = wrong_with(wheel, [f"{ROOT}/", f"{Path.home()}/"])
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB" + "".join(f"\n  {line}" for line in wrong))
        failed = failed or bool(wrong)
    sys.exit(failed)


if __name__ == "__main__":
    main()
