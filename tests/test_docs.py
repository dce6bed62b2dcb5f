"""The documents keep the promises they make: links lead somewhere, names exist, and every decision is in the index."""

import pkgutil
import re
import subprocess
from pathlib import Path

import pytest

import mfstore
from mfstore.cli import COMMANDS
from mfstore.s3 import BulkClient

ROOT = Path(__file__).parent.parent
LIMIT = 120


def tracked(*patterns):
    done = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


def markdown():
    return tracked("*.md")


def named(path):
    return str(path.relative_to(ROOT))


def without_code(text):
    """Markdown without what stands in fences and back-quotes, where nothing is a link."""
    return re.sub(r"`[^`\n]*`", "`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))


def anchors(path):
    """The anchors of a document's headings, as GitHub and the site make them."""
    found = set()
    for title in re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S), re.M):
        words = re.sub(r"[^\w\s-]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower())
        found.add(re.sub(r"\s", "-", words.strip()))
    return found


# Lines


def test_lines_of_markdown_are_short():
    long = [
        f"{named(path)}:{number}"
        for path in markdown()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        # A table's row cannot be broken, and neither can a link's address.
        if not line.startswith("|") and len(re.sub(r"\]\([^)\s]*\)", "]", line)) > LIMIT
    ]
    assert not long


def test_lines_of_code_are_short():
    """A pragma at the end of a line does not count, as for ruff. Of the tests, data may be longer."""
    sources = ("mfstore", "src", "benchmarks", "fuzz", "metaflow_extensions")
    pragma = re.compile(r"  # (type: ignore|noqa|fmt: skip).*$")
    long = [
        f"{named(path)}:{number}"
        for path in tracked("*.py", "*.pyi", "*.pyx", "*.pxd", "*.c", "*.h")
        if named(path).startswith(sources)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(pragma.sub("", line)) > LIMIT
    ]
    assert not long


# Links and names


def test_links_lead_somewhere():
    broken = []
    for path in markdown():
        for link in re.findall(r"\]\(([^)\s]+)\)", without_code(path.read_text())):
            if re.match(r"[a-z]+:", link):
                continue
            target, _, anchor = link.partition("#")
            file = (path.parent / target).resolve() if target else path
            if not file.exists() or (anchor and anchor not in anchors(file)):
                broken.append(f"{named(path)}: {link}")
    assert not broken


def test_docs_do_not_link_out_of_themselves():
    """The site holds docs/ alone."""
    out = [
        f"{named(path)}: {link}"
        for path in (ROOT / "docs").rglob("*.md")
        for link in re.findall(r"\]\(([^)\s#]+)", without_code(path.read_text()))
        if not re.match(r"[a-z]+:", link) and not (path.parent / link).resolve().is_relative_to(ROOT / "docs")
    ]
    assert not out


def test_files_that_documents_name_exist():
    missing = set()
    for path in markdown():
        if path.name == "CHANGELOG.md":
            continue  # tells of files that were
        for name in re.findall(r"`((?:mfstore|src|tests|benchmarks|fuzz|docs|examples)/[\w./*-]*)`", path.read_text()):
            if not (list(ROOT.glob(name)) if "*" in name else (ROOT / name).exists()):
                missing.add(f"{named(path)}: {name}")
    assert not missing


def test_names_in_the_reference_exist_and_stand_there_once():
    for page in (ROOT / "docs" / "reference").glob("*.md"):
        names = re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)
        assert len(names) == len(set(names)), named(page)
        for name in names:
            assert pkgutil.resolve_name(name) is not None, f"{named(page)}: {name}"


def test_make_targets_that_documents_name_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE))
    for path in markdown():
        code = re.findall(r"`[^`\n]*`|^ {4}.*$", path.read_text(), re.MULTILINE)
        for target in re.findall(r"\bmake ([a-z][\w-]*)", " ".join(code)):
            assert target in targets, f"{named(path)}: make {target}"


def test_what_the_page_of_calls_names_exists():
    said = " ".join(re.findall(r"`([^`\n]*)`", (ROOT / "docs" / "which.md").read_text()))
    things = {"store": mfstore.Store, "client": BulkClient, "mfstore": mfstore}
    calls = set(re.findall(r"\b(store|client|mfstore)\.(\w+)\(", said))
    assert len(calls) > 15
    for thing, name in calls:
        assert hasattr(things[thing], name), f"{thing}.{name}"
    commands = set(re.findall(r"\bmfstore (?!import)([a-z]+)\b", said))
    assert len(commands) > 8 and commands <= COMMANDS.keys(), commands - COMMANDS.keys()


# Decisions


def decisions():
    return sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))


def test_every_decision_is_in_the_index():
    index = (ROOT / "docs" / "decisions" / "README.md").read_text()
    rows = re.findall(r"^\| \[(\d{3})\]\((\S+)\) \| (.*) \| (\d{4}-\d\d-\d\d) \|$", index, re.MULTILINE)
    found = []
    for path in decisions():
        first, _, date = path.read_text().splitlines()[:3]
        number, _, title = first.removeprefix("# ").partition(": ")
        found.append((number, path.name, title, date))
    assert rows == found


def test_decisions_are_numbered_in_order_of_their_dates():
    numbers = [int(path.name[:3]) for path in decisions()]
    assert numbers == list(range(1, len(numbers) + 1))
    dates = [path.read_text().splitlines()[2] for path in decisions()]
    assert dates == sorted(dates)


def test_decisions_say_four_things_on_one_screen():
    for path in decisions():
        lines = path.read_text().splitlines()
        headings = [line.removeprefix("## ") for line in lines if line.startswith("## ")]
        assert headings == ["Decided", "Why", "What else was considered", "What follows"], path.name
        assert len(lines) <= 50, path.name


# Words


def test_the_glossary_has_every_word_once_with_one_sentence():
    text = (ROOT / "docs" / "glossary.md").read_text()
    entries = re.findall(r"^\* \*\*([^*]+)\*\*(?: \(([^)]*)\))?: (.*(?:\n  .*)*)$", text, re.MULTILINE)
    assert len(entries) == len(re.findall(r"^\* ", text, re.MULTILINE))
    words = [(word, sense) for word, sense, _ in entries]
    assert len(words) == len(set(words))
    for word, _, meaning in entries:
        assert meaning.endswith(".") and ". " not in meaning.replace("\n ", ""), word


# Continuous integration


def test_continuous_integration_and_the_hooks_run_what_make_runs():
    makefile = (ROOT / "Makefile").read_text()
    local = re.findall(r"^make (.*)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    workflow = (ROOT / ".github/workflows/ci.yml").read_text().split("\njobs:\n")[1]
    jobs = re.findall(r"^  (\w+):\n((?:    .*\n)+)", workflow, re.MULTILINE)
    # The newest botocore has a job of its own: it runs the tests of S3 a second time, for which .ci/run has no time.
    assert {name: re.findall(r"run: make (.*)$", steps, re.MULTILINE) for name, steps in jobs} == {
        "ci": local,
        "newest": ["test-newest"],
        "pythons": ["check-fast PYTHON=python${{ matrix.python }}"],
    }
    checks = re.search(r"^check:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)[1]
    commands = {command for command in re.findall(r"\$\(RUN\) -m (.*)", checks) if not command.startswith("pip ")}
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    assert set(re.findall(r"python\S* -m (.*?)'?$", hooks, re.MULTILINE)) == commands
