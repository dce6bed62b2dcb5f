"""Builds the native core: Cython drivers and C kernels from src/ into mfstore/_core."""

import shutil
import subprocess
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_py import build_py

PACKAGES = {
    # pkg-config name: (Debian, Fedora, Homebrew)
    "liblz4": ("liblz4-dev", "lz4-devel", "lz4"),
    "libzstd": ("libzstd-dev", "libzstd-devel", "zstd"),
    "libxxhash": ("libxxhash-dev", "xxhash-devel", "xxhash"),
    "libcurl": ("libcurl4-openssl-dev", "libcurl-devel", "curl"),
    "libcrypto": ("libssl-dev", "openssl-devel", "openssl@3"),
}


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
    answer = subprocess.run([tool, "--cflags", "--libs", name], capture_output=True, text=True)
    if answer.returncode:
        debian, fedora, brew = PACKAGES[name]
        sys.exit(
            f"mfstore needs {name} and its headers; pkg-config does not find them.\n"
            f"  Debian, Ubuntu:  apt-get install {debian}\n"
            f"  Fedora:          dnf install {fedora}\n"
            f"  macOS:           brew install {brew}"
        )
    words = answer.stdout.split()
    return {
        "extra_compile_args": [word for word in words if not word.startswith("-l")],
        "extra_link_args": [word for word in words if word.startswith(("-l", "-L"))],
    }


def extension(name: str, *kernels: str, libraries: tuple[str, ...] = ()) -> Extension:
    compile_args = ["-O3", "-g1", "-fstack-protector-strong", "-Wall", "-Wno-unused-function"]
    link_args = []
    for library in libraries:
        found = pkg_config(library)
        compile_args += found["extra_compile_args"]
        link_args += found["extra_link_args"]
    if sys.platform == "linux":
        link_args += ["-Wl,-z,relro,-z,now"]
    return Extension(
        f"mfstore._core.{name}",
        [f"src/{name}.pyx", *(f"src/{kernel}_impl.c" for kernel in kernels)],
        include_dirs=["src"],
        depends=[str(path) for path in Path("src").iterdir() if path.suffix in (".h", ".pxd", ".pxi")],
        define_macros=[("_FORTIFY_SOURCE", "2")],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )


class BuildWithStubs(build_py):
    """Ships the .pyi of each extension beside it; src/ is where they are kept."""

    def run(self) -> None:
        super().run()
        target = Path("mfstore/_core") if self.editable_mode else Path(self.build_lib, "mfstore/_core")
        target.mkdir(parents=True, exist_ok=True)
        for stub in Path("src").glob("*.pyi"):
            shutil.copy(stub, target)


setup(
    ext_modules=cythonize(
        [
            extension("graph"),
            extension("pickler"),
            extension("chunk", "chunk"),
            extension("codec", "codec", "shuffle", libraries=("liblz4", "libzstd")),
            extension("table", "table"),
            extension("crc", "crc"),
            extension("sigv4", "sigv4", libraries=("libcrypto",)),
            extension("memory", libraries=("libxxhash",)),
            extension(
                "transfer",
                "transfer",
                "channel",
                "loop",
                "park",
                "request",
                "response",
                "sigv4",
                "crc",
                libraries=("libcurl", "libcrypto"),
            ),
        ],
        build_dir="build/cython",
        include_path=["src"],
        compiler_directives={"language_level": "3", "freethreading_compatible": True},
    ),
    cmdclass={"build_py": BuildWithStubs},
)
