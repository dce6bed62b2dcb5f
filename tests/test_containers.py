"""The image that docs/containers.md shows, and what `make wheel-test` understands of Dockerfiles."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "packaging" / "wheel_test"
DOCKERFILE = (ROOT / "examples" / "container" / "Dockerfile").read_text()


@pytest.fixture(scope="module")
def wheel_test():
    """The modules of the folder, which is run and belongs to no package, by name."""
    names = ("roots", "runtimes", "dockerfile")
    sys.path.insert(0, str(FOLDER))
    try:
        loaded = {}
        for name in names:
            spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
            loaded[name] = sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(loaded[name])
        yield SimpleNamespace(**loaded)
    finally:
        sys.path.remove(str(FOLDER))
        for name in names:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def dockerfile(wheel_test):
    return wheel_test.dockerfile


class Commands:
    """A root that remembers what it was to do."""

    def __init__(self):
        self.environment = {"PATH": "/usr/bin"}
        self.ran, self.files = [], {}

    def run(self, command, environment=None, directory="/root"):
        self.ran.append((command[-1], environment or {}, directory))
        return SimpleNamespace(returncode=1 if command[-1] == "false" else 0, stdout="said")

    def write(self, path, content):
        self.files[path] = content


def test_the_page_shows_the_image_that_is_tried():
    assert f"```dockerfile\n{DOCKERFILE}```" in (ROOT / "docs" / "containers.md").read_text()


def test_the_image_is_understood(dockerfile):
    instructions = dockerfile.parse(DOCKERFILE)
    assert dockerfile.base(instructions, {}) == "python:3.12-slim"
    assert dockerfile.base(instructions, {"PYTHON": "3.13"}) == "python:3.13-slim"
    root = Commands()
    image = dockerfile.build(instructions, ROOT / "examples" / "container", root, {"PIP_NO_INDEX": "1"})
    assert image.environment["AWS_CA_BUNDLE"] == "/etc/ssl/certs/ca-certificates.crt"
    assert "/usr/local/share/ca-certificates/README.md" in root.files
    assert root.ran[0][0] == "pip install --no-cache-dir 'mfstore[metaflow]'"
    assert all(environment["PIP_NO_INDEX"] == "1" for _, environment, _ in root.ran)


def test_instructions(dockerfile, tmp_path):
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "folder" / "in").mkdir(parents=True)
    (tmp_path / "folder" / "in" / "b").write_bytes(b"b")
    text = "FROM x\nWORKDIR /w\nENV A=1 B='2 3'\nENV PATH=$A:${PATH}\n# a\nCOPY a there\nCOPY a folder out/\nRUN one \\\n  two\n"
    root = Commands()
    image = dockerfile.build(dockerfile.parse(text), tmp_path, root, {})
    assert image.environment == {"A": "1", "B": "2 3", "PATH": "1:/usr/bin"} and image.directory == "/w"
    assert root.files == {"/w/there": b"a", "/w/out/a": b"a", "/w/out/in/b": b"b"}
    assert root.ran[-1] == ("one    two", image.environment, "/w")
    with pytest.raises(RuntimeError, match=r"RUN false ended with 1:\nsaid"):
        dockerfile.build(dockerfile.parse("FROM x\nRUN false"), tmp_path, Commands(), {})


@pytest.mark.parametrize(
    "text",
    [
        "FROM x\nUSER nobody",
        "FROM x\nRUN --mount=type=cache,target=/c true",
        'FROM x\nRUN ["true"]',
        "FROM x\nCOPY --from=y a b",
        "RUN true",
        "FROM x\nFROM y",
    ],
)
def test_what_is_not_known_is_refused(dockerfile, text):
    with pytest.raises(dockerfile.NotUnderstood):
        dockerfile.parse(text)


@pytest.mark.parametrize("text", ["FROM x\nCOPY absent a", "FROM x\nCOPY ../a a", "FROM x\nENV a b"])
def test_what_cannot_be_done_is_refused(dockerfile, tmp_path, text):
    context = tmp_path / "context"
    context.mkdir()
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(dockerfile.NotUnderstood):
        dockerfile.build(dockerfile.parse(text), context, Commands(), {})


def test_wheels_that_fit_no_root_are_known_by_name(wheel_test):
    names = ["mfstore-1-cp312-cp312-manylinux_2_28_aarch64.whl", "mfstore-1-cp311-cp311-musllinux_1_2_x86_64.whl"]
    assert wheel_test.runtimes.split_untried(names, []) == ([], names)
    assert wheel_test.runtimes.split_untried(names, ["*musllinux*"]) == (names[1:], names[:1])
    assert wheel_test.runtimes.split_untried(names, ["*musl*", "*-cp312-*"]) == (names, [])
