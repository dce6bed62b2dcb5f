"""How wheels are built: what is believed of sources, and what an interpreter is told of the machine it builds for."""

import hashlib
import io
import subprocess
import sys
import tarfile

import pytest

from tests import ROOT

FOLDER = ROOT / "packaging/wheels"


@pytest.fixture(scope="module")
def modules():
    """Those of packaging/wheels, which import each other as scripts of one folder do."""
    import importlib

    names = ("targets", "fetch", "interpreter", "workplace", "build")
    sys.path.insert(0, str(FOLDER))
    try:
        loaded = {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(FOLDER))
        for name in names:
            sys.modules.pop(name, None)
    return loaded


@pytest.fixture
def archive(tmp_path):
    """A library as it is released, all of it in one folder."""
    made = tmp_path / "released.tar.gz"
    with tarfile.open(made, "w:gz") as to:
        for name, text in (("lib-1/LICENSE", b"free"), ("lib-1/src/lib.c", b"int lib;")):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            to.addfile(member, io.BytesIO(text))
    return made


def library(*places, digest=None):
    archives = [
        {"url": place.as_uri(), "sha256": digest or hashlib.sha256(place.read_bytes()).hexdigest()} for place in places
    ]
    return {"version": "1", "licence_file": "LICENSE", "archives": archives}


class TestSources:
    def test_each_is_unpacked_without_its_folder(self, modules, archive, tmp_path, monkeypatch):
        monkeypatch.setattr(modules["fetch"], "libraries", lambda: {"lib": library(archive)})
        modules["fetch"].unpack_all(tmp_path / "kept", tmp_path / "out")
        assert (tmp_path / "out/lib/src/lib.c").read_bytes() == b"int lib;"

    def test_what_was_fetched_is_kept(self, modules, archive, tmp_path):
        wanted = library(archive)
        first = modules["fetch"].fetch("lib", wanted, tmp_path / "kept")
        archive.unlink()
        assert modules["fetch"].fetch("lib", wanted, tmp_path / "kept") == first

    def test_another_digest_is_refused_and_not_kept(self, modules, archive, tmp_path):
        wanted = library(archive, digest="0" * 64)
        for _ in range(2):
            with pytest.raises(SystemExit, match="is not what sources.toml says"):
                modules["fetch"].fetch("lib", wanted, tmp_path / "kept")
        assert list((tmp_path / "kept").iterdir()) == []

    def test_the_second_place(self, modules, archive, tmp_path):
        wanted = library(archive, archive)
        wanted["archives"][0]["url"] = (tmp_path / "gone.tar.gz").as_uri()
        assert modules["fetch"].fetch("lib", wanted, tmp_path / "kept").exists()

    def test_no_place(self, modules, archive, tmp_path):
        wanted = library(archive)
        archive.unlink()
        with pytest.raises(SystemExit, match="can be had nowhere"):
            modules["fetch"].fetch("lib", wanted, tmp_path / "kept")

    def test_the_licence(self, modules, archive, tmp_path):
        assert modules["fetch"].licence("lib", library(archive), tmp_path / "kept") == b"free"

    def test_each_library_is_pinned(self, modules):
        for name, found in modules["fetch"].libraries().items():
            assert len(found["archives"]) == 2, name
            assert all(len(place["sha256"]) == 64 for place in found["archives"]), name
            assert found["version"] in found["archives"][0]["url"].replace("_", "."), name

    @pytest.mark.parametrize("name", ["openssl", "curl", "zstd", "lz4", "xxhash"])
    def test_the_script_reads_the_same_versions(self, modules, name):
        script = (FOLDER / "libraries.sh").read_text()
        function = script[script.index("version() {") : script.index("small_ones() {")]
        command = ["bash", "-c", f"{function}\nversion {name}", FOLDER / "libraries.sh"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        assert said == modules["fetch"].libraries()[name]["version"]


def test_the_licences_of_a_wheel(modules):
    build = modules["build"]
    pyproject = build.with_licences((ROOT / "pyproject.toml").read_text(), modules["fetch"].libraries())
    assert 'license = "Apache-2.0 AND BSD-2-Clause AND BSD-3-Clause AND curl"' in pyproject
    assert 'license-files = ["LICENSE", "licenses/*"]' in pyproject
    with pytest.raises(SystemExit, match="no line license"):
        build.with_licences("[project]\n", {})


def test_a_digest_of_what_is_built_from(modules, tmp_path):
    digest = modules["workplace"].digest
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.c").write_text("a")
    before = digest([tmp_path / "src"], "3.11")
    assert digest([tmp_path / "src"], "3.12") != before
    (tmp_path / "src/__pycache__").mkdir()
    (tmp_path / "src/__pycache__/a.pyc").write_text("x")
    assert digest([tmp_path / "src"], "3.11") == before
    (tmp_path / "src/a.c").write_text("b")
    assert digest([tmp_path / "src"], "3.11") != before


@pytest.mark.parametrize(
    ("tag", "suffix"),
    [
        ("manylinux_2_28_aarch64", "aarch64-linux-gnu.so"),
        ("musllinux_1_2_x86_64", "x86_64-linux-musl.so"),
    ],
)
def test_an_interpreter_builds_for_another_machine(modules, tmp_path, tag, suffix):
    """What setuptools asks for is what the target has, and the compiler is the target's."""
    own = modules["interpreter"].Interpreter.ask(sys.executable)
    environ = own.write_build_data(tmp_path, modules["targets"].TARGETS[tag])
    code = "import sysconfig; print(sysconfig.get_config_var('EXT_SUFFIX'), sysconfig.get_config_var('CC'))"
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    version = f"{sys.version_info[0]}{sys.version_info[1]}"
    assert done.stdout.split() == [f".cpython-{version}-{suffix}", "mf-cc"]


@pytest.mark.parametrize(
    ("tag", "folder"),
    [("manylinux_2_28_aarch64", "aarch64-linux-gnu"), ("musllinux_1_2_x86_64", "x86_64-linux-gnu")],
)
def test_the_configuration_of_a_debian_is_found_for_each_processor(modules, tmp_path, tag, folder):
    """Debian's pyconfig.h includes <PROCESSOR-linux-gnu/python3.14/pyconfig.h>, and has but its own processor's."""
    real = tmp_path / "usr/include/x86_64-linux-gnu/python3.14/pyconfig.h"
    real.parent.mkdir(parents=True)
    real.write_text("#define HERE 1\n")
    known = {"INCLUDEPY": str(tmp_path / "usr/include/python3.14"), "MULTIARCH": "x86_64-linux-gnu"}
    known |= {"LIBDIR": "/usr/lib/x86_64-linux-gnu", "Py_ENABLE_SHARED": 1}
    debian = modules["interpreter"].Interpreter(tmp_path / "python3.14", "3.14", "314", known)
    debian.write_build_data(tmp_path / "data", modules["targets"].TARGETS[tag])
    assert (tmp_path / "data/include" / folder / "python3.14/pyconfig.h").read_text() == real.read_text()
    said = (tmp_path / "data/_sysconfigdata_mfstore.py").read_text()
    assert f"-I{tmp_path}/data/include " in said
    assert "'Py_ENABLE_SHARED': 0" in said  # or setuptools names LIBDIR before where our own libraries are


def test_tools_say_nothing_of_this_machine(modules, tmp_path):
    """OpenSSL writes its compiler's arguments into the library: they stand in a program instead."""
    target = modules["targets"].TARGETS["manylinux_2_28_x86_64"]
    target.write_tools(tmp_path / "bin", tmp_path / "zig", tmp_path)
    text = (tmp_path / "bin/mf-cc").read_text()
    assert f"-ffile-prefix-map={tmp_path}=." in text and "-target x86_64-linux-gnu.2.28" in text
    assert all(program.stat().st_mode & 0o111 for program in (tmp_path / "bin").iterdir())
