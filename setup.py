"""Builds the native core: Cython drivers and C kernels from src/ into mfstore/_core (src/README.md)."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

SOURCES = Path("src")

PACKAGES = {
    # pkg-config name: (Debian, Fedora, Homebrew)
    "liblz4": ("liblz4-dev", "lz4-devel", "lz4"),
    "libzstd": ("libzstd-dev", "libzstd-devel", "zstd"),
    "libxxhash": ("libxxhash-dev", "xxhash-devel", "xxhash"),
    "libcurl": ("libcurl4-openssl-dev", "libcurl-devel", "curl"),
    "libcrypto": ("libssl-dev", "openssl-devel", "openssl@3"),
    "libssl": ("libssl-dev", "openssl-devel", "openssl@3"),
}

MINIMUM = {
    # Its parser of URLs (curl_url) came with this version.
    "libcurl": ("7.62.0", "Debian 10, Ubuntu 20.04, Fedora 30"),
    # A connection that ends without close_notify is an error of its own since this version.
    "libssl": ("3.0.0", "Debian 12, Ubuntu 22.04, Fedora 36"),
    # References to a prefix, for deltas, came with this version.
    "libzstd": ("1.4.0", "Debian 11, Ubuntu 20.04, Fedora 30"),
    # XXH3 got its final values in this version; those of earlier ones would not check what others have stored.
    "libxxhash": ("0.8.0", "Debian 11, Ubuntu 22.04, Fedora 33"),
}
"""The oldest version that will do, and the oldest systems that have it."""

STATIC = os.environ.get("MFSTORE_STATIC") == "1"
"""The libraries that pkg-config finds are archives, and become part of the extensions: of wheels (packaging/wheels)."""

EXPORT_NOTHING = (
    ["-Wl,-exported_symbol,_PyInit_*", "-Wl,-dead_strip"]
    if sys.platform == "darwin"
    else [f"-Wl,--version-script={SOURCES}/exports.map", "-Wl,--gc-sections", "-pthread"]
)
"""But the one function that Python calls; and what is called by nothing is left out."""


def pkg_config(name: str) -> dict[str, list[str]]:
    """Compiler and linker arguments of one library, or exit with what to install."""
    tool = shutil.which("pkg-config")
    if tool is None:
        sys.exit(
            "mfstore needs pkg-config to find its libraries.\n"
            "  Debian, Ubuntu:  apt-get install pkg-config\n"
            "  Fedora:          dnf install pkgconf-pkg-config\n"
            "  macOS:           brew install pkg-config"
        )
    needed, systems = MINIMUM.get(name, ("0", ""))
    wanted = ["--cflags", "--libs", *(["--static"] if STATIC else [])]
    answer = subprocess.run([tool, *wanted, f"{name} >= {needed}"], capture_output=True, text=True)
    if answer.returncode:
        debian, fedora, brew = PACKAGES[name]
        found = subprocess.run([tool, "--modversion", name], capture_output=True, text=True)
        if found.returncode:
            problem = f"mfstore needs {name} and its headers; pkg-config does not find them."
            where = ""
        else:
            problem = f"mfstore needs {name} {needed} or newer; pkg-config finds {found.stdout.strip()}."
            where = (
                f"\nThese and newer systems have it: {systems}. Elsewhere build it from source,\n"
                "and name the folder of its .pc file in PKG_CONFIG_PATH."
            )
        sys.exit(
            f"{problem}\n"
            f"  Debian, Ubuntu:  apt-get install {debian}\n"
            f"  Fedora:          dnf install {fedora}\n"
            f"  macOS:           brew install {brew}{where}"
        )
    words = answer.stdout.split()
    return {
        "extra_compile_args": [word for word in words if not word.startswith("-l")],
        "extra_link_args": [word for word in words if word.startswith(("-l", "-L"))],
    }


def extension(driver: str, *kernels: str, libraries: tuple[str, ...] = ()) -> Extension:
    """mfstore._core.NAME from src/ROOM/NAME.pyx, the ``driver``, and its kernels, all named without suffix."""
    compile_args = ["-O3", "-g1", "-fstack-protector-strong", "-Wall", "-Wno-unused-function"]
    link_args = []
    for library in libraries:
        found = pkg_config(library)
        compile_args += found["extra_compile_args"]
        link_args += found["extra_link_args"]
    if sys.platform == "linux":
        link_args += ["-Wl,-z,relro,-z,now"]
    if STATIC:
        # What another library of the process calls alike, its OpenSSL for one, is never ours, nor ours its.
        compile_args += ["-fvisibility=hidden"]
        link_args += EXPORT_NOTHING
    return Extension(
        f"mfstore._core.{driver.rpartition('/')[2]}",
        [f"{SOURCES}/{driver}.pyx", *(f"{SOURCES}/{kernel}.c" for kernel in kernels)],
        include_dirs=[str(SOURCES)],
        depends=[str(path) for path in sorted(SOURCES.rglob("*")) if path.suffix in (".h", ".pxd")],
        define_macros=[("_FORTIFY_SOURCE", "2"), *([("MFSTORE_STATIC", "1")] if STATIC else [])],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )


class BuildAtOnce(build_ext):
    """Compiles as many extensions at a time as there are cores, which takes half of the time on two."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()


class BuildWithStubs(build_py):
    """Ships the .pyi of each extension beside it; src/ is where they are kept."""

    def run(self) -> None:
        super().run()
        target = Path("mfstore/_core") if self.editable_mode else Path(self.build_lib, "mfstore/_core")
        target.mkdir(parents=True, exist_ok=True)
        for stub in SOURCES.rglob("*.pyi"):
            shutil.copy(stub, target)


setup(
    ext_modules=cythonize(
        [
            extension("pickle/cycles"),
            extension("pickle/graph", "pickle/memo", "pickle/stack"),
            extension("pickle/pickler", "pickle/memo", "pickle/stack", "memory/utf8", libraries=("libxxhash",)),
            extension("pickle/unpickler", "pickle/scan", "memory/utf8"),
            extension("chunk/chunk", "chunk/cuts"),
            extension(
                "codec/codec",
                "codec/blocks",
                "codec/compress",
                "codec/delta",
                "codec/difference",
                "codec/entropy",
                "codec/group",
                "codec/likeness",
                "codec/literals",
                "codec/planes",
                "codec/search",
                "codec/shuffle",
                "codec/sparse",
                "origin/loaded",
                libraries=("liblz4", "libzstd", "libxxhash"),
            ),
            extension("table/table", "table/lookup"),
            extension("crc/crc", "crc/checksum"),
            extension("sigv4/sigv4", "sigv4/signature", libraries=("libcrypto",)),
            extension("memory/memory", "memory/utf8", "origin/loaded", libraries=("libxxhash",)),
            extension("recipe/literal", "recipe/records", libraries=("libxxhash",)),
            extension("files/descriptor", "files/plain"),
            extension("files/reading", "files/whole"),
            extension("files/writing", "files/fresh", "files/plain"),
            extension(
                "http/transfer",
                "http/engine",
                "http/loop",
                "http/pool",
                "http/connection",
                "http/google",
                "http/parser",
                "http/request",
                "http/response",
                "http/channel",
                "http/dial",
                "http/link",
                "http/pace",
                "http/plain",
                "http/poller",
                "http/tls",
                "http/wake",
                "http/park",
                "sigv4/signature",
                "crc/checksum",
                "origin/loaded",
                libraries=("libcurl", "libssl", "libcrypto"),
            ),
        ],
        build_dir="build/cython",
        include_path=[str(SOURCES / "origin")],  # of declarations that several rooms use
        # Not freethreading_compatible: docs/decisions/105-no-claim-without-a-run.md.
        compiler_directives={"language_level": "3"},
    ),
    cmdclass={"build_ext": BuildAtOnce, "build_py": BuildWithStubs},
)
