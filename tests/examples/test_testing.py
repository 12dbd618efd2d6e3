"""The example of how workflows are tested runs as a reader would run it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "testing"


def test_the_example_s_tests_pass(tmp_path: Path) -> None:
    """Given both files in a directory of their own, when pytest runs there, then all tests pass with no warning."""
    place = shutil.copytree(EXAMPLE, tmp_path / "testing")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=place,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout


def test_what_the_page_shows_is_the_example() -> None:
    """Given the pieces of docs/testing.md, each stands in the tests of the example, word for word."""
    page = (EXAMPLE.parents[1] / "docs" / "testing.md").read_text(encoding="utf-8")
    pieces = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    example = (EXAMPLE / "test_rental.py").read_text(encoding="utf-8")
    assert len(pieces) == 4
    assert [piece for piece in pieces if piece not in example] == []
