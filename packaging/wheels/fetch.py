"""Brings the sources of the libraries that wheels carry (``sources.toml``), and believes only their digests.

``python packaging/wheels/fetch.py FOLDER`` unpacks all of them there.
"""

import hashlib
import shutil
import sys
import tarfile
import tomllib
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).with_name("sources.toml")
SECONDS = 60.0
"""How long a place that does not answer is waited for."""


def libraries() -> dict[str, dict[str, Any]]:
    """What ``sources.toml`` says of each library."""
    return tomllib.loads(SOURCES.read_text())


def unpack_all(archives: Path, target: Path) -> None:
    """Each library as ``target/NAME``, from archives kept in ``archives``. Exits where one can be had nowhere."""
    for name, library in libraries().items():
        archive = fetch(name, library, archives)
        where = target / name
        shutil.rmtree(where, ignore_errors=True)
        where.mkdir(parents=True)
        with tarfile.open(archive) as opened:
            opened.extractall(where, members=(inner(member) for member in opened if "/" in member.name), filter="data")


def licence(name: str, library: Mapping[str, Any], archives: Path) -> bytes:
    """The text of a library's licence."""
    with tarfile.open(fetch(name, library, archives)) as opened:
        for member in opened:
            if member.name.partition("/")[2] == library["licence_file"]:
                text = opened.extractfile(member)
                return text.read() if text else b""
    raise SystemExit(f"{name} has no {library['licence_file']}")


def inner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """The member without the archive's outermost folder, which is called differently wherever it was packed."""
    found = member.replace(name=member.name.partition("/")[2], deep=False)
    if member.islnk():
        found.linkname = member.linkname.partition("/")[2]
    return found


def fetch(name: str, library: Mapping[str, Any], archives: Path) -> Path:
    """The archive of a library, from the first place that has it."""
    archives.mkdir(parents=True, exist_ok=True)
    failures = []
    for place in library["archives"]:
        url, expected = place["url"], place["sha256"]
        kept = archives / f"{expected[:16]}-{url.rpartition('/')[2]}"
        try:
            if not kept.exists():
                with urllib.request.urlopen(url, timeout=SECONDS) as answer:
                    kept.with_suffix(".part").write_bytes(answer.read())
                kept.with_suffix(".part").rename(kept)
        except OSError as error:
            failures.append(f"{url}: {error}")
            continue
        found = hashlib.sha256(kept.read_bytes()).hexdigest()
        if found == expected:
            return kept
        kept.unlink()
        raise SystemExit(f"{url} is not what sources.toml says: SHA-256 {found}, not {expected}")
    raise SystemExit(f"{name} {library['version']} can be had nowhere:\n  " + "\n  ".join(failures))


if __name__ == "__main__":
    unpack_all(Path(sys.argv[1]) / "archives", Path(sys.argv[1]))
