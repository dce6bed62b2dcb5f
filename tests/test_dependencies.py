"""What pyproject.toml says of other libraries: as few bounds as there can be, and none that is not tried."""

import re
import tomllib

from tests import ROOT

CAPPED = {"pcodec"}
"""A later major release may write what earlier ones cannot read."""
ALONE = {"numpy", "pandas"}
"""mfstore names no release of these: whoever stores such objects has them."""


def requirements():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lists = [
        project["dependencies"],
        *(extras[name] for name in extras if name not in ("bench", "demo", "docs", "test")),
    ]
    return {(name, bounds) for texts in lists for name, bounds in (parted(text) for text in texts)}


def parted(text):
    name, bounds = re.fullmatch(r"([a-z0-9-]+)(.*)", text).groups()
    return name, bounds


def oldest():
    lines = (ROOT / "tests" / "oldest.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def release(text):
    """Without zeros at its end: 1.36 and 1.36.0 are one."""
    return tuple(map(int, re.sub(r"(\.0)+$", "", text).split(".")))


def test_the_oldest_release_of_each_is_the_one_that_is_tried():
    tried = {name: release(version) for name, version in oldest().items() if name not in ALONE}
    named = {name: release(re.match(r">=([0-9.]+)", bounds)[1]) for name, bounds in requirements()}
    assert named == tried and len({name for name, _ in requirements()}) == len(requirements()), "one bound each"


def test_no_later_release_is_shut_out():
    assert {name for name, bounds in requirements() if "<" in bounds or "!" in bounds or "~" in bounds} == CAPPED
