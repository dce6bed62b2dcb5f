"""Builds wheels of mfstore that carry their libraries, for the machines in ``targets.py``: ``make wheels``.

Everything lies below ``build/wheels``. What was built from the same files is not built again.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import fetch
from interpreter import Interpreter
from targets import ARCHIVER, COMPILER, INDEXER, TARGETS, Target
from workplace import HERE, ROOT, VERSIONS, WORK, digest, environment, found, is_built

FILES = (
    "LICENSE",
    "MANIFEST.in",
    "README.md",
    "metaflow_extensions",
    "mfstore",
    "pyproject.toml",
    "setup.py",
    "src",
)
HOW = [HERE / name for name in ("build.py", "interpreter.py", "requirements.txt", "targets.py")]
"""What decides how files are compiled, beside setup.py."""

BUILD = """
import sys
from setuptools import build_meta
print(build_meta.build_wheel(sys.argv[1], {"--build-option": ["--plat-name=" + sys.argv[2]]}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", action="append", choices=TARGETS, help="what to build for (default: all)")
    parser.add_argument("--python", action="append", type=Path, help="a CPython to build with (default: those found)")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="where wheels go (default: dist)")
    chosen = parser.parse_args()
    interpreters = [Interpreter.ask(python) for python in chosen.python or found()]
    if not interpreters:
        sys.exit(f"No CPython was found of {', '.join(VERSIONS)}: name one with --python")
    chosen.output.mkdir(parents=True, exist_ok=True)
    zig = environment(sys.executable, "zig", ["ziglang"])
    zig = next(zig.glob("lib/python*/site-packages/ziglang/zig"))
    source = copy_source()
    for target in [TARGETS[tag] for tag in chosen.target or TARGETS]:
        prefix = libraries(target, zig)
        for interpreter in interpreters:
            wheel = build(target, interpreter, source, prefix, chosen.output)
            subprocess.run([sys.executable, HERE.parent / "check_wheel.py", wheel], check=True)


# Libraries ------------------------------------------------------------------------------------------------------------


def libraries(target: Target, zig: Path) -> Path:
    """The folder with the static libraries for ``target``, built if they are not there."""
    where = WORK / target.tag
    prefix, stamp = where / "prefix", where / "stamp"
    target.write_tools(where / "bin", zig, WORK)
    expected = digest([HERE / "libraries.sh", fetch.SOURCES, where / "bin" / COMPILER, HERE / "requirements.txt"])
    if not is_built(stamp, expected):
        print(f"Libraries for {target.tag}", flush=True)
        shutil.rmtree(prefix, ignore_errors=True)
        fetch.unpack_all(WORK / "archives", where / "sources")
        environ = os.environ | tools(target)
        command = [HERE / "libraries.sh", target.openssl, target.triplet, where / "sources", prefix]
        subprocess.run(command, env=environ, check=True)
        stamp.write_text(expected)
    return prefix


def tools(target: Target) -> dict[str, str]:
    path = f"{WORK / target.tag / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "CC": COMPILER, "AR": ARCHIVER, "RANLIB": INDEXER}


# Wheels ---------------------------------------------------------------------------------------------------------------


def copy_source() -> Path:
    """What a wheel is built from, without what else lies in the clone, and with the licences of what it will carry."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *FILES]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    files = {name: (ROOT / name).read_bytes() for name in names if name and (ROOT / name).is_file()}
    files |= licences()
    files["pyproject.toml"] = with_licences(files["pyproject.toml"].decode(), fetch.libraries()).encode()
    target = WORK / "source"
    compiled, stamp = target / "build", target / "build/stamp"
    how = digest([ROOT / "setup.py", *HOW])
    if not is_built(stamp, how):  # setuptools compiles what is newer than its object, whatever the arguments were
        shutil.rmtree(compiled, ignore_errors=True)
        compiled.mkdir(parents=True)
        stamp.write_text(how)
    for path in target.rglob("*") if target.exists() else ():
        name = str(path.relative_to(target))
        if path.is_file() and name not in files and not name.startswith("build/"):
            path.unlink()
    for name, content in files.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_bytes() != content:  # the time of what is the same stays: it is not compiled
            path.write_bytes(content)
    return target


def licences() -> dict[str, bytes]:
    """The licence of each library, by the name that it has in the wheel's folder of licences."""
    return {
        f"licenses/{name}-{library['version']}.txt": fetch.licence(name, library, WORK / "archives")
        for name, library in fetch.libraries().items()
    }


def with_licences(pyproject: str, carried: Mapping[str, Mapping[str, str]]) -> str:
    """``pyproject.toml`` of what carries libraries: under their licences too."""
    names = " AND ".join(sorted({"Apache-2.0", *(library["licence"] for library in carried.values())}))
    for old, new in (
        ('license = "Apache-2.0"', f'license = "{names}"'),
        ('license-files = ["LICENSE"]', 'license-files = ["LICENSE", "licenses/*"]'),
    ):
        if pyproject.count(f"\n{old}\n") != 1:
            raise SystemExit(f"pyproject.toml has no line {old}")
        pyproject = pyproject.replace(f"\n{old}\n", f"\n{new}\n")
    return pyproject


def build(target: Target, interpreter: Interpreter, source: Path, prefix: Path, output: Path) -> Path:
    """The wheel for one CPython on one kind of machine."""
    name = f"cp{interpreter.tag}"
    stamp = WORK / target.tag / f"{name}.stamp"
    inputs = [source / name for name in (*FILES, "licenses")]
    expected = digest([*inputs, *HOW, prefix.parent / "stamp"], interpreter.version)
    kept = WORK / target.tag / name
    if not is_built(stamp, expected):
        print(f"Wheel for {name} on {target.tag}", flush=True)
        python = environment(interpreter.program, name, ["Cython", "setuptools"]) / "bin/python"
        forget_copies(source)
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        ours = {key: value for key, value in os.environ.items() if key not in ("CFLAGS", "CPPFLAGS", "LDFLAGS")}
        environ = ours | tools(target) | interpreter.write_build_data(WORK / target.tag / f"{name}-data", target)
        environ |= {
            "MFSTORE_STATIC": "1",
            "PKG_CONFIG_LIBDIR": str(prefix / "lib/pkgconfig"),
            "PKG_CONFIG_PATH": "",
            "SOURCE_DATE_EPOCH": time_of_source(),
        }
        log = WORK / target.tag / f"{name}.log"
        with log.open("w") as to:
            command = [python, "-c", BUILD, kept, target.tag]
            done = subprocess.run(command, cwd=source, env=environ, stdout=to, stderr=subprocess.STDOUT)
        if done.returncode:
            sys.exit(log.read_text()[-4000:] + f"\nThe whole log is {log}")
        stamp.write_text(expected)
    (wheel,) = kept.glob("*.whl")
    return Path(shutil.copy(wheel, output))


def forget_copies(source: Path) -> None:
    """Modules that setuptools copied for an earlier wheel: it would put them into this one, were they gone by now."""
    for path in source.glob("build/lib*/**/*"):
        if path.is_file() and path.suffix != ".so":
            path.unlink()


def time_of_source() -> str:
    asked = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True)
    return os.environ.get("SOURCE_DATE_EPOCH") or asked.stdout.strip() or "1700000000"


if __name__ == "__main__":
    main()
