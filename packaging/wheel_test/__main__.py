"""Tries wheels of mfstore where nothing else is: ``make wheel-test WHEELS=dist``.

Each wheel is installed by pip, with what it requires, in each root that it fits (``runtimes.py``): a Debian with Python
and certificates, no compiler and no -dev package. There ``smoke.py`` makes one check after the other, S3 against a
radosgw of this machine by https. At last ``examples/container/Dockerfile`` is built up and run (``dockerfile.py``).

Fails if a check does, and if a wheel fits no root: nobody knows then whether it works. ``--allow-untried PATTERN`` says
of which wheels that is known and all right.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import dockerfile
import roots
from runtimes import OTHERS, Abilities, Runtime, fits, runtimes, split_untried

from tests.servers import Missing, Radosgw

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WORK = ROOT / "build" / "wheel-test"
CONTEXT = ROOT / "examples" / "container"
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
EXTRAS = "s3,metaflow"

VARIABLES = {
    "s3_untrusted": {"AWS_CA_BUNDLE": None},
    "host_bundle": {"AWS_CA_BUNDLE": AUTHORITIES},
    "hostile_configuration": {"OPENSSL_CONF": "/smoke/hostile.cnf"},
    "host_authorities": {"AWS_CA_BUNDLE": None},
}
"""Of a check, beside those of all, or in their place."""

BEFORE = {
    "host_bundle": ["update-ca-certificates"],
    "hostile_configuration": ["cp", "/smoke/hostile.cnf", "/etc/ssl/openssl.cnf"],
    "host_authorities": ["/bin/sh", "-c", "rm /venv/lib/python*/site-packages/*/cacert.pem; update-ca-certificates"],
    "others_first": ["/venv/bin/pip", "install", "-q", "--no-index", "--find-links", "/wheels", *OTHERS],
}
"""What happens to the root before a check."""

FUNCTIONS = {"host_bundle": "s3", "hostile_configuration": "s3", "host_authorities": "s3"}
"""Of ``smoke.py``, where the check has another name."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="make wheel-test", description=__doc__)
    parser.add_argument("wheels", nargs="*", type=Path, help="wheels, or folders of them (default: dist)")
    parser.add_argument("--root", action="append", metavar="NAME", help="only in these roots")
    parser.add_argument("--python", action="append", type=Path, default=[], help="also a CPython of this machine")
    parser.add_argument("--check", action="append", metavar="NAME", help="only these checks")
    parser.add_argument(
        "--allow-untried", action="append", metavar="PATTERN", default=[],
        help="of wheels that fit no root: they do not make it fail ('*musllinux*')",
    )  # fmt: skip
    chosen = parser.parse_args()
    wheels = list(all_wheels(chosen.wheels or [ROOT / "dist"]))
    if not wheels:
        sys.exit("There are no wheels: run make wheels, or say WHEELS=folder")
    try:
        roots.check()
        places = [place for place in runtimes(chosen.python) if not chosen.root or place.name in chosen.root]
        tried, failed = run(wheels, places, chosen.check)
    except (Missing, roots.Missing) as error:
        sys.exit(str(error))
    allowed, untried = split_untried([wheel.name for wheel in wheels if wheel not in tried], chosen.allow_untried)
    print(f"\n{len(tried)} wheels tried, {len(failed)} checks failed", *failed, sep="\n  ")
    for name in (*allowed, *untried):
        print(f"NOT TRIED  {name}: no root has a Python that it fits" + (", as allowed" if name in allowed else ""))
    sys.exit(bool(failed or untried) or not tried)


def all_wheels(given: list[Path]) -> Iterator[Path]:
    for path in given:
        yield from (found.resolve() for found in (sorted(path.glob("*.whl")) if path.is_dir() else [path]))


def run(wheels: list[Path], places: list[Runtime], only: list[str] | None) -> tuple[set[Path], list[str]]:
    """Which wheels were tried, and what failed."""
    tried, failed = set(), []
    with Radosgw() as server, tempfile.TemporaryDirectory(prefix="mfstore-tls-") as folder:
        tls = Path(folder)
        shutil.copy(server.ca_file, tls / "ca.pem")
        shutil.copy(server.authority.cert_file, tls / "certificate.pem")
        shutil.copy(server.authority.key_file, tls / "key.pem")
        for runtime in places:
            for wheel in wheels:
                if fits(wheel, runtime):
                    tried.add(wheel)
                    title = f"{runtime.name}, Python {runtime.abilities.python}: {wheel.name}"
                    print(f"\n{title}", flush=True)
                    failed += [f"{title}: {check}" for check in try_wheel(wheel, runtime, server, tls, only)]
    return tried, failed


def try_wheel(wheel: Path, runtime: Runtime, server: Radosgw, tls: Path, only: list[str] | None) -> list[str]:
    """Make the checks in a fresh root: the names of those that failed."""
    fetched = fetch(wheel, runtime)
    seen = {fetched: "/wheels", HERE: "/smoke", tls: "/tls", **runtime.seen}
    variables = variables_of(server)
    python = "/venv/bin/python"
    if runtime.system.foreign:
        seen[install_from_here(wheel, runtime, fetched)] = "/site"
        variables |= {"PYTHONPATH": "/site", "PYTHONPYCACHEPREFIX": "/var/cache/python", "SMOKE_STARTS": "1"}
        python = runtime.python
    failed = []
    with roots.fresh(runtime.system, seen, variables) as root:
        root.write("/usr/local/share/ca-certificates/smoke.crt", (tls / "ca.pem").read_bytes())
        if not runtime.system.foreign:
            environment = [runtime.python, "-m", "venv", "/venv"]
            pip = ["/venv/bin/pip", "install", "-q", "--no-index", "--find-links", "/wheels"]
            if not step(root, "pip install", environment, [*pip, f"/wheels/{wheel.name}[{EXTRAS}]"]):
                return ["pip install"]
        for check in runtime.checks:
            if (only and check not in only) or not known(check, wheel):
                continue
            before = [BEFORE[check]] if check in BEFORE else []
            environ = {"AWS_CA_BUNDLE": "/tls/ca.pem", **VARIABLES.get(check, {})}
            if not step(root, check, *before, *smoke(check, python), environment=environ):
                failed.append(check)
    if runtime.is_of_the_image and (not only or "image" in only):
        failed += try_image(fetched, runtime, server, tls)
    return failed


def install_from_here(wheel: Path, runtime: Runtime, fetched: Path) -> Path:
    """A folder into which pip of this machine installed for a root in which pip would take minutes, under qemu."""
    site = WORK / f"{runtime.name}-site"
    shutil.rmtree(site, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--find-links", str(fetched), "--no-compile"]
    options = ["--only-binary=:all:", "--target", str(site), *for_pip(runtime.abilities)]
    subprocess.run([*pip, *options, f"{fetched / wheel.name}[{EXTRAS}]"], check=True)
    return site


def try_image(fetched: Path, runtime: Runtime, server: Radosgw, tls: Path) -> list[str]:
    """Build the Dockerfile up and use what it makes, as tasks in a container would."""
    instructions = dockerfile.parse((CONTEXT / "Dockerfile").read_text())
    version = runtime.abilities.python
    name = dockerfile.base(instructions, {"PYTHON": version})
    if name != f"python:{version}-slim":
        raise dockerfile.NotUnderstood(f"FROM {name}: there is no root for it")
    seen = {fetched: "/wheels", HERE: "/smoke", tls: "/tls"}
    print(f" {CONTEXT.relative_to(ROOT)}/Dockerfile, {name}", flush=True)
    with tempfile.TemporaryDirectory() as folder, roots.fresh(runtime.system, seen, variables_of(server)) as root:
        context = Path(shutil.copytree(CONTEXT, Path(folder, "context")))
        shutil.copy(tls / "ca.pem", context / "certificates" / "smoke.crt")
        if not step(root, "FROM", [runtime.python, "-m", "venv", "/usr/local"]):
            return ["FROM"]
        try:
            image = dockerfile.build(instructions, context, root, {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels"})
        except RuntimeError as error:
            print(error, flush=True)
            return ["Dockerfile"]
        checks = ("installed", "s3", "flow_s3")
        return [
            f"image: {check}"
            for check in checks
            if not step(root, check, *smoke(check, "/usr/local/bin/python"), environment=image.environment)
        ]


def variables_of(server: Radosgw) -> dict[str, str]:
    """Of every program in a root: where the server is, with a bucket of its own."""
    return {
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "AWS_DEFAULT_REGION": server.region,
        "AWS_ENDPOINT_URL": server.https_url,
        "AWS_EC2_METADATA_DISABLED": "true",
        "SMOKE_BUCKET": server.create_bucket(f"smoke-{time.time_ns()}"),
        "SMOKE_CA": "/tls/ca.pem",
        "SMOKE_CERTIFICATE": "/tls/certificate.pem",
        "SMOKE_KEY": "/tls/key.pem",
    }


def smoke(check: str, python: str) -> list[list[str]]:
    """The commands of a check, which runs in a directory of its own."""
    function = FUNCTIONS.get(check, check)
    go = f"mkdir -p /work/{check} && cd /work/{check} && SMOKE_PREFIX={check} exec {python} /smoke/smoke.py {function}"
    return [["/bin/sh", "-c", go]]


def known(check: str, wheel: Path) -> bool:
    """Whether the wheel's release has what is checked. Metaflow's @pypi knows no musl."""
    if check == "pypi_steps":
        return "manylinux" in wheel.name
    needed = {"doctor": "mfstore/doctor/", "host_authorities": "mfstore/s3/aws/certificates.py"}.get(check, "mfstore/")
    with zipfile.ZipFile(wheel) as archive:
        return any(name.startswith(needed) for name in archive.namelist())


def step(
    root: roots.Root, name: str, *commands: list[str], environment: Mapping[str, str | None] | None = None
) -> bool:
    """Run commands until one fails; prints a line, or all that the one said that failed."""
    begun, said = time.monotonic(), ""
    for command in commands:
        done = root.run(command, environment)
        said = done.stdout.strip()
        if done.returncode:
            print(f"  {name:<24} FAILED\n{said}", flush=True)
            return False
    print(f"  {name:<24} ok {time.monotonic() - begun:6.1f} s  {said.splitlines()[-1] if said else ''}", flush=True)
    return True


def fetch(wheel: Path, runtime: Runtime) -> Path:
    """A folder with the wheel and all that it requires there, by this machine's pip and whatever that is set up for. In
    the root nothing is fetched."""
    kept = WORK / runtime.name
    kept.mkdir(parents=True, exist_ok=True)
    for old in kept.glob("mfstore-*"):
        old.unlink()
    shutil.copy(wheel, kept)
    pip = [sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:", "--dest", str(kept)]
    command = [*pip, *for_pip(runtime.abilities), f"{wheel}[{EXTRAS}]", *OTHERS]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise roots.Missing(f"pip could not fetch what {wheel.name} requires:\n{done.stdout}")
    return kept


def for_pip(python: Abilities) -> list[str]:
    """Which wheels ``pip download`` is to look for."""
    number = f"{python.version[0]}{python.version[1]}"
    platforms = [part for name in python.platforms for part in ("--platform", name)]
    abis = [part for name in (f"cp{number}{python.abi}", "abi3", "none") for part in ("--abi", name)]
    return ["--implementation", "cp", "--python-version", number, *abis, *platforms]


if __name__ == "__main__":
    main()
