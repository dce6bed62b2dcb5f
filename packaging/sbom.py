"""Prints what a wheel carries inside, as a bill of materials (CycloneDX, JSON): ``python packaging/sbom.py``.

What pip installs beside it is not in there: which versions these are is decided where it is installed.
Needs ``cyclonedx-python-lib``.
"""

import sys
import tomllib
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

ROOT = Path(__file__).parents[1]


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    libraries = tomllib.loads((ROOT / "packaging/wheels/sources.toml").read_text())
    licences = LicenseFactory()
    name, version = project["name"], project["version"]
    whole = Component(
        type=ComponentType.LIBRARY, name=name, version=version, bom_ref=name,
        licenses=[licences.make_from_string(project["license"])], purl=PackageURL("pypi", name=name, version=version),
    )  # fmt: skip
    bom = Bom()
    bom.metadata.component = whole
    parts = [
        Component(
            type=ComponentType.LIBRARY, name=name, version=library["version"], bom_ref=name,
            licenses=[licences.make_from_string(library["licence"])], purl=PackageURL.from_string(library["purl"]),
        )
        for name, library in libraries.items()
    ]  # fmt: skip
    bom.components.update(parts)
    bom.register_dependency(whole, parts)
    sys.stdout.write(JsonV1Dot6(bom).output_as_string(indent=2) + "\n")


if __name__ == "__main__":
    main()
