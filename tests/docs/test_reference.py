"""The reference says what the code says: nothing in it is missing, and nothing is left over."""

import re
import tomllib
from pathlib import Path

import pytest

import reference
import refold

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
CODE = [
    path.read_text(encoding="utf-8")
    for folder in ("log", "engine", "projections", "services")
    for path in (ROOT / folder).rglob("*.py")
]


@pytest.mark.parametrize("page", reference.PAGES, ids=lambda page: page.name)
def test_the_tables_are_as_the_code_has_them(page: Path) -> None:
    """Given a page, when its tables are made anew, then nothing changes; else run `python tools/reference.py`."""
    assert page.read_text(encoding="utf-8") == reference.filled(page.read_text(encoding="utf-8"))


def test_every_name_of_the_package_is_in_the_api_s_tables_once() -> None:
    """Given the names that refold exports, each is listed, or is an error and so in the tree of errors."""
    assert sorted([*reference.LISTED, *reference.errors()]) == sorted(refold.__all__)
    tree = reference.errors_table()
    assert {name for name in reference.errors() if f"- `{name}`:" not in tree} == set()


def test_every_environment_variable_is_in_the_reference() -> None:
    """Given the variables that the code names, the page has a row for each and for no other."""
    named = {name for text in CODE for name in re.findall(r"REFOLD_[A-Z_]+[A-Z]", text)}
    told = re.findall(r"^\| `(REFOLD_[A-Z_]+)` \|", REFERENCE, re.MULTILINE)
    assert set(told) == {name for name in named if not name.startswith("REFOLD_KAFKA")}
    assert "`REFOLD_KAFKA_...`" in REFERENCE


def test_every_extra_is_in_the_reference() -> None:
    """Given the extras of the package but for those of this repository's own work, the page tells each."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = set(project["optional-dependencies"]) - {"dev", "bench", "demo"}
    table = REFERENCE.partition("## Extras")[2].partition("## ")[0]
    told = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`(\w+)`", " ".join(told))) == extras
