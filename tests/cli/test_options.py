"""What all commands have: options, and a help text with exit codes."""

import click
import pytest

from mfstore.cli import main
from mfstore.cli.copying import reached_by
from mfstore.cli.exits import exits_of
from mfstore.cli.options import REMOTE, Connection
from tests.rigs.command_line import mfstore

NO_PLACE = {"cache", "demo"}
"""Commands that open no place but a directory they make."""
READING = {
    "get", "ls", "stat", "tree", "diff", "du", "holds", "page", "refs log", "refs history", "fleet du", "policy",
    "presign",
}  # fmt: skip
"""Commands that write nothing."""
REACHED = {"endpoint_url", "region", "aws_profile", "account"}
ENCRYPTED = {"encryption", "kms_key"}


def commands(group=main, context=None, before=""):
    """Each command by its name."""
    context = context or click.Context(main, info_name="mfstore")
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        if isinstance(found, click.Group):
            yield from commands(found, click.Context(found, info_name=name, parent=context), f"{before}{name} ")
            if not found.invoke_without_command:
                continue
        yield f"{before}{name}", found


COMMANDS = dict(commands())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_opens_a_place_says_how_it_is_reached(name):
    found = {parameter.name: parameter for parameter in COMMANDS[name].params}
    wanted = set() if name in NO_PLACE else REACHED if name in READING else REACHED | ENCRYPTED
    assert found.keys() & {*Connection._fields} == wanted
    if wanted:
        assert found["endpoint_url"].opts == ["--endpoint-url"]
        assert found["aws_profile"].opts == ["--profile"] * (name != "bench") + ["--aws-profile"]
        assert all(found[one].section == REMOTE for one in wanted)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_works_on_stores_alone_demands_one(name, monkeypatch):
    monkeypatch.setenv("MFSTORE_STORE", "")
    command = COMMANDS[name]
    opts = {parameter.name: parameter.opts for parameter in command.params}
    if "--store" not in opts.get("url", ()) or "metaflow" in opts or isinstance(command, click.Group):
        return
    given = []
    for parameter in command.params:
        if parameter.required:
            given += [__file__] if isinstance(parameter, click.Argument) else [parameter.opts[0], __file__]
    with pytest.raises(click.UsageError, match="Missing option '-s'"):
        command.make_context(name, given)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_the_exit_codes(name):
    text = mfstore(*name.split(), "--help").stdout
    rows = text.split("\nExit codes:\n", 1)[1].split("\n\n")[0]
    assert " ".join(rows.split()) == " ".join(f"{code} {what}" for code, what in exits_of(name).items())


def test_a_directory_has_nothing_of_s3(tmp_path):
    for given in (["ls"], ["put", __file__], ["du"]):
        done = mfstore(given[0], "-s", tmp_path, "--region", "x", "--profile", "y", *given[1:], code=2)
        assert f"--region, --aws-profile: only for places in S3, and this is {tmp_path}" in " ".join(
            done.stderr.split()
        )
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("url", "given", "wanted"),
    [
        ("s3://b/x", {"endpoint_url": "u", "aws_profile": "p"}, {"endpoint_url": "u", "profile_name": "p"}),
        ("az://c/x", {"endpoint_url": "u", "account": "a"}, {"endpoint_url": "u", "account_name": "a"}),
        ("abfss://c@a.dfs.core.windows.net/x", {"endpoint_url": "u"}, {"endpoint_url": "u"}),
        ("gs://b/x", {"endpoint_url": "u"}, {"endpoint_url": "u"}),
        (
            "az://c/x",
            {"region": "r", "kms_key": "k"},
            "--region, --kms-key: only for places in S3, and this is az://c/x",
        ),
        ("gs://b/x", {"account": "a", "region": "r"}, "only for places in S3 or Azure, and this is gs://b/x"),
        ("s3://b/x", {"account": "a"}, "--account: only for places in Azure"),
        ("/a/directory", {"endpoint_url": "u"}, "--endpoint-url: only for places in S3 or Azure or Google Cloud"),
        ("memory://x", {"aws_profile": "p"}, "--aws-profile: only for places in S3"),
    ],
)
def test_an_option_is_of_the_services_that_have_it(url, given, wanted):
    if isinstance(wanted, dict):
        assert Connection(**given).options_for(url) == wanted
    else:
        with pytest.raises(click.UsageError) as caught:
            Connection(**given).options_for(url)
        assert wanted in caught.value.message


def test_what_the_group_was_told_its_commands_know(tmp_path):
    done = mfstore("refs", "-s", tmp_path, "--region", "x", "log", "a", code=2)
    assert "--region: only for places in S3" in done.stderr


@pytest.mark.parametrize(
    ("source", "destination", "options", "expected"),
    [
        ("gs://b/x", "gs://c/x", {"endpoint_url": "u"}, ({"endpoint_url": "u"}, {"endpoint_url": "u"})),
        ("gs://b/x", "/a/directory", {"endpoint_url": "u"}, ({"endpoint_url": "u"}, {})),
        ("az://b/x", "gs://c/x", {"endpoint_url": "u", "account": "a"}, ({"account": "a"}, {"endpoint_url": "u"})),
        ("az://b/x", "abfss://c@a/x", {"account": "a"}, ({"account": "a"}, {"account": "a"})),
        ("s3://b/x", "az://c/x", {"region": "r", "account": "a"}, ({"region": "r"}, {"account": "a"})),
        ("/a/directory", "gs://c/x", {"account": "a"}, "--account: only for places in Azure, and this is gs://c/x"),
        ("s3://b/x", "az://c/x", {"encryption": "AES256"}, "--encryption: only for places in S3, and this is az://c/x"),
    ],
)
def test_a_copy_reaches_each_place_by_what_is_of_it(source, destination, options, expected):
    if isinstance(expected, str):
        with pytest.raises(click.UsageError, match=expected):
            reached_by(source, destination, Connection(**options), Connection())
        return
    both = reached_by(source, destination, Connection(**options), Connection())
    assert tuple({name: getattr(one, name) for name in one.named()} for one in both) == expected


def test_what_is_different_of_a_source_in_any_cloud():
    here, there = reached_by("az://b/x", "az://c/x", Connection("u"), Connection("v"))
    assert (here.endpoint_url, there.endpoint_url) == ("v", "u")
    with pytest.raises(click.UsageError, match="--from-region: only for places in S3, and this is az://b/x"):
        reached_by("az://b/x", "az://c/x", Connection(), Connection(region="r"))
