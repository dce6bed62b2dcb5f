"""What a wheel that carries its libraries must be, and that each thing that is wrong with one is said."""

import importlib.util
import subprocess
import zipfile

import pytest

from mfstore._core import codec
from tests import ROOT


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check = load(ROOT / "packaging/check_wheel.py")
CARRIED = {"openssl": "3.5.7", "zstd": "1.5.7"}
NAMES = [
    "mfstore/_core/codec.pyi",
    "mfstore/_core/codec.cpython-311-x86_64-linux-gnu.so",
    "mfstore-1.dist-info/licenses/LICENSE",
    "mfstore-1.dist-info/licenses/licenses/openssl-3.5.7.txt",
    "mfstore-1.dist-info/licenses/licenses/zstd-1.5.7.txt",
]
BINARY = check.Binary(needed=("libc.so.6",), exported=("PyInit_codec",), glibc=(2, 28), searches=())
MANYLINUX, MUSLLINUX = "manylinux_2_28_x86_64", "musllinux_1_2_x86_64"


def test_nothing_is_wrong_with_a_good_one():
    assert check.wrong_with_names(NAMES, CARRIED) == []
    assert check.wrong_with_binary("codec", BINARY, MANYLINUX) == []
    tags = b"Wheel-Version: 1.0\nTag: cp311-cp311-manylinux_2_28_x86_64\n"
    assert check.wrong_with_tags(f"mfstore-1-cp311-cp311-{MANYLINUX}.whl", tags) == []


@pytest.mark.parametrize(
    ("changed", "tag", "said"),
    [
        ({"needed": ("libc.so.6", "libssl.so.3")}, MANYLINUX, "codec needs libssl.so.3"),
        ({"needed": ("libc.musl-x86_64.so.1",)}, MANYLINUX, "codec needs libc.musl-x86_64.so.1"),
        ({"exported": ("PyInit_codec", "SSL_new")}, MANYLINUX, "codec exports SSL_new"),
        ({"glibc": (2, 29)}, MANYLINUX, "codec wants glibc 2.29"),
        ({"glibc": (2, 17)}, MUSLLINUX, "codec wants glibc"),
        ({"searches": ("/opt/lib",)}, MANYLINUX, "codec has libraries looked for in /opt/lib"),
    ],
)
def test_what_is_wrong_with_an_extension(changed, tag, said):
    from dataclasses import replace

    assert check.wrong_with_binary("codec", replace(BINARY, **changed), tag) == [said]


@pytest.mark.parametrize(
    ("without", "added", "said"),
    [
        (NAMES[1], None, "there is no extension codec"),
        (NAMES[2], None, "there is no licence LICENSE"),
        (NAMES[3], None, "there is no licence openssl-3.5.7.txt"),
        (None, "mfstore.libs/libcurl-1f2e.so.4", "mfstore.libs/libcurl-1f2e.so.4 is no extension of mfstore"),
    ],
)
def test_what_is_wrong_with_what_lies_in_it(without, added, said):
    names = [name for name in NAMES if name != without] + ([added] if added else [])
    assert check.wrong_with_names(names, CARRIED) == [said]


def test_a_name_that_says_something_else():
    (wrong,) = check.wrong_with_tags(f"mfstore-1-cp311-cp311-{MANYLINUX}.whl", b"Tag: cp311-cp311-linux_x86_64\n")
    assert "its name says" in wrong
    (wrong,) = check.wrong_with_tags("mfstore-1-cp311-cp311-linux_x86_64.whl", b"Tag: cp311-cp311-linux_x86_64\n")
    assert "nothing of which systems" in wrong


def test_paths_of_the_machine_that_built_it():
    assert check.wrong_with_content("x.so", b"\0/opt/mine/src/x.c\0", ["/opt/mine/"]) == ["x.so names /opt/mine/"]
    assert check.wrong_with_content("x.so", b"\0src/x.c\0", ["/opt/mine/"]) == []


def test_an_extension_that_was_built_against_the_systems_libraries(tmp_path):
    command = ["readelf", "-dVW", "--dyn-syms", codec.__file__]
    found = check.read_binary(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert any(name.startswith("libzstd") for name in found.needed)
    assert "PyInit_codec" in found.exported
    assert found.glibc > (2, 0)
    wheel = tmp_path / f"mfstore-1-cp311-cp311-{MANYLINUX}.whl"
    with zipfile.ZipFile(wheel, "w") as made:
        made.writestr("mfstore-1.dist-info/WHEEL", f"Tag: cp311-cp311-{MANYLINUX}\n")
        made.write(codec.__file__, NAMES[1])
    wrong = check.wrong_with(wheel, [])
    assert any("needs libzstd" in line for line in wrong)
    assert any("no licence" in line for line in wrong)
