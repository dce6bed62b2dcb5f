"""What results say of the machine that they were measured on."""

import os
import platform
from importlib.metadata import version

from mfstore.bench.host import host
from mfstore.host.file_systems import file_system


def test_machine_and_libraries_without_a_name(tmp_path):
    found = host(tmp_path)
    assert set(found) == {
        "cpu", "cores", "usable_cpus", "memory", "kernel", "machine", "cgroup", "file_system", "python", "libraries",
    }  # fmt: skip
    assert found["cores"] == os.cpu_count() and 1 <= found["usable_cpus"] <= found["cores"]
    assert found["memory"] > 1 << 28 and found["kernel"] == f"{platform.system()} {platform.release()}"
    assert set(found["cgroup"]) == {"cpus", "memory"} and found["file_system"] == file_system(str(tmp_path))
    libraries = found["libraries"]
    assert {name: libraries[name] for name in ("mfstore", "botocore")} == {
        name: version(name) for name in ("mfstore", "botocore")
    }
    assert {"liblz4", "libzstd", "libxxhash", "libcurl", "libcrypto", "libssl"} <= set(libraries)
    assert host()["file_system"] is None
