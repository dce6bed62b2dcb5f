"""The kinds of machines that wheels are built for, and how zig and each library call them."""

import shlex
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Target:
    """One kind of machine."""

    tag: str
    """As the wheel's name has it."""
    zig: str
    """With the oldest glibc that it shall run with, which is where manylinux has its number from."""
    openssl: str
    triplet: str
    """As autoconf has it and, in the names of extensions, Python."""

    def write_tools(self, where: Path, zig: Path, root: Path) -> None:
        """Compiler and archiver as programs in ``where``. ``root`` is said in none of what they make.

        OpenSSL writes down how it was compiled: so what is of this machine stands in the program, not in its arguments.
        """
        where.mkdir(parents=True, exist_ok=True)
        run = f"#!/bin/sh\nexec {shlex.quote(str(zig))}"
        # zig's clang traps on undefined behaviour by itself where nothing else is said.
        compile_with = f"cc -target {self.zig} -fno-sanitize=undefined {shlex.quote(f'-ffile-prefix-map={root}=.')}"
        for name, command in ((COMPILER, compile_with), (ARCHIVER, "ar"), (INDEXER, "ranlib")):
            program = where / name
            text = f'{run} {command} "$@"\n'
            if not program.exists() or program.read_text() != text:
                program.write_text(text)
                program.chmod(0o755)


COMPILER, ARCHIVER, INDEXER = "mf-cc", "mf-ar", "mf-ranlib"

TARGETS = {
    target.tag: target
    for target in (
        Target("manylinux_2_28_x86_64", "x86_64-linux-gnu.2.28", "linux-x86_64", "x86_64-linux-gnu"),
        Target("manylinux_2_28_aarch64", "aarch64-linux-gnu.2.28", "linux-aarch64", "aarch64-linux-gnu"),
        Target("musllinux_1_2_x86_64", "x86_64-linux-musl", "linux-x86_64", "x86_64-linux-musl"),
    )
}
