"""A Python that compiles extensions for another machine: itself, with another answer to how it was built."""

import json
import pprint
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from targets import ARCHIVER, COMPILER, Target

NAME = "_sysconfigdata_mfstore"
ASK = """
import importlib, json, sys, sysconfig
known = importlib.import_module(sysconfig._get_sysconfigdata_name()).build_time_vars
tag = f"{sys.version_info[0]}{sys.version_info[1]}{sys.abiflags}"
print(json.dumps({"version": sys.version, "tag": tag, "known": known}))
"""


@dataclass(frozen=True)
class Interpreter:
    """A CPython of this machine."""

    program: Path
    version: str
    tag: str
    """313, or 313t where it has no GIL."""
    known: dict[str, Any]
    """What its build left behind (sysconfig)."""

    @classmethod
    def ask(cls, program: Path) -> "Interpreter":
        """What it says of itself. Raises CalledProcessError if it does not run."""
        answer = subprocess.run([program, "-c", ASK], capture_output=True, text=True, check=True)
        said = json.loads(answer.stdout)
        return cls(program, said["version"], said["tag"], said["known"])

    def write_build_data(self, where: Path, target: Target) -> dict[str, str]:
        """The environment in which it builds for ``target`` with what is written into ``where``.

        Its own pyconfig.h will do: what differs in it between 64-bit Linux machines is read by CPython itself, not by
        its public headers.
        """
        suffix = f"cpython-{self.tag}-{target.triplet}"
        data = self.known | {
            "AR": ARCHIVER,
            "ARFLAGS": "rcs",
            "CC": COMPILER,
            "CCSHARED": "-fPIC",
            "CFLAGS": f"-I{self.copy_configuration(where / 'include', target)} -fwrapv -DNDEBUG -O3 -Wall",
            "CXX": COMPILER,
            "EXT_SUFFIX": f".{suffix}.so",
            "LDCXXSHARED": f"{COMPILER} -shared",
            "LDFLAGS": "-Wl,-s",
            "LDSHARED": f"{COMPILER} -shared -Wl,-s",
            "MULTIARCH": target.triplet,
            "OPT": "-DNDEBUG -O3 -Wall",
            "Py_ENABLE_SHARED": 0,  # else libraries are looked for beside libpython first: the system's
            "SOABI": suffix,
        }
        where.mkdir(parents=True, exist_ok=True)
        (where / f"{NAME}.py").write_text(f"build_time_vars = {pprint.pformat(data)}\n")
        return {
            "PYTHONPATH": str(where),
            "_PYTHON_SYSCONFIGDATA_NAME": NAME,
            # Names the folders in which objects lie, too: one for each target.
            "_PYTHON_HOST_PLATFORM": target.tag.replace("_", "-"),
        }

    def copy_configuration(self, where: Path, target: Target) -> Path:
        """``where``, with a pyconfig.h if this is a Debian's Python: its own one includes that of each processor from
        where only the system's compiler looks, and only this machine's is installed."""
        headers = Path(self.known["INCLUDEPY"])
        real = headers.parent / self.known.get("MULTIARCH", "") / headers.name / "pyconfig.h"
        into = where / target.triplet.replace("-musl", "-gnu") / headers.name
        into.mkdir(parents=True, exist_ok=True)
        if real.exists():
            shutil.copy(real, into)
        return where
