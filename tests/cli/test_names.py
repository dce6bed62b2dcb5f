"""Names on the command line, and the commands about keys and refs: in this process, on a store in memory."""

import json
import re
import shlex
from uuid import uuid4

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

import mfstore
from mfstore.cli import main
from tests import ROOT


@pytest.fixture
def store():
    with mfstore.open(f"memory://{uuid4()}") as store:
        yield store


@pytest.fixture
def run(store):
    def call(*args, code=0):
        done = CliRunner().invoke(main, args, env={"MFSTORE_STORE": store.url}, catch_exceptions=False)
        assert done.exit_code == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    return call


def rows(text):
    return [json.loads(line) for line in text.splitlines()]


def cells(text):
    """The lines of a table, below its head, as words."""
    return [line.split() for line in text.splitlines()[2:]]


def test_ls_and_du(run, store):
    keys = store.put_many([1, "text", list(range(5000))])
    assert sorted(run("ls").split()) == sorted(keys)
    assert {words[-1] for words in cells(run("ls", "-l"))} == {"int", "str", "list"}
    assert {words[0] for words in cells(run("ls", "-l"))} == {key[:10] for key in keys}
    assert {row["type"] for row in rows(run("ls", "-l", "--json"))} == {"int", "str", "list"}
    assert len(run("ls", "-n", "2").split()) == 2
    assert "recipes" in run("du")
    assert json.loads(run("du", "--json"))["recipes"] == 3


def test_refs(run, store):
    keys = store.put_many([1, 2])
    assert run("refs") == ""
    run("refs", "set", "a/b", keys[0])
    run("refs", "set", "a/b", keys[1][:9], "--note", "auc=0.9", "--note", "team=risk=1", "--note", 'tags=["x"]')
    ((name, key, *_),) = cells(run("refs"))
    assert (name, key) == ("a/b", keys[1][:10])
    (row,) = rows(run("refs", "--json"))
    assert (row["name"], row["key"], row["time"]) == ("a/b", keys[1], store.refs.log("a/b")[0].time)
    for log in (("a/b",), ("log", "a/b"), ("history", "a/b"), ("-s", store.url, "a/b")):
        shown = cells(run("refs", *log))
        assert [(words[0], words[3]) for words in shown] == [("@0", keys[1][:10]), ("@1", keys[0][:10])]
        found = rows(run("refs", *log, "--json"))
        assert [row["key"] for row in found] == [keys[1], keys[0]]
        assert [row["note"] for row in found] == [{"auc": 0.9, "team": "risk=1", "tags": ["x"]}, None]
    run("refs", "set", "set", "a/b@1")
    assert cells(run("refs", "log", "set"))[0][3] == keys[0][:10]
    assert run("refs", "rm", "a/b", code=4) == "mfstore: nothing was changed; --execute does this\n"
    assert store.refs["a/b"] == keys[1]
    run("refs", "rm", "a/b", "--execute")
    assert store.refs.list() == ["set"]
    assert "no ref 'a/b'" in run("refs", "a/b", code=1)
    assert "is no note" in run("refs", "set", "a", keys[0], "--note", "=1", code=2)


def test_ls_of_refs(run, store):
    for name, data in {"models/a": b"a" * 2000, "models/b": b"b", "runs/1": b""}.items():
        store.put_bytes(data, ref=name)
    gone = store.put("gone", ref="models/gone")
    store.backend.delete(f"recipes/{gone[:2]}/{gone}")
    assert [words[0] for words in cells(run("ls", "runs/"))] == ["runs/1"]
    shown = cells(run("ls", "models/*"))
    assert [words[:2] for words in shown] == [[name, store.refs[name][:10]] for name in store.refs.list("models/")]
    assert [words[4:] for words in shown] == [["2.0", "kB"], ["1", "B"], ["gone"]]
    assert [words[-1] for words in cells(run("ls", "models/", "-l"))] == ["bytes", "bytes", "gone"]
    found = rows(run("ls", "*", "--json"))
    assert [row["name"] for row in found] == list(store)
    assert found[0] == {
        "name": "models/a", "key": store.refs["models/a"], "time": store.refs.log("models/a")[0].time, "note": None,
        "size": 2000, "stored": store.stat("models/a").stored, "type": "bytes",
    }  # fmt: skip
    assert "size" not in found[2]
    assert [words[0] for words in cells(run("ls", "*", "-n", "1"))] == ["models/a"]
    assert run("ls", "none*") == ""


def test_a_name_goes_where_a_key_goes(run, store, tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    old = run("put", str(tmp_path / "file"), "--ref", "files/a", "--note", "auc=0.5").strip()
    (tmp_path / "file").write_bytes(b"new")
    run("put", str(tmp_path / "file"), "--base", "files/a", "--ref", "files/a")
    for name, data in {"files/a": "new", "files/a@1": "old", old[:8]: "old", old: "old"}.items():
        assert run("get", name) == data
        assert json.loads(run("get", name, "-o", str(tmp_path / "out"), "--json"))["key"] == store.resolve(name)
        assert (tmp_path / "out").read_text() == data
        assert json.loads(run("stat", name, "--json"))["key"] == store.resolve(name)
    assert "note      auc 0.5" in run("stat", "files/a@1") and "creator   " in run("stat", old)
    assert "There is files/a" in run("get", "a", code=1)
    for wrong in ("../x", "0" * 64, "files/a@1"):
        assert "ref" in run("put", str(tmp_path / "file"), "--ref", wrong, code=1)
    assert len(run("ls").split()) == 2


def test_where_there_is_no_store_no_command_shows_an_empty_one(run, store):
    for command in (["ls"], ["ls", "-l"], ["ls", "a*"], ["du"], ["refs"], ["refs", "a"], ["refs", "rm", "a"],
                    ["get", "a"], ["stat", "a"], ["delete", "a"]):  # fmt: skip
        assert run(*command, code=1) == f"mfstore: no store there yet (in {store.url})\n"
    for command in (["ls"], ["refs"], ["du"]):
        done = CliRunner().invoke(main, command, env={"MFSTORE_STORE": ""})
        assert done.exit_code == 2 and "MFSTORE_STORE" in done.stderr


def test_delete(run, store):
    key = store.put(1, ref="m")
    assert "refs name it, or did: m" in run("delete", key[:8], code=1)
    assert run("delete", "m", code=4) == "mfstore: nothing was changed; --execute does this\n"
    plan = store.delete("m", dry_run=True)
    assert "m would be removed, with its history of 1 value." in str(plan) and not plan.done and store.refs["m"] == key
    assert run("delete", "m", "--execute").startswith(
        "m is removed, with its history of 1 value.\n1 key is named by nothing else"
    )
    found = json.loads(run("delete", key, "--json"))
    assert (found["refs"], found["keys"], found["collected"]) == ([], [key], False)
    assert store.get(key) == 1


def test_the_commands_of_the_page_do_what_it_shows(run, store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.bin").write_bytes(b"weights")
    section = (ROOT / "docs" / "store.md").read_text().split("\n## On the command line\n")[1].split("\n## ")[0]
    (block,) = re.findall(r"^```console\n(.*?)^```$", section, re.M | re.S)
    commands = [shlex.split(line.removeprefix("$ mfstore ")) for line in block.splitlines() if line[0] == "$"]
    assert len(commands) == 8
    for command in commands:
        # What was stored so long ago cannot be, in a test.
        code = 0 if command[0] != "delete" or "--execute" in command else 4
        shown = run(*(word.removesuffix("@2h") for word in command), code=code)
        if command[0] in ("ls", "refs") and command[1] != "set":
            head = block.split(f"$ mfstore {shlex.join(command)}\n")[1].splitlines()[0]
            assert shown.splitlines()[0].split() == head.split()
    assert (tmp_path / "copy.bin").read_bytes() == b"weights" and store.refs.list() == ["models/churn"]


def test_names_are_completed(store):
    for name in ("models/a", "models/b", "log-files", "x"):
        store[name] = 1

    def offered(*args, begun="", env=None):
        with CliRunner(env={"MFSTORE_STORE": store.url} if env is None else env).isolation():
            found = ShellComplete(main, {}, "mfstore", "_MFSTORE_COMPLETE").get_completions(list(args), begun)
            return [item.value for item in found]

    for command in (["get"], ["stat", "x"], ["ls"], ["delete"], ["refs", "log"], ["refs", "set"], ["put", "--base"]):
        assert offered(*command, begun="mod") == ["models/a", "models/b"], command
    assert offered("refs", begun="lo") == ["log", "log-files"]
    assert offered("get", "-s", store.url, begun="x", env={"MFSTORE_STORE": ""}) == ["x"]
    for nowhere in ("", "nothing://x", "s3:x"):
        assert offered("get", env={"MFSTORE_STORE": nowhere}) == []
    assert "MFSTORE_COMPLETE=bash_source" in CliRunner().invoke(main, ["--help"]).stdout
