"""Workflows, recipe, and what pyproject.toml says to who packages: they name what is there, and agree."""

import json
import re
import subprocess
import sys
import tomllib

import pytest
import yaml

from tests import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PYTHON = "Programming Language :: Python :: "


def steps(path):
    """Of all jobs of a workflow."""
    return [step for job in yaml.safe_load(path.read_text())["jobs"].values() for step in job["steps"]]


def commands(path):
    return [line.strip() for step in steps(path) for line in step.get("run", "").splitlines()]


def supported():
    """The versions of Python that the classifiers list."""
    listed = [one.removeprefix(PYTHON) for one in PROJECT["project"]["classifiers"] if one.startswith(PYTHON)]
    return {version for version in listed if "." in version}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_names_what_is_there(path):
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for command in commands(path):
        words = command.split()
        if words[0] == "make":
            named = [word for word in words[1:] if re.fullmatch("[a-z][a-z-]+", word)]
            assert named and set(named) <= targets, command
        for file in re.findall(r"packaging/[\w./]+", command):
            assert (ROOT / file).exists(), command


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_job_has_no_more_rights_than_it_needs(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"] and ("permissions" in job) == (name == "publish")


def test_every_supported_python_is_tested_by_a_workflow():
    (tested,) = (job for name, job in yaml.safe_load(WORKFLOWS[0].read_text())["jobs"].items() if name == "pythons")
    oldest = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert supported() <= {*tested["strategy"]["matrix"]["python"], oldest}
    assert oldest in supported()


def test_the_archive_and_every_wheel_are_published_together():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "wheels.yml").read_text())
    publish = workflow["jobs"].pop("publish")
    assert publish["needs"] == [*workflow["jobs"]]
    uses = [step.get("uses", "").partition("@")[0] for step in publish["steps"]]
    attested = [uses.index("actions/attest-build-provenance"), uses.index("actions/attest-sbom")]
    assert max(attested) < uses.index("pypa/gh-action-pypi-publish")


def test_what_cibuildwheel_runs_is_there():
    settings = PROJECT["tool"]["cibuildwheel"]
    text = " ".join(
        [*settings["macos"]["before-all"], settings["macos"]["repair-wheel-command"], settings["macos"]["test-command"]]
    )
    for file in re.findall(r"(?:packaging|tests)/[\w./]+", text):
        assert (ROOT / file).exists(), file


def rendered(text):
    """The recipe with what its context says; functions of conda stand for themselves."""
    context = yaml.safe_load(text)["context"]
    return yaml.safe_load(re.sub(r"\$\{\{ (\w+) \}\}", lambda found: str(context.get(found[1], found[1])), text))


def test_the_recipe_of_conda_says_what_the_project_says():
    recipe = rendered((ROOT / "packaging" / "conda" / "recipe.yaml").read_text())
    project = PROJECT["project"]
    assert recipe["package"] == {"name": project["name"], "version": project["version"]}
    needed = {tuple(re.split("(?=[<>])", one, maxsplit=1)) for one in project["dependencies"]}
    assert {tuple(one.split(" ")) for one in recipe["requirements"]["run"] if one != "python"} == needed
    extras = {one for extra in ("s3", "aio", "metaflow") for one in project["optional-dependencies"][extra]}
    for one in recipe["requirements"]["run_constraints"]:
        assert one.replace(" ", "") in extras
    scripts = [" = ".join(pair) for pair in project["scripts"].items()]
    assert recipe["build"]["python"]["entry_points"] == scripts


def test_the_bill_of_materials_lists_what_wheels_carry():
    pytest.importorskip("cyclonedx", reason="of the extra test, in environments of continuous integration")
    done = subprocess.run(
        [sys.executable, str(ROOT / "packaging" / "sbom.py")], capture_output=True, text=True, check=True
    )
    document = json.loads(done.stdout)
    carried = tomllib.loads((ROOT / "packaging" / "wheels" / "sources.toml").read_text())
    assert {one["name"]: one["version"] for one in document["components"]} == {
        name: library["version"] for name, library in carried.items()
    }
    assert document["metadata"]["component"]["version"] == PROJECT["project"]["version"]
